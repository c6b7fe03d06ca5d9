"""Workers of one stage that have nothing to do."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Idle:
    """They are woken one at a time, and a worker that takes work wakes the next where there is more. So tiny pieces of
    work are done by the few that are awake, while calls that take long bring all workers out. The lock is held by the
    callers of every method."""

    def __init__(self, lock: threading.Lock, wanted: Callable[[], bool]) -> None:
        """`wanted`: is there work for one of them?"""
        self._condition = threading.Condition(lock)
        self._wanted = wanted
        self._waiting = 0
        self._coming = False

    def wait(self) -> None:
        """Gives the lock back until this worker is woken."""
        self._waiting += 1
        self._condition.wait()
        self._waiting -= 1
        self._coming = False

    def wake(self) -> None:
        """Wake one where there is work, unless one is on its way already."""
        if self._waiting and not self._coming and self._wanted():
            self._coming = True
            self._condition.notify()

    def wake_all(self) -> None:
        """For the end of the run."""
        self._condition.notify_all()
