"""The plain listener, for pipes, CI logs and dumb terminals: a few lines, never silence for more than a minute."""

from __future__ import annotations

import time
from collections.abc import Callable

from ppcli.cli import sentences
from ppcli.cli.call import View
from ppcli.cli.narrator import Narrator
from ppcli.cli.results import result_lines
from ppcli.cli.streams import Stream
from ppcli.events import (
    ChunkConfirmed,
    Event,
    FileCompleted,
    HashingProgress,
    JobFinished,
    JobStarted,
    Receiving,
    ReservationProgress,
    UploadProgress,
)
from ppcli.units import format_duration, format_rate

FIRST_HEARTBEAT = 10.0
HEARTBEAT = 60.0
STALLED = 10.0
"""Seconds without a byte after which a heartbeat says so."""
FLUSH = 0.1
"""Seconds that a result may wait for others that go out with it."""


class Plain:
    """Results on stdout, everything else on stderr, line by line. `clock` gives seconds that never go back."""

    def __init__(
        self,
        view: View,
        *,
        out: Stream,
        err: Stream,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._view = view
        self._out = out
        self._err = err
        self._clock = clock
        self._narrator = Narrator(self._say, clock, view, quiet=quiet)
        self._uploads: dict[str | None, UploadProgress] = {}
        self._reservations: dict[str | None, ReservationProgress] = {}
        self._hashing: HashingProgress | None = None
        self._receiving: Receiving | None = None
        self._started = clock()
        self._moved = self._started
        self._due = self._started + FIRST_HEARTBEAT
        self._flushed = -FLUSH
        self._pending: list[str] = []

    def hear(self, event: Event) -> None:
        if isinstance(event, ChunkConfirmed):
            return  # `UploadProgress` says it as well
        self._pending += result_lines(event, self._view)
        if not isinstance(event, FileCompleted) or self._clock() - self._flushed >= FLUSH:
            self._flush()
        match event:
            case UploadProgress():
                self._progress(event)
            case HashingProgress():
                self._hashing = event if event.bytes_hashed < event.bytes_total else None
            case Receiving():
                if self._receiving is None or self._receiving.bytes_done != event.bytes_done:
                    self._moved = self._clock()
                self._receiving = event
            case JobStarted():
                self._hashing = None
            case ReservationProgress():
                self._reservations[event.job] = event
            case JobFinished():
                self._uploads.pop(event.job, None)
                self._reservations.pop(event.job, None)
        self._narrator.hear(event)

    def tick(self) -> None:
        now = self._clock()
        self._flush()
        if now >= self._due:
            self._due = now + HEARTBEAT
            self._narrator.note(self._heartbeat(now))

    def close(self) -> None:
        self._flush()

    def _say(self, line: str) -> None:
        """Both streams may be one file: what was said before comes before."""
        self._flush()
        self._err.line(line)

    def _flush(self) -> None:
        self._flushed = self._clock()
        if self._pending:
            lines, self._pending = self._pending, []
            self._out.line("\n".join(lines))

    def last_words(self) -> None:
        self._out.at_once("".join([f"{line}\n" for line in self._pending]))
        self._err.at_once(self._narrator.last_words())

    def _progress(self, event: UploadProgress) -> None:
        before = self._uploads.get(event.job)
        if before is None or (before.bytes_sent, before.bytes_confirmed) != (event.bytes_sent, event.bytes_confirmed):
            self._moved = self._clock()
        self._uploads[event.job] = event

    def _heartbeat(self, now: float) -> str:
        if self._hashing is not None:
            return f"{sentences.hashing(self._hashing)}, {format_duration(now - self._started)} so far"
        if (got := self._receiving) is not None:
            missing = (got.bytes_total or 0) - got.bytes_done
            return self._moving(sentences.receiving(got), missing, got.bytes_per_second, now)
        if not self._uploads:
            reserved = sum(event.reserved for event in self._reservations.values())
            what = f"{sentences.counted(reserved, 'chunk')} reserved, nothing sent yet" if reserved else "still working"
            return f"{what}, {format_duration(now - self._started)} so far"
        total = _sum(list(self._uploads.values()))
        missing = total.bytes_total - total.bytes_confirmed
        return self._moving(sentences.standing(total), missing, total.bytes_per_second, now)

    def _moving(self, standing: str, missing: int, rate: float, now: float) -> str:
        if now - self._moved >= STALLED:
            return f"{standing}, stalled: nothing has moved for {format_duration(now - self._moved)}"
        left = sentences.remaining(missing, rate)
        ahead = "" if left is None else f", about {format_duration(left)} left"
        return f"{standing} at {format_rate(rate)}{ahead}"


def _sum(events: list[UploadProgress]) -> UploadProgress:
    """All running jobs as one."""
    return UploadProgress(
        job=None,
        bytes_sent=sum(event.bytes_sent for event in events),
        bytes_confirmed=sum(event.bytes_confirmed for event in events),
        bytes_total=sum(event.bytes_total for event in events),
        bytes_per_second=sum(event.bytes_per_second for event in events),
    )
