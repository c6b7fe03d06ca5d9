"""How far a `get` is: counted by whoever reads, told several times a second, also while nothing comes."""

from __future__ import annotations

import threading
from types import TracebackType

from ppcli.events import Listener, Receiving
from ppcli.pipeline import Meter

_EVERY = 0.2


class Reception:
    """Tells listeners while it is open, from a thread of its own, unless it is `silent` or nothing is expected yet.
    What is over before the first time is not worth telling. Any thread counts."""

    def __init__(self, listener: Listener) -> None:
        self.silent = False
        self._listener = listener
        self._meter = Meter()
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        self._there = self._total = 0
        self._total_known = False
        self._told = False
        self._over = threading.Event()

    def __enter__(self) -> Reception:
        threading.Thread(target=self._run, name="reception", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nobody waits for the thread: it may hang at a terminal that is stopped."""
        self._over.set()
        if self._told:
            self._tell()

    def expect(self, size: int) -> None:
        """An object of so many bytes is among those to come."""
        with self._lock:
            self._total += size

    def expect_no_more(self) -> None:
        self._total_known = True

    def there(self, size: int) -> None:
        """So many bytes of what is expected were here before."""
        with self._lock:
            self._there += size

    def add(self, size: int) -> None:
        self._meter.sent(size)

    def _run(self) -> None:
        while not self._over.wait(_EVERY):
            if self._total and not self.silent:
                self._tell()
            self._listener.tick()

    def _tell(self) -> None:
        self._told = True
        with self._telling:  # so that what is told last is the newest
            with self._lock:
                total, done = self._total, self._there + self._meter.bytes_sent
            told = Receiving(None, done, max(total, done) if self._total_known else None, self._meter.rate())
            self._listener.hear(told)
