"""Fewer journal lines for what becomes durable together: a job may have many small files. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from ppcli.steps import (
    Completed,
    Completing,
    Confirmed,
    ConfirmedCompleted,
    ConfirmedCompleting,
    JobChanged,
    Opened,
    OpenedReserved,
    Opening,
    Reserved,
    Step,
    Uploaded,
)

_Join: TypeAlias = Callable[[Any, Any], Step]


def compact(batch: Sequence[Step]) -> Sequence[Step]:
    """Steps that are folded to the same state as those of the batch. What one file says stays in its order; what other
    files say may come between."""
    return batch if len(batch) == 1 else _joined(_without_repeated(batch))


def _without_repeated(batch: Sequence[Step]) -> list[Step]:
    """Without the steps that a later one says again: a chunk that is confirmed was uploaded, a file that is open was
    being opened."""
    kept: list[Step] = []
    later: set[int | tuple[int, int]] = set()
    for step in reversed(batch):
        match step:
            case Confirmed():
                later.add((step.file, step.chunk))
            case Opened():
                later.add(step.file)
            case Uploaded() if (step.file, step.chunk) in later:
                continue
            case Opening() if step.file in later:
                continue
        kept.append(step)
    kept.reverse()
    return kept


def _joined(batch: Sequence[Step]) -> list[Step]:
    """With one step for two that follow each other in a file."""
    kept: list[Step] = []
    last: dict[int, int] = {}
    for step in batch:
        if isinstance(step, JobChanged):
            kept.append(step)
            continue
        before = last.get(step.file)
        join = _JOINS.get((type(kept[before]), type(step))) if before is not None else None
        if before is not None and join is not None:
            kept[before] = join(kept[before], step)
        else:
            last[step.file] = len(kept)
            kept.append(step)
    return kept


def _opened_reserved(first: Opened, then: Reserved) -> OpenedReserved:
    return OpenedReserved(first.file, first.session, then.chunks, then.slots)


def _confirmed_completing(first: Confirmed, then: Completing) -> ConfirmedCompleting:
    return ConfirmedCompleting(first.file, first.chunk, first.slot, first.xxh3, first.etag, first.evidence, then.digest)


def _confirmed_completed(first: ConfirmedCompleting, then: Completed) -> ConfirmedCompleted:
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


_JOINS: Mapping[tuple[type, type], _Join] = {
    (Opened, Reserved): _opened_reserved,
    (Confirmed, Completing): _confirmed_completing,
    (ConfirmedCompleting, Completed): _confirmed_completed,
}
