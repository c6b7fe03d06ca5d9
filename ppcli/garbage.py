"""Python's collector of garbage, where it is in the way."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Collector:
    """Who wants no garbage to be collected at the moment; the switch is the process's. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._unwanted = 0
        self._enabled = False

    def pause(self) -> None:
        with self._lock:
            if not self._unwanted:
                self._enabled = gc.isenabled()
                gc.disable()
            self._unwanted += 1

    def go_on(self) -> None:
        with self._lock:
            self._unwanted -= 1
            if not self._unwanted and self._enabled:
                gc.enable()


_collector = _Collector()


@contextmanager
def without_gc() -> Iterator[None]:
    """Building 100,000 records makes the collector walk them again and again, and there is nothing to collect."""
    _collector.pause()
    try:
        yield
    finally:
        _collector.go_on()
