"""Where reserving costs: say what a `put` will take, and have the user agree before anything is changed."""

from __future__ import annotations

from collections.abc import Sequence

from ppcli.app.planning import Unchanged
from ppcli.app.workplace import Workplace
from ppcli.errors import Usage
from ppcli.events import ReservationPlanned
from ppcli.manifest import FileEntry
from ppcli.model import FilePlan
from ppcli.target import Costly, Target
from ppcli.units import format_size


def agree(place: Workplace, target: Target, files: Sequence[Unchanged | FileEntry], *, asking: bool) -> None:
    """Tell what these files will take at most; where that is new slots, and `asking`, ask. Raises `Usage` where the
    answer is no, or where nobody is there to give one."""
    plans = [_plan(entry) for entry in files if isinstance(entry, FileEntry) and entry.failure is None]
    if not isinstance(target, Costly) or not plans:
        return
    cost = target.cost(plans)
    told = ReservationPlanned(
        job=None,
        target=target.url,
        pads_new=cost.new,
        pads_reused=cost.reused,
        pad_size=cost.slot_size,
        bytes_new=cost.bytes_new,
        bytes_reused=cost.bytes_reused,
    )
    place.listener.hear(told)
    if not cost.new or not asking:
        return
    what = f"up to {cost.new} new pads ({format_size(cost.bytes_new)}) at {target.url}"
    answer = place.ask(f"Reserve {what}?")
    if answer is None:
        raise Usage(
            f"This reserves {what}, and nobody is there to agree.",
            hint="Agree with --yes, or with PPCLI_YES=1.",
            reason="confirmation",
        )
    if not answer:
        raise Usage(
            "Nothing was reserved or sent.", hint="Run the same command again to be asked again.", reason="declined"
        )


def _plan(entry: FileEntry) -> FilePlan:
    return FilePlan("", 0, entry.name, entry.size, 0.0, entry.chunk_size, len(entry.chunks))
