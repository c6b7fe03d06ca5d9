"""`jobs/<id>/log`: what happened to a job, for support to read. Rotating, 0600, without chunk noise and secrets."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import traceback
from dataclasses import fields
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

from ppcli import __version__, disk
from ppcli.errors import PpcliError
from ppcli.events import ChunkConfirmed, Event, Listener, ReservationProgress, Stopping, UploadProgress, WarningRaised
from ppcli.jobfiles import LOG

_SIZE = 1 << 20
_QUIET = (ChunkConfirmed, ReservationProgress, Stopping, UploadProgress)
_UNSAID = ("job", "location")
"""The log is the job's; who knows the location of a tus upload can write to it."""


class _PrivateFile(RotatingFileHandler):
    def _open(self) -> IO[str]:  # type: ignore[override]
        fd = disk.open_private(Path(self.baseFilename), os.O_WRONLY | os.O_APPEND)
        return os.fdopen(fd, self.mode, encoding="utf-8", errors="backslashreplace")


class JobLog:
    """A listener that writes the log and passes every event on. A log that cannot be written never stops a job."""

    def __init__(self, directory: Path, listener: Listener) -> None:
        self._listener = listener
        self._handler: logging.Handler = logging.NullHandler()
        try:
            self._handler = _PrivateFile(directory / LOG, maxBytes=_SIZE, backupCount=1)
            self._handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(message)s"))
            self._handler.handleError = lambda record: None  # type: ignore[method-assign]
        except OSError:
            pass
        system = f"{platform.system()} {platform.release()} {platform.machine()}"  # `platform()` would run a program
        self._write(f"ppcli {__version__}, Python {platform.python_version()}, {system}")

    def hear(self, event: Event) -> None:
        if not isinstance(event, _QUIET):
            said = " ".join(f"{f.name}={getattr(event, f.name)!r}" for f in fields(event) if f.name not in _UNSAID)
            self._write(f"{event.event} {said}")
        self._listener.hear(event)

    def tick(self) -> None:
        self._listener.tick()

    def bug(self, error: BaseException) -> None:
        """Write the traceback of a bug."""
        self._write("".join(traceback.format_exception(error)))

    def stopped(self, error: PpcliError) -> None:
        """Write why a run ended before everything was done."""
        self._write(f"stopped kind={error.kind!r} reason={error.reason!r} message={error.message!r}")

    def warn(self, job: str, code: str, message: str) -> None:
        self.hear(WarningRaised(job, code, message))

    def _write(self, line: str) -> None:
        self._handler.handle(logging.makeLogRecord({"msg": "%s", "args": (line,)}))

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what could not be written is tried once more
            self._handler.close()
