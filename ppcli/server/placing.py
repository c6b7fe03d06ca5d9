"""Content that is getting its name, and content that is being removed: never both at once for one digest."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Placing:
    """Thread-safe. Any number of threads may place content at once, also the same."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._placed: Counter[str] = Counter()

    @contextmanager
    def adding(self, sha256: str) -> Iterator[None]:
        """From before the file gets its name until the database knows why it is there."""
        with self._guard:
            self._placed[sha256] += 1
        try:
            yield
        finally:
            with self._guard:
                self._placed[sha256] -= 1
                if not self._placed[sha256]:
                    del self._placed[sha256]

    @contextmanager
    def removing(self, sha256: str) -> Iterator[bool]:
        """False: somebody places it just now, so it stays. Nothing is placed meanwhile."""
        with self._guard:
            yield sha256 not in self._placed
