"""`status`: jobs as they stand on disk. Changes nothing."""

from __future__ import annotations

import shlex

from ppcli.app.workplace import Workplace, failure_info
from ppcli.errors import Corrupt
from ppcli.events import ByteCounts, ChunkCounts, JobStatus, Result
from ppcli.lock import Holder
from ppcli.manifest import timestamp
from ppcli.model import JobState
from ppcli.requests import StatusRequest
from ppcli.summary import Summary

RUNNING, PAUSED, CANCELLED = 7, 75, 9


def status(place: Workplace, request: StatusRequest) -> Result:
    """Tell a `JobStatus` for each job asked for: those named, all, or all unfinished. Raises `NotFound` and `Usage` for
    ids, `Corrupt` for a single job that cannot be read. The exit code, where it was asked for, is the first that is not
    0, oldest job first and those that cannot be read last."""
    named = list(dict.fromkeys(place.jobs.resolve(prefix) for prefix in request.jobs))
    shown: list[tuple[JobStatus, int]] = []
    damaged: Corrupt | None = None
    for job in named or place.jobs.ids():
        holder = place.jobs.holder(job)
        try:
            summary = _summary(place, job)
        except Corrupt as corrupt:
            place.warn("corrupt", corrupt.message, job)
            damaged = corrupt
            continue
        told = _status(summary, holder)
        if named or request.all or not told.state.finished:
            shown.append((told, _exit_code(summary, told.state, holder)))
    shown.sort(key=lambda one: one[0].created)
    for told, _ in shown:
        place.listener.hear(told)
    if named and not shown and damaged:
        raise damaged
    state = shown[0][0].state if len(shown) == 1 and named else None
    target = shown[0][0].target if len(shown) == 1 and named else None
    result = place.done(state=state, target=target)
    code = next((code for _, code in shown if code), damaged.exit_code if damaged else 0)
    if not request.exit_code or not code:
        return result
    return Result(None, ok=False, exit_code=code, state=state, target=target, elapsed=result.elapsed)


def _summary(place: Workplace, job: str) -> Summary:
    """A job whose manifest cannot be read is shown by its last summary, and a warning says so. Raises `Corrupt` where
    there is none."""
    try:
        return place.jobs.summary(job)
    except Corrupt as corrupt:
        outline = place.jobs.outline(job)
        if outline is None:
            raise
        place.warn("corrupt", f"{corrupt.message} What is shown of it may be old.", job)
        return outline


def _status(summary: Summary, holder: Holder | None) -> JobStatus:
    """An `uploading` job that nobody holds was killed: it is paused."""
    state = summary.state
    if holder is None and state in (JobState.UPLOADING, JobState.INITIATED):
        state = JobState.PAUSED
    resumable = not state.finished
    return JobStatus(
        job=summary.job,
        state=state,
        target=summary.target,
        resumable=resumable,
        created=summary.created,
        updated=summary.updated,
        pid=holder.pid if holder else None,
        files=summary.files,
        sources=summary.sources,
        chunks=ChunkCounts(summary.planned, summary.reserved, summary.uploaded, summary.confirmed, summary.chunks),
        bytes=ByteCounts(summary.bytes_confirmed, summary.bytes_total),
        bytes_copied=summary.bytes_copied,
        evidence=summary.evidence,
        expires_at=timestamp(summary.expires_at) if summary.expires_at is not None else None,
        last_error=failure_info(summary.failure) if summary.failure else None,
        resume_command=shlex.join(["ppcli", "resume", summary.job]) if resumable else None,
    )


def _exit_code(summary: Summary, state: JobState, holder: Holder | None) -> int:
    """0 completed, 7 running, 75 paused whatever the cause, 9 cancelled; a failed job's own code."""
    if holder is not None and not state.finished:
        return RUNNING
    if state is JobState.FAILED and summary.failure is not None:
        return summary.failure.exit_code
    return {JobState.COMPLETED: 0, JobState.CANCELLED: CANCELLED}.get(state, PAUSED)
