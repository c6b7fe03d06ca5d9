"""Looking at many files before a job is made of them: one after the other, or side by side where the target is across
a network or wants digests first."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from typing import TypeAlias

from ppcli.app.planning import Examiner, Unchanged
from ppcli.app.workplace import Workplace
from ppcli.collect import Found
from ppcli.events import HashingProgress
from ppcli.halt import Stopped
from ppcli.manifest import FileEntry

Seen: TypeAlias = Unchanged | FileEntry

_TICK = 0.2
_ASK_AT_ONCE = 8


class Examination:
    """Examines files side by side. The caller's thread tells listeners how far the reading is; the workers never do."""

    def __init__(self, place: Workplace, examiner: Examiner) -> None:
        self._place = place
        self._examiner = examiner
        self._lock = threading.Lock()
        self._hashed = self._told = 0
        self._leave = threading.Event()

    def run(self, files: Sequence[tuple[Found, Path]]) -> Iterator[tuple[Found, Seen]]:
        """What was seen of each file, in order. Raises what halts a job; what was not yet seen then stays unseen."""
        total = sum(self._examiner.unknown(path) for found, path in files if found.error is None)
        workers = min(len(files), _ASK_AT_ONCE if total == 0 else max(2, os.cpu_count() or 1))
        pool = ThreadPoolExecutor(max(1, workers), "examine")
        try:
            looking = [(found, pool.submit(self._examiner.examine, found, path, self._read)) for found, path in files]
            for found, future in looking:
                yield found, self._wait(future, total)
        finally:
            self._leave.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, count: int) -> None:
        with self._lock:
            self._hashed += count
        if self._leave.is_set():
            raise Stopped

    def _wait(self, future: Future[Seen], total: int) -> Seen:
        while True:
            try:
                seen = future.result(timeout=_TICK)
            except NotYet:
                self._tell(total)
                self._place.listener.tick()
                continue
            if self._hashed == total:
                self._tell(total)
            return seen

    def _tell(self, total: int) -> None:
        if self._hashed > self._told:
            self._told = self._hashed
            self._place.listener.hear(HashingProgress(None, self._hashed, max(total, self._hashed)))
