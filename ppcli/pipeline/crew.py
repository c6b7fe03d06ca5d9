"""The workers of a run, and how many of them are worth having awake."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable

_SMALL = 0.0002
"""Seconds of processor time that a piece of work takes at most to be called small."""
_SMALL_TOGETHER = 0.0005
"""The same for pieces that are done several at a time: they are a few KiB each, so most of it is Python's own."""
_WAITS = 0.75
"""How often a thread may wait for what it takes at a time, where that is said not to wait. A call that crosses a
network or reaches a disk waits at least once."""
_BUSY = 0.75
"""The share of one processor that is used, from which on waiting is no loss."""
_MEASURE = 0.02
_PATIENCE = 64
_AT_FIRST = 0.01
_WEIGHT = 1 / 16
_HURRY_AFTER = 0.002


class Crew:
    """Workers rest until they are called, one at a time, and one that takes work calls the next where there is more. So
    calls that take long bring all workers out.

    Where pieces of work are small and wait for nothing, one worker does them all: Python runs one thread at a time, and
    handing over from one to the next costs more than such a piece. So meanwhile whoever comes back and finds another
    one awake rests. Clocks alone do not tell whether pieces wait, since the processors may be others'; the counts of
    the system do, once one worker is alone. The lock is held by the callers of every method."""

    def __init__(self, lock: threading.Lock, wanted: Callable[[], bool], hurry: Callable[[], None]) -> None:
        """`wanted`: is there work for another one? `hurry` has what was done so far recorded: it is called before a
        worker rests, and now and then where several work."""
        self._condition = threading.Condition(lock)
        self._wanted = wanted
        self._hurry = hurry
        self._awake = 0
        self._resting = 0
        self._called = False
        self._average = _AT_FIRST
        self._alone = False
        self._again_in, self._patience = 0, 1
        self._back_at = self._hurried = self._measured_at = time.monotonic()
        self._usage = resource.getrusage(resource.RUSAGE_SELF)
        self._returns = self._measured = self._watched = 0
        self._pieces = self._pieces_measured = self._joint = 0

    def batch(self, most: int) -> int:
        """How many pieces of work to do one after the other: `most` where one worker does them all, else the fewer the
        longer they take."""
        return self._some(most, _SMALL)

    def together(self, most: int) -> int:
        """As `batch`, for pieces that are done several at a time."""
        return self._some(most, _SMALL_TOGETHER)

    def _some(self, most: int, small: float) -> int:
        return most if self._alone else max(1, int(most / 2 * small / self._average))

    def join(self) -> None:
        """A new worker is there."""
        self._awake += 1

    def back(self, pieces: int = 1) -> None:
        """A worker comes back for more, after so many pieces of work; it rests here while it is not worth having."""
        now = time.monotonic()
        self._average += ((now - self._back_at) / pieces - self._average) * _WEIGHT
        self._back_at = now
        self._returns += 1
        self._pieces += pieces
        self._joint += pieces if pieces > 1 else 0
        if now - self._measured_at > _MEASURE:
            self._measure(now)
        if self._alone:
            if self._awake > 1:
                self.rest()
        elif now - self._hurried > _HURRY_AFTER:
            self._hurried = now
            self._hurry()

    def rest(self) -> None:
        """Gives the lock back until this worker is called."""
        self._hurry()
        self._awake -= 1
        self._resting += 1
        self._condition.wait()
        self._resting -= 1
        self._awake += 1
        self._called = False

    def call(self) -> None:
        """Call one out where that is worth it and there is work, unless one is on its way already."""
        if self._resting and not self._called and not (self._alone and self._awake) and self._wanted():
            self._called = True
            self._condition.notify()

    def call_all(self) -> None:
        """For the end of the run."""
        self._condition.notify_all()

    def watch(self) -> None:
        """Nobody came back since the last time, and there is work: what is being done takes long."""
        if self._returns == self._watched and self._wanted():
            if self._alone:  # whoever is awake is held up by one piece, and those that could go on were sent to rest
                self._put_off()
            self._average = _AT_FIRST
            self.call()
        self._watched = self._returns

    def _measure(self, now: float) -> None:
        """Does one worker do best? Where it was tried and is wrong, it is tried again after a while, and then a longer
        one."""
        usage, before = resource.getrusage(resource.RUSAGE_SELF), self._usage
        returns, pieces = self._returns - self._measured, self._pieces - self._pieces_measured
        busy = usage.ru_utime + usage.ru_stime - before.ru_utime - before.ru_stime
        occupied = busy > _BUSY * (now - self._measured_at)
        self._measured_at, self._usage = now, usage
        self._measured, self._pieces_measured = self._returns, self._pieces
        small = busy < (_SMALL_TOGETHER if self._joint > pieces / 2 else _SMALL) * pieces
        self._joint = 0
        if not self._alone:
            self._again_in -= 1
            self._alone = small and self._again_in <= 0
        elif small and (occupied or usage.ru_nvcsw - before.ru_nvcsw < _WAITS * returns):
            self._again_in = self._patience = max(1, self._patience // 2)
        else:
            self._put_off()

    def _put_off(self) -> None:
        self._alone = False
        self._again_in = self._patience = min(_PATIENCE, self._patience * 4)
