"""The threads of a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Threads:
    """They are daemons: one that hangs in a call must not keep the process. One thread starts them and waits."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name=work.__name__.strip("_"), daemon=True)
        self._threads.append(thread)
        thread.start()

    def left(self, deadline: float = 0.0) -> bool:
        """Whether all have left, now or by then (of the monotonic clock)."""
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)
