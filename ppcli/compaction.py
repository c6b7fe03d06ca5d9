"""Fewer journal lines for what becomes durable together: a job may have many small files. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ppcli.steps import (
    Completed,
    Completing,
    Confirmed,
    ConfirmedCompleted,
    ConfirmedCompleting,
    JobChanged,
    Opening,
    Step,
    Uploaded,
)


def compact(batch: Sequence[Step]) -> Sequence[Step]:
    """Steps that are folded to the same state as those of the batch: a chunk that is confirmed was uploaded, and one
    step does for two that follow each other in a file. What one file says stays in its order; what other files say may
    come between."""
    kept: list[Step | None] = []
    uploaded: dict[tuple[int, int], int] = {}
    last: dict[int, int] = {}
    for step in batch:
        if isinstance(step, JobChanged | Opening):
            for file in step.files if isinstance(step, Opening) else ():
                last.pop(file, None)
            kept.append(step)
            continue
        if type(step) is Uploaded:
            uploaded[step.file, step.chunk] = len(kept)
        elif type(step) is Confirmed:
            if (said := uploaded.pop((step.file, step.chunk), None)) is not None:
                kept[said] = None
        elif type(step) is Completing or type(step) is Completed:
            before = last.get(step.file)
            if before is not None and (joined := _joined(kept[before], step)) is not None:
                kept[before] = joined
                continue
        last[step.file] = len(kept)
        kept.append(step)
    return [step for step in kept if step is not None]


def _joined(first: Step | None, then: Step) -> Step | None:
    """One step for both."""
    if type(first) is Confirmed and type(then) is Completing:
        return ConfirmedCompleting(
            first.file, first.chunk, first.slot, first.xxh3, first.etag, first.evidence, then.digest
        )
    if type(first) is ConfirmedCompleting and type(then) is Completed:
        return ConfirmedCompleted(
            first.file,
            first.chunk,
            first.slot,
            first.xxh3,
            first.etag,
            first.evidence,
            then.location,
            then.digest,
            then.action,
        )
    return None
