"""Opening a job whose manifest may be damaged: what its last summary and its sources still tell is planned anew."""

from __future__ import annotations

from pathlib import Path

from ppcli.app.planning import plan_file
from ppcli.app.workplace import Workplace
from ppcli.errors import Corrupt, Rejected, SourceError
from ppcli.jobs import Job
from ppcli.manifest import STDIN, Manifest, now
from ppcli.retry import Step
from ppcli.source import fingerprint
from ppcli.summary import Summary
from ppcli.target import Store, Target


def reopen(place: Workplace, job_id: str, wait: float = 0.0) -> Job:
    """Hold a job; a manifest that cannot be read is set aside and planned anew. Raises `Busy`, and `Corrupt` where
    nothing is left to plan from."""
    try:
        return place.jobs.open(job_id, wait)
    except Corrupt:
        outline = place.jobs.outline(job_id)
        if outline is None:
            raise _beyond_repair(place, job_id) from None
        if outline.state.finished:
            raise
    job = place.jobs.rebuild(job_id, _plan_again(place, outline))
    job.notices.append(f"The manifest of job {job_id} was damaged; it was set aside, and its files are sent again.")
    _discard_leftovers(place.target(outline.target), place, job_id)
    return job


def _beyond_repair(place: Workplace, job_id: str) -> Corrupt:
    kept = place.jobs.retire(job_id)
    return Corrupt(
        f"Job {job_id} can be neither read nor rebuilt; it was set aside as {kept}.",
        hint="Run the same put again; what it left on the target is shown by 'ppcli ls --incomplete'.",
        reason="manifest",
    )


def _plan_again(place: Workplace, outline: Summary) -> Manifest:
    target = place.target(outline.target)
    files = []
    for wanted in outline.wanted:
        path = place.jobs.directory / outline.job / "spool" if wanted.path == STDIN else Path(wanted.path)
        try:
            chunk_size = outline.options.chunk_size
            files.append(plan_file(target, wanted.name, wanted.path, fingerprint(path), chunk_size))
        except SourceError as error:
            files.append(plan_file(target, wanted.name, wanted.path, None, None, error))
    return Manifest(outline.job, outline.target, outline.options, files, outline.created, now())


def _discard_leftovers(target: Target, place: Workplace, job_id: str) -> None:
    """The sessions of the lost manifest are unknown now: free what the target still holds for the job."""
    if isinstance(target, Store):
        try:
            held = [one for one in target.incomplete() if one.job == job_id]
        except Rejected:  # a target that cannot list them lets them expire
            held = []
        for upload in held:
            place.call(Step.ABORT, upload.name or upload.id, lambda upload=upload: target.discard(upload))  # type: ignore[misc]
