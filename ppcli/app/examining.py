"""Looking at many files before a job is made of them: one after the other, or side by side where the target is across
a network or wants digests first."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from ppcli.app.planning import Examiner, Unchanged
from ppcli.app.workplace import Workplace
from ppcli.collect import Found
from ppcli.errors import PpcliError
from ppcli.events import HashingProgress
from ppcli.halt import Stopped
from ppcli.manifest import FileEntry

Seen: TypeAlias = Unchanged | FileEntry
Task: TypeAlias = tuple[int, Found, Path]

_TICK = 0.2
_AT_ONCE = 16
"""Files that are looked at side by side. Most of them wait for the network: `Workplace.hashing` bounds the others."""
_QUICK = 0.0001
"""Seconds a file from which on another worker is worth having: what needs no network is done by one."""
_SOON = 0.002
_SAMPLE = 8
_WINDOW = 256
"""Files that may be looked at before the first of them is done: what was seen of them is held."""


class Examination:
    """Examines files side by side. The caller's thread tells listeners how far the reading is; the workers never do.
    They are daemons: one that hangs in a call must not keep the process."""

    def __init__(self, place: Workplace, examiner: Examiner) -> None:
        self._place = place
        self._examiner = examiner
        self._lock = threading.Lock()
        self._hashed = self._told = self._total = 0
        self._ticked = time.monotonic()
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[int, Seen | Exception]] = queue.SimpleQueue()
        self._workers = self._most = 0
        self._received, self._sampled = 0, time.monotonic()

    def run(self, files: Sequence[tuple[Found, Path]]) -> Iterator[tuple[Found, Seen]]:
        """What was seen of each file, in order. Raises what halts a job, whichever file it was noticed at; what was not
        yet seen then stays unseen, and the place is stopped."""
        self._most = min(len(files), _AT_ONCE)
        try:
            self._total = self._unknown(files)
            self._examiner.foresee([found.name for found, _ in files])
            self._spawn()
            yield from self._in_order(files)
            self._tell()
        except BaseException as error:  # also a signal, or a caller who wants no more
            self._place.stop(error)
            raise
        finally:
            for _ in range(self._workers):
                self._tasks.put(None)

    def _spawn(self) -> None:
        if self._workers < self._most:
            self._workers += 1
            threading.Thread(target=self._work, name=f"examine-{self._workers}", daemon=True).start()

    def _unknown(self, files: Sequence[tuple[Found, Path]]) -> int:
        """How many bytes are to be read."""
        total = 0
        for found, path in files:
            if found.error is None:
                total += self._examiner.unknown(path)
            self._tick()
        return total

    def _in_order(self, files: Sequence[tuple[Found, Path]]) -> Iterator[tuple[Found, Seen]]:
        seen: dict[int, Seen] = {}
        asked = 0
        for position, (found, _) in enumerate(files):
            while asked < min(len(files), position + _WINDOW):
                self._tasks.put((asked, *files[asked]))
                asked += 1
            while position not in seen:
                self._receive(seen)
            self._tick()
            yield found, seen.pop(position)

    def _receive(self, seen: dict[int, Seen]) -> None:
        """Wait for the next result, but not for longer than a tick."""
        self._tick()
        try:
            position, result = self._results.get(timeout=_SOON if self._workers < self._most else _TICK)
        except queue.Empty:
            self._spawn()
            if self._place.halt.error is not None:
                raise self._place.halt.error from None
            return
        if isinstance(result, Exception):
            raise result
        seen[position] = result
        self._received += 1
        if self._received % _SAMPLE == 0:
            now, before = time.monotonic(), self._sampled
            self._sampled = now
            if now - before > _SAMPLE * _QUICK:
                self._spawn()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None and not self._place.halt.requested:
            position, found, path = task
            try:
                self._results.put((position, self._examiner.examine(found, path, self._read)))
            except Stopped:
                return
            except Exception as error:  # a worker must not die silently: the caller raises it
                if isinstance(error, PpcliError):
                    self._place.stop(error)  # the others need not wait until this one is heard of
                self._results.put((position, error))
                return

    def _read(self, count: int) -> None:
        with self._lock:
            self._hashed += count
        if self._place.halt.requested:
            raise Stopped

    def _tick(self) -> None:
        """By the clock, however many files are done in the meantime."""
        now = time.monotonic()
        if now - self._ticked >= _TICK:
            self._ticked = now
            self._tell()
            self._place.listener.tick()

    def _tell(self) -> None:
        if self._hashed > self._told:
            self._told = self._hashed
            self._place.listener.hear(HashingProgress(None, self._told, max(self._total, self._told)))
