"""Counts what a run sends, paces it, and says how many workers are worth having."""

from __future__ import annotations

import threading
import time
from collections import deque

from ppcli.target import PIECE

_WINDOW = 5.0


class Meter:
    """What went out in this run. Any thread adds, any thread reads. `since` is when the first byte went, in seconds
    since the epoch."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._history: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self.since: float | None = None
        self.bytes_sent = 0
        self.bytes_skipped = 0
        self.bytes_copied = 0
        self.chunks_sent = 0
        self.chunks_skipped = 0

    def sent(self, count: int) -> None:
        """`count` source bytes went out, resends included."""
        with self._lock:
            self.since = self.since or time.time()
            self.bytes_sent += count

    def chunk_sent(self) -> None:
        with self._lock:
            self.chunks_sent += 1

    def skipped(self, chunks: int, size: int) -> None:
        """These were proved by an earlier run, or there already."""
        with self._lock:
            self.chunks_skipped += chunks
            self.bytes_skipped += size

    def copied(self, size: int) -> None:
        """An unchanged chunk was kept or copied on the target's side."""
        with self._lock:
            self.bytes_copied += size

    def rate(self) -> float:
        """Bytes per second over the last seconds. One thread calls this, now and then."""
        now, sent = time.monotonic(), self.bytes_sent
        self._history.append((now, sent))
        while len(self._history) > 2 and now - self._history[0][0] > _WINDOW:
            self._history.popleft()
        since, before = self._history[0]
        return (sent - before) / (now - since) if now > since else 0.0


class Pace:
    """`--limit-rate`: one budget of bytes per second for all workers of a run. `piece` is how many bytes a worker sends
    before it asks for more time, `workers` how many are worth having at that rate."""

    def __init__(self, rate: int | None, workers: int) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = time.monotonic()
        self.piece = PIECE if rate is None else min(PIECE, max(1, rate // 8))
        self.workers = workers if rate is None else min(workers, max(1, rate // PIECE))

    def delay(self, count: int) -> float:
        """Seconds to wait after `count` bytes have gone out."""
        if self._rate is None:
            return 0.0
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + count / self._rate
            return self._free_at - now


class Ramp:
    """How many workers to run: few at first, more while more of them send more. Workers that move `BUSY` bytes a second
    each wait for nothing but processors, which more of them would only share. Pure; the caller brings the clock."""

    SOON = 0.1
    INTERVAL = 0.5
    GAIN = 1.05
    PATIENCE = 10
    BUSY = 1 << 27

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self.workers = min(2, ceiling)
        self._best = 0.0
        self._at: float | None = None
        self._work = 0
        self._idle = 0

    def update(self, now: float, work: int) -> int:
        """`work` is a count that grows with what was done; gives the number of workers from now on. After PATIENCE
        intervals in which there was no reason for more it tries a few more, since the network may have changed. As long
        as nothing was done, the intervals are short."""
        if self._at is None:
            self._at, self._work = now, work
        elif now - self._at >= (self.INTERVAL if self._work else self.SOON):
            first, rate = not self._work, (work - self._work) / (now - self._at)
            self._at, self._work = now, work
            worth = rate > self._best * self.GAIN and rate < self.workers * self.BUSY
            self._idle = 0 if worth else self._idle + 1
            if self._idle in (0, self.PATIENCE):
                self.workers = min(self._ceiling, self.workers * 3 // 2 + 1)
                self._idle = 0
            # What was done in the first moment may be a single burst, which nothing after it would beat
            self._best = 0.0 if first else max(rate, self._best * 0.9 if self._idle else 0.0)
        return self.workers
