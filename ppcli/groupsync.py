"""One fsync for many writers: whoever comes while one runs joins the next."""

from __future__ import annotations

import threading
from collections.abc import Callable


class _Round:
    """One run of the sync, and those who wait for it."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False


class GroupSync:
    """Calls `sync` for its callers, one run at a time. A run serves everyone who came before it began: the first of
    them to wake leads it in its own thread, the others wait. A failure is final: it is raised to all of its round and
    to everyone after them, because after a failed fsync nobody knows what is on the disk."""

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._changed = threading.Condition()
        self._running = False
        self._next = _Round()
        self._broken: OSError | None = None

    @property
    def broken(self) -> bool:
        """Whether a run has failed."""
        return self._broken is not None

    def wait(self) -> None:
        """Return when everything written before the call is durable. Raises the OSError of the run that failed."""
        with self._changed:
            mine = self._next
            while self._running and not mine.done:
                self._changed.wait()
            if not mine.done and not self._broken:
                self._lead(mine)
            if self._broken:
                raise OSError(self._broken.errno, self._broken.strerror, self._broken.filename) from self._broken

    def _lead(self, mine: _Round) -> None:
        """Run the sync for `mine`. The lock is held at both ends and given back while it runs. Should anything but an
        OSError end it (a signal), the round stays undone and another of its callers leads it again."""
        self._running, self._next = True, _Round()
        self._changed.release()
        failure: OSError | None = None
        done = False
        try:
            self._sync()
            done = True
        except OSError as error:
            failure = error
        finally:
            self._changed.acquire()
            mine.done, self._running = done, False
            self._broken = self._broken or failure
            self._changed.notify_all()
