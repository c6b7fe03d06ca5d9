"""What a user asked for, as lines of text for stdout."""

from __future__ import annotations

from collections.abc import Iterator

from ppcli.cli.call import View
from ppcli.cli.sentences import counted, percent
from ppcli.cli.streams import escape
from ppcli.events import (
    Event,
    FileCompleted,
    FilePlanned,
    IncompleteListed,
    JobStatus,
    ObjectListed,
    Serving,
    TokenCreated,
    TokenListed,
    TokenRevoked,
    UserAdded,
)
from ppcli.model import Evidence, JobState
from ppcli.units import format_size


def result_lines(event: Event, view: View) -> Iterator[str]:
    """The lines an event adds to stdout, safe for a terminal; most events add none."""
    for line in _lines(event, view):
        yield escape(line)


def _lines(event: Event, view: View) -> Iterator[str]:
    match event:
        case FileCompleted() if view.locations:
            yield event.location
        case FilePlanned():
            parts = counted(event.chunks, "chunk")
            yield f"{event.name}  {format_size(event.size)}, {parts} of up to {format_size(event.chunk_size)}"
        case ObjectListed() if view.long:
            yield f"{event.size:>14}  {event.modified or '-':<24}  {event.digest or '-'}  {event.name}"
        case ObjectListed():
            yield event.name
        case IncompleteListed():
            yield f"{event.size:>14}  {event.modified or '-':<24}  {event.id}  {event.job or '-'}  {event.name or '-'}"
        case Serving():
            yield event.url
        case TokenCreated(saved=None):
            yield event.token
        case TokenListed():
            yield f"{event.id}  {event.created}  {event.expires or 'does not end':<24}  {event.user}"
        case TokenRevoked():
            yield event.id
        case UserAdded():
            yield event.user
        case JobStatus() if view.details:
            yield from _job_details(event)
        case JobStatus():
            yield _job_line(event)


def _job_percent(job: JobStatus) -> int:
    """By bytes; by chunks where all files are empty."""
    counts = job.bytes if job.bytes.total else job.chunks
    return percent(counts.confirmed, counts.total)


def _job_line(job: JobStatus) -> str:
    more = f" and {job.files - 1} more" if job.files > 1 else ""
    source = job.sources[0] if job.sources else "-"
    size = f"{format_size(job.bytes.confirmed)}/{format_size(job.bytes.total)}"
    return f"{job.job}  {job.state:<9}  {_job_percent(job):>3}%  {size:>21}  {source}{more} -> {job.target}"


def _job_details(job: JobStatus) -> Iterator[str]:
    chunks, done = job.chunks, job.bytes
    yield f"job        {job.job}"
    yield f"state      {job.state}{'' if job.pid is None else f' (process {job.pid})'}"
    yield f"target     {job.target}"
    yield f"created    {job.created}"
    yield f"updated    {job.updated}"
    yield (
        f"progress   {_job_percent(job)}%: {chunks.confirmed} of {counted(chunks.total, 'chunk')},"
        f" {format_size(done.confirmed)} of {format_size(done.total)}"
    )
    yield f"open       {chunks.planned} planned, {chunks.reserved} reserved, {chunks.uploaded} uploaded"
    yield f"evidence   {_evidence(job.evidence)}"
    if job.expires_at is not None:
        yield f"expires    {job.expires_at}"
    yield from _sources(job)
    if job.last_error is not None:
        yield f"error      {job.last_error.kind}: {job.last_error.message}"
        if job.last_error.hint:
            yield f"           {job.last_error.hint}"
    if job.resume_command is not None:
        yield f"go on      {job.resume_command}"
    if job.state is JobState.FAILED:
        yield f"give up    ppcli cancel {job.job}"


def _sources(job: JobStatus) -> Iterator[str]:
    for number, source in enumerate(job.sources):
        yield f"{'sources' if number == 0 else '':<9}  {source}"
    if job.files > len(job.sources):
        yield f"{'':<9}  and {job.files - len(job.sources)} more"


def _evidence(evidence: Evidence | None) -> str:
    if evidence is None:
        return "none yet"
    return "content (verified)" if evidence is Evidence.CONTENT else f"{evidence} (the content is not verified)"
