"""Which unfinished jobs have the files of a `put`: by target, name and source, or by target and name alone where only
one job has them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ppcli import steps
from ppcli.app.workplace import Workplace
from ppcli.collect import Found
from ppcli.errors import Busy, Corrupt
from ppcli.model import JobState
from ppcli.summary import Summary


@dataclass(frozen=True, slots=True)
class Match:
    """A file that an unfinished job has already."""

    found: Found
    job: str


def match(place: Workplace, target: str, files: Sequence[Found]) -> list[Match]:
    """The files that unfinished jobs at `target` have, oldest job first."""
    by_source: dict[tuple[str, str], str] = {}
    by_name: defaultdict[str, set[str]] = defaultdict(set)
    order: list[str] = []
    for summary in sorted(_unfinished(place, target), key=lambda summary: summary.created):
        order.append(summary.job)
        for wanted in summary.wanted:
            by_source.setdefault((wanted.name, wanted.path), summary.job)
            by_name[wanted.name].add(summary.job)
    matches = []
    for found in files:
        job = by_source.get((found.name, str(found.path)))
        if job is None and found.error is None and len(by_name.get(found.name, ())) == 1:
            (job,) = by_name[found.name]
        if job is not None:
            matches.append(Match(found, job))
    return sorted(matches, key=lambda one: order.index(one.job)) if len(order) > 1 else matches


def completed_since(place: Workplace, target: str, known: set[str]) -> set[str]:
    """The names that jobs which are not in `known` completed at `target`; those of them that have ended join it."""
    names: set[str] = set()
    for job_id in set(place.jobs.ids()) - known:
        try:
            plan = place.jobs.peek(job_id)
        except Corrupt:
            continue
        if plan.target == target:
            names |= {entry.name for entry in plan.files if entry.state is JobState.COMPLETED}
        if plan.state.finished:
            known.add(job_id)
    return names


def settle_ended(place: Workplace) -> None:
    """Jobs that were killed between their last file and their own end have nothing left to do: mark them completed.
    Those that were killed later, in their last fold, are folded again."""
    for job_id in place.jobs.ids():
        try:
            summary = place.jobs.summary(job_id)
            if summary.wanted or (summary.state.finished and place.jobs.folded(job_id)):
                continue
            job = place.jobs.open(job_id)
        except (Busy, Corrupt):
            continue
        try:
            plan = job.manifest
            if not plan.state.finished and all(entry.state is JobState.COMPLETED for entry in plan.files):
                job.record(steps.JobChanged(JobState.UPLOADING), steps.JobChanged(JobState.COMPLETED))
            if plan.state.finished:
                job.fold()
        finally:
            job.close()


def _unfinished(place: Workplace, target: str) -> Iterator[Summary]:
    """Jobs that cannot be read count by their last summary; one without any is no obstacle to others."""
    for job in place.jobs.ids():
        try:
            summary = place.jobs.summary(job)
        except Corrupt:
            outline = place.jobs.outline(job)
            if outline is None:
                continue
            summary = outline
        if summary.target == target and not summary.state.finished:
            yield summary
