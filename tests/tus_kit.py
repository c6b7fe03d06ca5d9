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
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import httpx
from guarded import GuardedServer

TESTS = Path(__file__).parent


class TusServer(GuardedServer):
    """`without` are extensions that it does not offer."""

    def __init__(self, root: Path, *without: str) -> None:
        self.files = root / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        super().__init__(root, "tus_app:app", "--app-dir", str(TESTS))
        self._without = without

    @property
    def url(self) -> str:
        return f"tus+{self.base}/files/"

    def environment(self) -> dict[str, str]:
        return dict(os.environ) | {"TUS_DIR": str(self.files), "TUS_WITHOUT": ",".join(self._without)}

    def answers(self) -> bool:
        return httpx.options(f"{self.base}/files/", trust_env=False, timeout=5).status_code == 204

    def close(self) -> None:
        if self.running:
            self.kill()

    # What it holds.

    def uploads(self) -> list[dict[str, Any]]:
        """Everything that was created and not removed, oldest first; `held` bytes are there. A PATCH that was still
        read when its upload was removed leaves an .info without a file: the server itself answers 404 for that."""
        found = []
        for path in self.files.glob("*.info"):
            with contextlib.suppress(FileNotFoundError, ValueError):
                told = {"uid": path.stem, "held": path.with_suffix("").stat().st_size}
                found.append((path.stat().st_ctime_ns, json.loads(path.read_text()) | told))
        return [one for _, one in sorted(found, key=lambda pair: pair[0])]

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
