"""A uvicorn server that is not ours, in a process of its own that ends with the tests, on a free loopback port."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import httpx
from cli_kit import until

GUARD = str(Path(__file__).parent / "guard.py")
_READY = 30.0


class GuardedServer:
    """`app` are the words that name the application to uvicorn. `port` stays the same after the first start."""

    def __init__(self, root: Path, *app: str) -> None:
        self.root = root
        self.port = 0
        self._app: Sequence[str] = app
        self._log = root / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> Mapping[str, str]:
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it serves by now; httpx.TransportError means no."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "uvicorn", *self._app, "--host", "127.0.0.1", "--port", str(self.port)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, GUARD, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=dict(self.environment()),
                cwd=self.root,
                start_new_session=True,
            )
        try:
            self._pid = int(self._output.readline())
            until(self._ready, _READY)
        except BaseException:
            self._reap()
            raise

    @property
    def running(self) -> bool:
        return self._process is not None

    def kill(self) -> None:
        """As the power goes: nothing is finished, nothing is said."""
        os.kill(self._pid, signal.SIGKILL)
        self._reap()

    def stop(self) -> None:
        assert self._process is not None
        os.kill(self._pid, signal.SIGTERM)
        self._process.wait(20)
        self._reap()

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
                return self.answers()
        return False

    def _reap(self) -> None:
        """Its guard ends it when our end of the pipe closes, if it has not ended yet."""
        assert self._process is not None
        self._process.communicate(timeout=20)
        self._process = None
