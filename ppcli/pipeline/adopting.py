"""Chunks that need not be sent: found in the session that somebody began, or unchanged in the version that is there.
Runs on reserve workers."""

from __future__ import annotations

from collections.abc import Sequence

from ppcli import steps
from ppcli.model import Evidence, Part, Receipt, Slot
from ppcli.pipeline.context import Context
from ppcli.pipeline.work import FileRun
from ppcli.retry import Step


def adopt(context: Context, run: FileRun, parts: Sequence[Part]) -> Sequence[Part]:
    """Keep what the target has of `parts` already, durably; gives those that are to be sent."""
    there = _replaced(run)
    if not there and not run.offers:
        return parts
    rest, copied, kept = [], [], 0
    for part in parts:
        receipt = _adopted(context, run, part, run.offers.get(part.index))
        found = receipt is not None
        if receipt is None and part.index < len(there):
            receipt = _adopted(context, run, part, there[part.index])
        if receipt is None:
            rest.append(part)
            continue
        run.receipts[part.index] = receipt
        evidence = receipt.evidence or Evidence.ETAG
        step = steps.Confirmed(run.index, part.index, receipt.slot, receipt.checksum, receipt.etag, evidence)
        context.recorder.post(step)
        if found:
            kept += 1
            run.resumed = True
            context.skip(run, part.size)
        else:
            context.meter.copied(part.size)
            copied.append(part.size)
    if copied:
        context.recorder.post(steps.Copied(run.index, sum(copied)))
    if copied or kept:
        context.recorder.flush()
    context.feed.adopted(run, len(copied), kept)
    return rest


def _replaced(run: FileRun) -> Sequence[Slot]:
    """The slots of the version that is there, where its chunks are cut as ours are."""
    base = run.base
    if not run.limits.adopts or base is None or base.chunk_size != run.plan.chunk_size:
        return ()
    return base.slots


def _adopted(context: Context, run: FileRun, part: Part, slot: Slot | None) -> Receipt | None:
    if slot is None:
        return None
    known = Part(part.index, part.offset, part.size, run.source.checksum(part, context.reading))
    body = run.source.body(known, on_bytes=context.reading)
    return context.retrier.call(
        Step.ADOPT, run.plan.name, part.index, lambda: context.target.adopt(run.session, run.plan, known, slot, body)
    )
