"""The wall clock, and whether somebody has set it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_NOTICED = 5.0
"""Seconds by which the wall clock must run away from the steady one; less is drift."""


class Clock:
    """Calls `jumped` with the seconds by which the wall clock was set, or the machine slept, since the last look:
    whoever was given an hour has to have an hour, and not more."""

    def __init__(self, jumped: Callable[[float], None]) -> None:
        self._jumped = jumped
        self._guard = threading.Lock()
        self._ahead = time.time() - time.monotonic()

    def now(self) -> float:
        """UTC seconds. Returns when `jumped` has; should that fail, the next look calls it again."""
        if abs(time.time() - time.monotonic() - self._ahead) < _NOTICED:
            return time.time()
        with self._guard:
            ahead = time.time() - time.monotonic()
            if abs(ahead - self._ahead) >= _NOTICED:
                self._jumped(ahead - self._ahead)
                self._ahead = ahead
        return time.time()
