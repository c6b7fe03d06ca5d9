"""What listeners are told about steps that have just become durable. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ppcli import steps
from ppcli.events import ChunkConfirmed, Event, FileCompleted, FileFailed, ReservationProgress, WarningRaised
from ppcli.manifest import FileEntry, Manifest
from ppcli.model import ChunkState, weakest
from ppcli.steps import Step


def events(plan: Manifest, batch: Sequence[Step]) -> Iterator[Event]:
    """The events for a batch that was folded into `plan`. Counts of confirmed chunks rise one by one up to now."""
    totals = plan.totals
    kinds = Counter(map(type, batch))
    confirmed = totals.chunks[ChunkState.CONFIRMED] - kinds[steps.Confirmed]
    if steps.Opened in kinds or steps.Reserved in kinds or steps.Confirmed in kinds:
        yield ReservationProgress(plan.job, totals.reserved, totals.chunks_total)
    for step in batch:
        match step:
            case steps.Confirmed():
                confirmed += 1
                name = plan.files[step.file].name
                yield ChunkConfirmed(plan.job, name, step.chunk, confirmed, totals.chunks_total, step.evidence)
            case steps.Completed():
                yield file_completed(plan.job, plan.files[step.file], step.sent)
            case steps.Failed():
                yield file_failed(plan.job, plan.files[step.file], step.failure)
            case steps.Reset() if step.chunks:
                said = f"{plan.files[step.file].name}: {len(step.chunks)} chunk(s) start again: {step.reason}."
                yield WarningRaised(plan.job, "chunks_reset", said)
            case _:
                pass


def file_completed(job: str | None, file: FileEntry, sent: int) -> FileCompleted:
    assert file.location is not None and file.action is not None
    return FileCompleted(
        job=job,
        name=file.name,
        source=file.path,
        size=file.size,
        location=file.location,
        digest=file.digest,
        action=file.action,
        bytes_sent=sent,
        evidence=weakest(
            {chunk.evidence for chunk in file.chunks} if len(file.chunks) > 1 else (file.chunks[0].evidence,)
        ),
    )


def file_failed(job: str | None, file: FileEntry, failure: steps.Failure) -> FileFailed:
    return FileFailed(
        job=job,
        name=file.name,
        source=file.path,
        size=file.size if file.fingerprint else None,
        kind=failure.kind,
        reason=failure.reason,
        message=failure.message,
    )
