"""The numbers behind the bars of one job. Pure; `bars` draws them."""

from __future__ import annotations

from dataclasses import dataclass

from ppcli.cli import sentences
from ppcli.events import HashingProgress, JobStarted, Receiving, ReservationProgress, UploadProgress
from ppcli.model import JobState
from ppcli.units import format_duration, format_rate, format_size


@dataclass(frozen=True, slots=True)
class Row:
    """One bar. It is full only when `done` is `total`; without a total only when the job is completed. Where nobody
    knows the total it is None."""

    label: str
    done: int
    total: int | None
    amount: str
    note: str

    @property
    def percent(self) -> str:
        return "" if self.total is None else f"{sentences.percent(self.done, self.total)}%"


class Hashing:
    """How far the reading of sources is, before there is a job. It is never left on the screen."""

    completed = finished = False

    def __init__(self, event: HashingProgress, now: float) -> None:
        self.started_at = now
        self.moving = False
        self.event = event
        self._now = now

    def measure(self, event: HashingProgress, now: float) -> None:
        self.event, self._now = event, now

    def rows(self) -> tuple[Row, ...]:
        done, total = self.event.bytes_hashed, self.event.bytes_total
        rate = done / max(self._now - self.started_at, 0.001) if self._now > self.started_at else 0.0
        amount = f"{format_size(done)}/{format_size(total)}"
        return (Row("Hashed", done, total or 1, amount, format_rate(rate) if rate else ""),)


class Download:
    """How much of what a `get` fetches is here."""

    moving = True

    def __init__(self, event: Receiving, now: float) -> None:
        self.started_at = now
        self.event = event
        self._ended: str | None = None
        self.completed = False

    def finish(self, state: JobState | None, _now: float) -> None:
        """As `Gauge.finish`."""
        self._ended = state or "stopped"
        self.completed = state is JobState.COMPLETED

    @property
    def finished(self) -> bool:
        return self._ended is not None

    def rows(self) -> tuple[Row, ...]:
        done, total, rate = self.event.bytes_done, self.event.bytes_total, self.event.bytes_per_second
        if self.completed:
            total = done
        amount = format_size(done) if total is None else f"{format_size(done)}/{format_size(total)}"
        left = None if total is None else sentences.remaining(total - done, rate)
        note = self._ended or (
            format_rate(rate) if left is None else f"{format_rate(rate)}, {format_duration(left)} left"
        )
        return (Row("Received", done, total, amount, note),)


class Gauge:
    """Reserved, Sent and Confirmed of one job. Confirmed never runs ahead of Sent."""

    def __init__(self, started: JobStarted, now: float) -> None:
        self.started_at = now
        self.moving = False
        self._state: JobState | None = None
        self._ended: str | None = None
        self._elapsed = 0.0
        self._reserved = ReservationProgress(started.job, reserved=0, total=started.chunks)
        self._upload = UploadProgress(started.job, 0, 0, bytes_total=started.bytes, bytes_per_second=0.0)
        self._before = 0  # bytes that were there when this run began; it may be negative after a reset
        self._resent = False
        self._stopping = False

    def reserve(self, event: ReservationProgress) -> None:
        self._reserved = event

    def upload(self, event: UploadProgress) -> None:
        if not self.moving:
            self._before = max(0, event.bytes_confirmed - event.bytes_sent)
        elif event.bytes_confirmed < self._upload.bytes_confirmed:  # the target forgot a session
            self._before = event.bytes_confirmed - event.bytes_sent
        self.moving = True
        self._upload = event

    def resend(self) -> None:
        """From now on some bytes are counted twice, so that their sum no longer proves that all were sent."""
        self._resent = True

    def stop(self) -> None:
        """From now on nobody can tell how much is left: what is on its way ends, or is cut off."""
        self._stopping = True

    def finish(self, state: JobState | None, now: float) -> None:
        """Freeze. The state is None where the run broke off without one."""
        self._state = state
        self._ended = state or "stopped"
        self._elapsed = now - self.started_at

    @property
    def completed(self) -> bool:
        return self._state is JobState.COMPLETED

    @property
    def finished(self) -> bool:
        return self._ended is not None

    def rows(self) -> tuple[Row, Row, Row]:
        total = self._upload.bytes_total
        chunks = f"{self._all(self._reserved.reserved, self._reserved.total)}/{self._reserved.total} chunks"
        return (
            self._row("Reserved", self._reserved.reserved, self._reserved.total, chunks, ""),
            self._row("Sent", self._sent(), total, self._amount(self._sent()), self._pace()),
            self._row(
                "Confirmed",
                self._upload.bytes_confirmed,
                total,
                self._amount(self._upload.bytes_confirmed),
                self._end(),
            ),
        )

    def _row(self, label: str, done: int, total: int, amount: str, note: str) -> Row:
        """Without a total (empty files) a bar is empty until the job is completed."""
        return Row(label, self._all(done, total) if total else int(self.completed), total or 1, amount, note)

    def _all(self, done: int, total: int) -> int:
        return total if self.completed else min(done, total)

    def _amount(self, done: int) -> str:
        total = self._upload.bytes_total
        return f"{format_size(self._all(done, total))}/{format_size(total)}"

    def _sent(self) -> int:
        event = self._upload
        sent = min(self._before + event.bytes_sent, event.bytes_total - 1 if self._resent else event.bytes_total)
        return max(sent, event.bytes_confirmed)

    def _pace(self) -> str:
        """The rate now; the average of the run once it is over."""
        if self.finished:
            return format_rate(self._upload.bytes_sent / max(self._elapsed, 0.001)) if self._upload.bytes_sent else ""
        return format_rate(self._upload.bytes_per_second)

    def _end(self) -> str:
        """When it will end, or how it ended."""
        if self._ended is not None:
            return self._ended
        if self._stopping:
            return "stopping"
        left = sentences.remaining(
            self._upload.bytes_total - self._upload.bytes_confirmed, self._upload.bytes_per_second
        )
        return "" if left is None else f"{format_duration(left)} left"
