"""`cancel`: free what a job holds on its target, and leave a cancelled manifest."""

from __future__ import annotations

from ppcli import steps
from ppcli.app.objects import incomplete
from ppcli.app.rebuilding import reopen
from ppcli.app.running import shared_error, unfinished_jobs
from ppcli.app.workplace import Workplace
from ppcli.errors import Busy, Interrupted, PpcliError, Rejected, Usage
from ppcli.events import JobFinished, Result
from ppcli.jobs import Job
from ppcli.manifest import Manifest
from ppcli.model import FilePlan, JobState
from ppcli.requests import CancelRequest
from ppcli.retry import Step
from ppcli.target import Store, Target
from ppcli.units import format_size


def cancel(place: Workplace, request: CancelRequest) -> Result:
    """Raises `Usage` without a job, `Busy` for one that is running. Of several, each is tried, whatever became of the
    others."""
    if request.incomplete:
        return _cancel_incomplete(place, request)
    if request.to is not None:
        raise Usage("--to goes with --incomplete.", hint="Name the JOB to cancel.")
    if not request.jobs and not request.all:
        raise Usage("No job was named.", hint="Give its id ('ppcli status' lists them), or --all.", reason="job")
    chosen = [place.jobs.resolve(prefix) for prefix in request.jobs] if request.jobs else unfinished_jobs(place)
    chosen = list(dict.fromkeys(chosen))
    errors: list[PpcliError] = []
    states: list[JobState] = []
    for job_id in chosen:
        try:
            states.append(_cancel_one(place, job_id, yes=request.yes))
        except Interrupted:
            raise
        except PpcliError as error:
            if len(chosen) == 1:
                raise
            place.warn(error.kind, error.message, job_id)
            errors.append(error)
    state = states[0] if len(chosen) == 1 else None
    return place.done(error=shared_error(errors), state=state)


def _cancel_one(place: Workplace, job_id: str, *, yes: bool) -> JobState:
    job = reopen(place, job_id)
    state, held = job.manifest.state, job.manifest.totals.bytes_confirmed
    if state.finished or (held and not yes and place.ask(_question(job)) is False):
        job.close()
        return state
    cancel_job(place, job)
    return JobState.CANCELLED


def _question(job: Job) -> str:
    totals = job.manifest.totals
    return (
        f"Job {job.id} has {format_size(totals.bytes_confirmed)} of {format_size(totals.bytes_total)} confirmed on the "
        "target. Cancel it and free them?"
    )


def cancel_job(place: Workplace, job: Job) -> None:
    """Abort every session of a job that this process holds, mark it cancelled and close it."""
    plan, cancelled = job.manifest, []
    target = place.target(plan.target)
    try:
        for index, entry in enumerate(plan.files):
            if entry.state.finished or entry.fingerprint is None:
                continue
            if entry.state is not JobState.INITIATED or not target.limits(entry.size).open_leaves_trace:
                _abort(place, target, plan, index)
            cancelled.append(steps.FileCancelled(index))
        # Aborting is repeatable, so nothing is said before everything is free: a cancel cut short is no cancel at all.
        job.record(*cancelled, steps.JobChanged(JobState.CANCELLED))
        job.fold()
    finally:
        job.close()
    place.listener.hear(JobFinished(job.id, JobState.CANCELLED, 0))


def _abort(place: Workplace, target: Target, plan: Manifest, index: int) -> None:
    entry = plan.files[index]
    file = FilePlan(plan.job, index, entry.name, entry.size, 0.0, entry.chunk_size, len(entry.chunks), entry.digest)
    place.call(Step.ABORT, entry.name, lambda: target.abort(entry.session, file, entry.slots))


def _cancel_incomplete(place: Workplace, request: CancelRequest) -> Result:
    """Everything that was begun on a target and never completed: jobs of this data dir are cancelled properly, what
    nobody here knows is freed. Running jobs are left alone."""
    if request.jobs or request.all:
        raise Usage("--incomplete takes no JOB and no --all.", hint="Leave them out.")
    target = place.target(place.choose(request.to))
    if not isinstance(target, Store):
        raise Rejected(
            f"{target.url} cannot list incomplete uploads.", hint="Cancel by job instead.", reason="unsupported"
        )
    found = incomplete(place, target.url, target)
    if found and not request.yes and place.ask(f"Free {len(found)} incomplete uploads at {target.url}?") is False:
        return place.done(target=target.url)
    known, busy = set(place.jobs.ids()), set()
    for job_id in dict.fromkeys(upload.job for upload in found):
        try:
            if job_id in known:
                _cancel_one(place, job_id, yes=True)
        except Busy as running:
            place.warn("busy", running.message, job_id)
            busy.add(job_id)
    for upload in incomplete(place, target.url, target):
        if upload.job is None or upload.job not in busy:
            place.call(Step.ABORT, upload.name or upload.id, lambda upload=upload: target.discard(upload))  # type: ignore[misc]
    return place.done(target=target.url)
