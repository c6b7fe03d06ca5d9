"""A real tus server for tests: the published tuspyserver in a process of its own, on a free loopback port.

with running_tus(root) as server:
    server.url                          # tus+http://127.0.0.1:PORT/files/
    server.content("a.bin")             # the bytes of the newest finished upload of that name
    server.kill(); server.start()       # SIGKILL, and again on the same port
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import httpx
from cli_kit import until

TESTS = Path(__file__).parent
READY = 30.0


class TusServer:
    """`without` are extensions that it does not offer."""

    def __init__(self, root: Path, *without: str) -> None:
        self.root, self.files = root, root / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        self.port = 0
        self._without = without
        self._log = root / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"tus+{self.base}/files/"

    def start(self) -> None:
        """Start it, on the port of before if there was one, and wait until it answers."""
        command = [sys.executable, "-m", "uvicorn", "tus_app:app", "--app-dir", str(TESTS), "--host", "127.0.0.1"]
        env = dict(os.environ) | {"TUS_DIR": str(self.files), "TUS_WITHOUT": ",".join(self._without)}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(TESTS / "guarded.py"), *command, "--port", str(self.port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=env,
                start_new_session=True,
            )
        try:
            self._pid = int(self._output.readline())
            until(self._ready, READY)
        except BaseException:
            self._reap()
            raise

    @property
    def _output(self) -> BinaryIO:
        assert self._process is not None and self._process.stdout is not None
        return self._process.stdout  # type: ignore[return-value]

    def _ready(self) -> bool:
        assert self._process is not None
        log = self._log.read_text()
        assert self._process.poll() is None, f"the server ended:\n{log}"
        if found := re.search(r"running on http://127\.0\.0\.1:(\d+)", log):
            self.port = int(found[1])
            with contextlib.suppress(httpx.TransportError):
                return httpx.options(f"{self.base}/files/", trust_env=False, timeout=5).status_code == 204
        return False

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self._pid, signal.SIGKILL)
        self._reap()

    def close(self) -> None:
        if self._process:
            self.kill()

    def _reap(self) -> None:
        assert self._process is not None
        self._process.communicate(timeout=20)
        self._process = None

    # What it holds.

    def uploads(self) -> list[dict[str, Any]]:
        """Everything that was created and not removed, oldest first."""
        found = []
        for path in sorted(self.files.glob("*.info"), key=lambda path: path.stat().st_ctime_ns):
            with contextlib.suppress(FileNotFoundError, ValueError):
                found.append(json.loads(path.read_text()) | {"uid": path.stem})
        return found

    def unfinished(self, name: str | None = None) -> list[dict[str, Any]]:
        """Those that lack bytes, and parts that were not put together."""
        return [
            one
            for one in self.uploads()
            if (one["offset"] != one["size"] or one["is_partial"]) and name in (None, one["metadata"]["filename"])
        ]

    def content(self, name: str, but: Container[str] = ()) -> bytes | None:
        """The newest finished file of this name, of uploads that are not in `but`."""
        whole = [
            one
            for one in self.uploads()
            if (one["offset"], one["is_partial"]) == (one["size"], False)
            and one["metadata"]["filename"] == name
            and one["uid"] not in but
        ]
        return (self.files / whole[-1]["uid"]).read_bytes() if whole else None

    def at(self, location: str) -> bytes:
        """The bytes behind an upload's URL."""
        return (self.files / location.rpartition("/")[2]).read_bytes()


@contextlib.contextmanager
def running_tus(root: Path, *without: str) -> Iterator[TusServer]:
    """A server that listens; killed at the end if it still runs."""
    server = TusServer(root, *without)
    try:
        server.start()
        yield server
    finally:
        server.close()
