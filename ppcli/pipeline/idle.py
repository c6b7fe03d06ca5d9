"""Workers of one stage that have nothing to do."""

from __future__ import annotations

import threading


class Idle:
    """They are woken one at a time, and whoever finds more work than its own wakes the next. So tiny pieces of work
    are done by the few that are awake, while calls that take long bring all workers out. The lock is held by callers of
    every method."""

    def __init__(self, lock: threading.Lock) -> None:
        self._condition = threading.Condition(lock)
        self._waiting = 0
        self._coming = False

    def wait(self) -> None:
        """Gives the lock back until this worker is woken."""
        self._waiting += 1
        self._condition.wait()
        self._waiting -= 1
        self._coming = False

    def wake(self) -> None:
        """Wake one, unless one is on its way already."""
        if self._waiting and not self._coming:
            self._coming = True
            self._condition.notify()

    def wake_all(self) -> None:
        self._condition.notify_all()
