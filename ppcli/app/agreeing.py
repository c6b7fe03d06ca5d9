"""Where reserving costs: say what a `put` will take, and have the user agree before anything is changed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ppcli.app.planning import Unchanged
from ppcli.app.workplace import Workplace
from ppcli.errors import PpcliError, SourceError, Usage
from ppcli.events import HashingProgress, ReservationPlanned
from ppcli.manifest import FileEntry
from ppcli.model import Cost, FilePlan, Part
from ppcli.retry import Step
from ppcli.source import Source
from ppcli.target import Costly, Target
from ppcli.units import format_size

_TOLD_EVERY = 0.5


def agree(
    place: Workplace, target: Target, files: Sequence[tuple[Path, Unchanged | FileEntry]], *, yes: bool, dry: bool
) -> None:
    """Tell what these files (and where they are read) will take at most; where that is new slots, ask, unless `yes` is
    the answer or the run is `dry`. Where it matters, files that replace a version are read, to see what of it is kept.
    Raises `Usage` where the answer is no, or where nobody is there to give one."""
    planned = [(path, seen) for path, seen in files if isinstance(seen, FileEntry) and seen.failure is None]
    if not isinstance(target, Costly) or not planned:
        return
    costly, plans = target, [_plan(entry) for _, entry in planned]

    def cost_with(sums: Mapping[str, Sequence[str]]) -> Cost:
        return place.call(Step.FIND, "the pads", lambda: costly.cost(plans, sums))

    try:
        cost = cost_with({})
    except PpcliError:
        if yes:  # what is agreed to is not stopped by this: the job is made, and says what is wrong
            return
        raise
    if cost.new and not yes and (sums := _sums(place, target, planned)):
        cost = cost_with(sums)
    place.listener.hear(_told(target.url, cost))
    if not cost.new or yes or dry:
        return
    what = f"up to {cost.new} new pad{'s' * (cost.new > 1)} ({format_size(cost.bytes_new)}) at {target.url}"
    if not cost.reused:
        what += f", {cost.records} of them for {'its record' if len(planned) == 1 else 'records'}"
    answer = place.ask(f"Reserve {what}?")
    if answer is None:
        raise Usage(
            f"This reserves {what}, and nobody is there to agree.",
            hint="Agree with --yes, or with PPCLI_YES=1.",
            reason="confirmation",
        )
    if not answer:
        raise Usage("Nothing was reserved or sent.", hint="Run it again to be asked again.", reason="declined")


def _sums(place: Workplace, target: Target, files: Sequence[tuple[Path, FileEntry]]) -> dict[str, list[str]]:
    """The XXH3-128 of the chunks of those files that replace a version which is cut as they are. A file that cannot be
    read now is none of them; whoever sends it will say so. So is what the target cannot be asked about."""
    replacing = []
    for path, entry in files:
        try:
            there = place.call(Step.FIND, entry.name, lambda name=entry.name: target.find(name))  # type: ignore[misc]
        except PpcliError:
            return {}
        if there is not None and there.chunk_size == entry.chunk_size:
            replacing.append((path, entry))
    total, done, told = sum(entry.size for _, entry in replacing), 0, time.monotonic()
    sums: dict[str, list[str]] = {}
    for path, entry in replacing:
        try:
            with Source(path) as source:
                sums[entry.name] = []
                for chunk in entry.chunks:
                    sums[entry.name].append(source.checksum(Part(chunk.index, chunk.offset, chunk.size)))
                    done += chunk.size
                    if time.monotonic() - told >= _TOLD_EVERY:
                        told = time.monotonic()
                        place.listener.hear(HashingProgress(None, done, total))
                        place.listener.tick()
        except SourceError:
            sums.pop(entry.name, None)
    return sums


def _told(url: str, cost: Cost) -> ReservationPlanned:
    return ReservationPlanned(
        job=None,
        target=url,
        pads_new=cost.new,
        pads_reused=cost.reused,
        pads_kept=cost.kept,
        pads_records=cost.records,
        pad_size=cost.slot_size,
        bytes_new=cost.bytes_new,
        bytes_reused=cost.bytes_reused,
        bytes_kept=cost.bytes_kept,
    )


def _plan(entry: FileEntry) -> FilePlan:
    return FilePlan("", 0, entry.name, entry.size, 0.0, entry.chunk_size, len(entry.chunks))
