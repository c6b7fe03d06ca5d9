"""Sentences about events, not yet escaped."""

from __future__ import annotations

from ppcli.events import (
    FileFailed,
    HashingProgress,
    JobStarted,
    Receiving,
    ReservationPlanned,
    Result,
    Retrying,
    Stopping,
    UploadProgress,
)
from ppcli.retry import Step
from ppcli.units import format_duration, format_rate, format_size


def counted(count: int, noun: str) -> str:
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun[:-1]}ies" if noun.endswith("y") else f"{count} {noun}s"


def percent(done: int, total: int) -> int:
    """Whole percent, rounded down: 100 only when nothing is missing."""
    return min(done, total) * 100 // total if total else 100


def beginning(event: JobStarted) -> str:
    verb = "going on with" if event.resumed else "started"
    what = f"{counted(event.files, 'file')}, {format_size(event.bytes)} in {counted(event.chunks, 'chunk')}"
    return f"{verb} job {event.job}: {what}, to {event.target}"


def failure(event: FileFailed) -> str:
    return f"{event.name}: {event.message}"


def retry(event: Retrying) -> str:
    what = event.name if event.chunk is None else f"chunk {event.chunk} of {event.name}"
    doing = Step(event.step).doing
    failed = f"attempt {event.attempt} to {doing} {what} failed"
    return f"{failed}, the next is in {format_duration(event.delay)}: {event.cause}"


def stopping(event: Stopping) -> str:
    again = "Ctrl-C" if event.exit_code == 130 else "signal"
    return f"stopping: what is on its way gets up to {format_duration(event.grace)}; a second {again} ends it at once"


def remaining(missing: int, rate: float) -> float | None:
    """Seconds that so many bytes take at the present rate, or None where nobody can tell."""
    return missing / rate if missing > 0 and rate > 0 else None


def reservation(event: ReservationPlanned) -> str:
    """What will be reserved, what is used again, what is kept, and why it is more than the bytes take."""
    new = (
        f"up to {counted(event.pads_new, 'new pad')} ({format_size(event.bytes_new)})"
        if event.pads_new
        else "no new pads"
    )
    told = f"reserving {new} at {event.target}"
    if event.pads_reused:
        told += f", using {counted(event.pads_reused, 'free pad')} ({format_size(event.bytes_reused)}) again"
    if event.pads_kept:
        told += f", keeping {counted(event.pads_kept, 'unchanged pad')} ({format_size(event.bytes_kept)})"
    if event.pads_new or event.pads_reused:
        records = "the record" if event.pads_records == 1 else "records"
        told += f"; {event.pads_records} of these for {records} (name, size, which pads)"
    return told


def hashing(progress: HashingProgress) -> str:
    """How far the reading of sources is, before anything is sent."""
    done, total = progress.bytes_hashed, progress.bytes_total
    return f"{percent(done, total)}% hashed ({format_size(done)} of {format_size(total)}), nothing sent yet"


def standing(progress: UploadProgress) -> str:
    """How far a job is."""
    done, total = progress.bytes_confirmed, progress.bytes_total
    return f"{percent(done, total)}% confirmed ({format_size(done)} of {format_size(total)})"


def receiving(progress: Receiving) -> str:
    """How far a `get` is."""
    done, total = progress.bytes_done, progress.bytes_total
    if total is None:
        return f"{format_size(done)} received"
    return f"{percent(done, total)}% received ({format_size(done)} of {format_size(total)})"


def ending(result: Result, moved: str, retries: int) -> str:
    """How a run ended and what it did, the error apart; `moved` is what was done to the bytes."""
    state = result.state or ("done" if result.ok else "stopped")
    files = [
        f"{count} {word}"
        for count, word in (
            (result.files_completed - result.files_unchanged, "completed"),
            (result.files_unchanged, "unchanged"),
            (result.files_failed, "failed"),
        )
        if count
    ]
    parts = [f"{counted(result.files_total, 'file')} ({', '.join(files)})" if files else ""]
    if result.bytes_sent:
        rate = result.bytes_sent / max(result.elapsed, 0.001)
        parts.append(f"{format_size(result.bytes_sent)} {moved} at {format_rate(rate)}")
    if result.bytes_skipped:
        parts.append(f"{format_size(result.bytes_skipped)} were there already")
    if result.bytes_copied:
        parts.append(f"{format_size(result.bytes_copied)} copied on the target")
    if retries:
        parts.append(counted(retries, "retry"))
    told = ", ".join(part for part in parts if part)
    return f"{state} after {format_duration(result.elapsed)}{f': {told}' if told else ''}"
