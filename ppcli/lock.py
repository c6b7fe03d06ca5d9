"""One holder at a time, across processes: flock on a file. What is written inside is information for people only."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from ppcli import disk, records
from ppcli.errors import Busy, local_io

# A probe (`holder`) takes the lock for an instant; whoever wants it asks again within this time before giving up.
_PROBE_GRACE = 0.1
_POLL = 0.02


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock. `pid` is 0 where the file does not say."""

    pid: int
    host: str
    started: float

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else "another process"


class Lock:
    """An exclusive flock. The file is never unlinked here: a waiter might hold its inode."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def acquire(self, what: str, wait: float = 0.0) -> None:
        """Take the lock within `wait` seconds; `what` names the guarded thing in the `Busy` error."""
        deadline = time.monotonic() + max(wait, _PROBE_GRACE)
        with local_io(f"open {self.path}"):
            fd = disk.open_private(self.path, os.O_RDWR)
        try:
            while not _try_lock(fd, fcntl.LOCK_EX):
                if time.monotonic() >= deadline:
                    raise Busy(
                        f"{what} is in use by {_read(fd)}.",
                        hint="Wait for it to finish, or use --wait-lock SECONDS with put.",
                        reason="locked",
                    )
                time.sleep(_POLL)
            with local_io(f"write {self.path}"):
                me = Holder(os.getpid(), socket.gethostname(), time.time())
                os.ftruncate(fd, 0)
                os.pwrite(fd, json.dumps(asdict(me)).encode(), 0)
        except BaseException:  # also a signal: nothing may stay held or half made
            os.close(fd)
            raise
        self._fd = fd

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @property
    def held(self) -> bool:
        return self._fd is not None

    def __enter__(self) -> Lock:
        if self._fd is None:
            self.acquire(str(self.path))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def holder(path: Path) -> Holder | None:
    """Who holds the lock at `path` right now, or None. Never blocks and changes nothing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if _try_lock(fd, fcntl.LOCK_SH) else _read(fd)
    finally:
        os.close(fd)


def _try_lock(fd: int, mode: int) -> bool:
    try:
        fcntl.flock(fd, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(fd: int) -> Holder:
    try:
        told = records.loads(os.pread(fd, 4096, 0))
        return Holder(int(told["pid"]), str(told["host"]), float(told["started"]))
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return Holder(0, "", 0.0)
