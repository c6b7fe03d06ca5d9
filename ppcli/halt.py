"""How a run is told to stop. Set by whoever fails first or by a signal; read by every worker."""

from __future__ import annotations

import threading

from ppcli.errors import PpcliError


class Stopped(Exception):
    """The run is stopping: leave the call, nothing is decided about it."""


class Halt:
    """The first halting failure of a run. `requested`: begin nothing new; `abandoned`: leave calls in flight too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requested = threading.Event()
        self._signalled: PpcliError | None = None
        self.error: PpcliError | None = None
        self._abandoned = threading.Event()

    @property
    def requested(self) -> bool:
        return self._requested.is_set()

    def request(self, error: PpcliError) -> None:
        """Stop because of `error`; only the first one counts."""
        with self._lock:
            if self.error is None:
                self.error = error
        self._requested.set()

    def signal(self, error: PpcliError) -> None:
        """Request a stop from a signal handler, which must take no lock: the main thread's next `wait` sees it."""
        self._signalled = error

    def abandon(self) -> None:
        """Calls in flight end at their next piece of data."""
        self._abandoned.set()

    def check(self, delay: float = 0.0) -> None:
        """Raise `Stopped` when calls in flight are to be left, at the latest after `delay` seconds."""
        if self._abandoned.wait(delay) if delay > 0 else self._abandoned.is_set():
            raise Stopped

    def sleep(self, seconds: float) -> None:
        """Wait; raises `Stopped` as soon as a stop is requested."""
        if self._requested.wait(seconds):
            raise Stopped

    def wait(self, seconds: float) -> bool:
        """Wait for a stop; True when it is requested."""
        stop = self._requested.wait(seconds)
        if self._signalled is not None and not stop:
            self.request(self._signalled)
            return True
        return stop
