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
        self.error: PpcliError | None = None
        self.abandoned = False

    @property
    def requested(self) -> bool:
        return self._requested.is_set()

    def request(self, error: PpcliError) -> None:
        """Stop because of `error`; only the first one counts."""
        with self._lock:
            if self.error is None:
                self.error = error
        self._requested.set()

    def abandon(self) -> None:
        """Calls in flight end at their next piece of data."""
        self.abandoned = True

    def check(self) -> None:
        """Raise `Stopped` when calls in flight are to be left."""
        if self.abandoned:
            raise Stopped

    def sleep(self, seconds: float) -> None:
        """Wait; raises `Stopped` as soon as a stop is requested."""
        if self._requested.wait(seconds):
            raise Stopped

    def wait(self, seconds: float) -> bool:
        """Wait for a stop; True when it is requested."""
        return self._requested.wait(seconds)
