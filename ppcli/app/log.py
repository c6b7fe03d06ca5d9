"""`jobs/<id>/log`: what happened to a job, for support to read. Rotating, 0600, without chunk noise and secrets."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import traceback
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Any

from ppcli import __version__, disk, records
from ppcli.errors import PpcliError
from ppcli.events import ChunkConfirmed, Event, Listener, ReservationProgress, Stopping, UploadProgress, WarningRaised
from ppcli.jobfiles import LOG
from ppcli.manifest import now

_SIZE = 1 << 20
_QUIET = (ChunkConfirmed, ReservationProgress, Stopping, UploadProgress)
_UNSAID = ("job", "location")
"""The log is the job's; who knows the location of a tus upload can write to it."""
_GATHERED = 16
"""What part of a full log is gathered at most before it is written."""


class _PrivateFile(RotatingFileHandler):
    def _open(self) -> IO[str]:  # type: ignore[override]
        fd = disk.open_private(Path(self.baseFilename), os.O_WRONLY | os.O_APPEND)
        return os.fdopen(fd, self.mode, encoding="utf-8", errors="backslashreplace")


class JobLog:
    """A listener that writes the log and passes every event on. A log that cannot be written never stops a job. What
    there is to say is gathered until the next tick, or until something went wrong: a job may have many small files."""

    def __init__(self, directory: Path, listener: Listener) -> None:
        self._listener = listener
        self._handler: logging.Handler = logging.NullHandler()
        self._said: dict[type[Event], Callable[[Event], str]] = {}
        self._lines: list[str] = []
        self._gathered = 0
        self._process = os.getpid()
        try:
            self._handler = _PrivateFile(directory / LOG, maxBytes=_SIZE, backupCount=1)
            self._handler.handleError = lambda record: None  # type: ignore[method-assign]
        except OSError:
            pass
        system = f"{platform.system()} {platform.release()} {platform.machine()}"  # `platform()` would run a program
        self._write(f"ppcli {__version__}, Python {platform.python_version()}, {system}")

    def hear(self, event: Event) -> None:
        if not isinstance(event, _QUIET):
            said = self._said.get(type(event)) or self._learn(type(event))
            self._write(f"{event.event} {{{said(event)}}}")
        self._listener.hear(event)

    def _learn(self, kind: Any) -> Callable[[Event], str]:
        words = tuple(word for word in records.names(kind) if word not in _UNSAID)
        said = self._said[kind] = records.writer(kind, words)
        return said

    def tick(self) -> None:
        self._flush()
        self._listener.tick()

    def bug(self, error: BaseException) -> None:
        """Write the traceback of a bug."""
        self._write("".join(traceback.format_exception(error)))
        self._flush()

    def stopped(self, error: PpcliError) -> None:
        """Write why a run ended before everything was done."""
        said = {"kind": error.kind, "reason": error.reason, "message": error.message}
        self._write(f"stopped {records.text(said)}")
        self._flush()

    def warn(self, job: str, code: str, message: str) -> None:
        self.hear(WarningRaised(job, code, message))

    def _write(self, line: str) -> None:
        self._lines.append(f"{now()} {self._process} {line}")
        self._gathered += len(line)
        if self._gathered > _SIZE // _GATHERED:
            self._flush()

    def _flush(self) -> None:
        if self._lines:
            self._handler.handle(logging.makeLogRecord({"msg": "%s", "args": ("\n".join(self._lines),)}))
            self._lines, self._gathered = [], 0

    def close(self) -> None:
        self._flush()
        with contextlib.suppress(OSError):  # what could not be written is tried once more
            self._handler.close()
