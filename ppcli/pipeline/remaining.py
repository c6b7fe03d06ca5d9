"""What is left to do of a file that was just opened."""

from __future__ import annotations

from ppcli import steps
from ppcli.model import Chunk, ChunkState, Part, Receipt, Survey
from ppcli.pipeline.context import Context
from ppcli.pipeline.work import FileRun, Unit
from ppcli.source import Digests


def remaining(
    context: Context, run: FileRun, survey: Survey | None, sums: Digests | None
) -> tuple[list[Part], list[Unit]]:
    """Chunks that want a slot, and chunks that have one; those that are there are counted and done. `survey` tells what
    the session holds, where it is an old one; `sums` are digests that are known from a reading before."""
    parts, units, gone, offers = [], [], [], {}
    for chunk in run.entry.chunks:
        held = survey.held.get(chunk.index) if survey else None
        missing = survey is not None and survey.authoritative and held is None
        receipt = held or receipt_of(chunk)
        if held is not None and held.slot != chunk.slot:
            offers[chunk.index] = held.slot
        if chunk.state is ChunkState.PLANNED or receipt is None or chunk.index in offers:
            parts.append(part_of(chunk, sums))
        elif chunk.state is ChunkState.RESERVED:
            proved = held if held and held.checksum and held.evidence else None  # its reply was lost
            units.append(Unit(run, part_of(chunk, sums), receipt.slot, proved))
        elif missing:
            gone.append(chunk.index)
            parts.append(part_of(chunk, sums))
        elif chunk.state is ChunkState.UPLOADED:
            units.append(Unit(run, part_of(chunk, sums), receipt.slot, receipt))
        else:
            run.receipts[chunk.index] = receipt_of(chunk)
            run.left -= 1
            if run.index not in context.reopened:  # else this run may have sent it
                run.resumed = True
                context.skip(run, chunk.size)
    run.offers = offers
    if gone:
        reason = "the target does not have them any more"
        context.recorder.record(steps.Reset(run.index, tuple(gone), reason))
    return _in_order(parts, units) if run.limits.sends == 1 else (parts, units)


def _in_order(parts: list[Part], units: list[Unit]) -> tuple[list[Part], list[Unit]]:
    """What is to be sent strictly in order of offset: chunks that have a slot do not overtake those without."""
    first = min((part.index for part in parts), default=None)
    waiting = [unit for unit in units if first is not None and unit.receipt is None and unit.part.index > first]
    parts = sorted([*parts, *(unit.part for unit in waiting)], key=lambda part: part.index)
    return parts, [unit for unit in units if unit not in waiting]


def part_of(chunk: Chunk, sums: Digests | None = None) -> Part:
    if sums is None or sums.sha256 is None:
        return Part(chunk.index, chunk.offset, chunk.size, chunk.xxh3 if chunk.state is ChunkState.RESERVED else None)
    return Part(chunk.index, chunk.offset, chunk.size, sums.chunks[chunk.index], sums.sha256[chunk.index])


def receipt_of(chunk: Chunk) -> Receipt | None:
    """What the manifest knows of a chunk on the target; an empty checksum means: only reserved."""
    if chunk.slot is None:
        return None
    return Receipt(chunk.index, chunk.size, chunk.slot, chunk.xxh3 or "", chunk.etag, chunk.evidence)
