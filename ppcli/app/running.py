"""Running jobs: one after the other, each to its end or its halt; and `resume`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace

from ppcli import pipeline, steps
from ppcli.app.log import JobLog
from ppcli.app.rebuilding import reopen
from ppcli.app.workplace import Workplace, error_info
from ppcli.errors import Busy, Corrupt, Internal, Interrupted, Local, Partial, PpcliError, Usage
from ppcli.events import JobFinished, JobStarted, ReservationProgress, Result
from ppcli.halt import Halt
from ppcli.jobfiles import LOG
from ppcli.jobs import Job
from ppcli.manifest import FileEntry
from ppcli.model import Action, JobState
from ppcli.pipeline import narrate
from ppcli.pipeline.context import failure
from ppcli.requests import ResumeRequest
from ppcli.steps import Failure
from ppcli.target import Target


@dataclass(slots=True)
class Tally:
    """Totals over the jobs of a command; its fields are those of `Result`."""

    files_total: int = 0
    files_completed: int = 0
    files_unchanged: int = 0
    files_failed: int = 0
    chunks_sent: int = 0
    chunks_skipped: int = 0
    bytes_sent: int = 0
    bytes_skipped: int = 0
    bytes_copied: int = 0


@dataclass(slots=True)
class Ending:
    """How one job ended for this command. `error` is None exactly when everything asked of it is done."""

    state: JobState
    error: PpcliError | None
    halted: bool


@dataclass(slots=True)
class Runs:
    """The jobs that a command ran."""

    tally: Tally = field(default_factory=Tally)
    endings: list[Ending] = field(default_factory=list)


def run_job(
    place: Workplace,
    job: Job,
    target: Target,
    files: Sequence[int],
    runs: Runs,
    *,
    resumed: bool,
    asked: int,
    unable: PpcliError | None = None,
) -> Ending:
    """Run `files` (positions) of a job that this process holds, close it, and add it to `runs`. `asked`: how many files
    the user asked for; the failure of one of several is `Partial`. `unable`: it is already known that nothing can be
    sent now, so the job is only made and paused."""
    plan, halt = job.manifest, Halt()
    log = JobLog(job.directory, place.listener)
    log.hear(
        JobStarted(job.id, plan.target, len(plan.files), plan.totals.chunks_total, plan.totals.bytes_total, resumed)
    )
    log.hear(ReservationProgress(job.id, plan.totals.reserved, plan.totals.chunks_total))
    for notice in job.notices:
        log.warn(job.id, "journal_damaged", notice)
    pending = []
    for index in files:
        entry = plan.files[index]
        if entry.state is JobState.FAILED and not resumed and entry.failure is not None:
            log.hear(narrate.file_failed(job.id, entry, entry.failure))
            if plan.options.fail_fast:
                unable = unable or revive(entry.failure)
        else:
            pending.append(index)
    with place.signals.stopping(halt):
        if unable is None and pending:
            unable = _begin(job)
        if unable is None and pending:
            outcome = pipeline.run(job, target, pending, log, halt, place.hashes, resumed=resumed)
            error = _reported(outcome.error, log, job)
            _add(runs.tally, outcome.meter)
        else:
            error = unable
        ending = _conclude(job, files, asked, error, log)
    runs.endings.append(ending)
    _count(runs.tally, plan.files, files)
    return ending


def _begin(job: Job) -> Local | None:
    """Mark a job as uploading; gives the error where not even that can be written."""
    try:
        job.record(steps.JobChanged(JobState.UPLOADING))
    except Local as error:
        return error
    return None


def _reported(error: PpcliError | None, log: JobLog, job: Job) -> PpcliError | None:
    """A bug is told with the log that has its traceback."""
    if not isinstance(error, Internal):
        return error
    log.bug(error.__cause__ or error)
    return Internal(error.message, hint=f"Please report this, with the log {job.directory / LOG}.", reason="bug")


def _conclude(job: Job, files: Sequence[int], asked: int, error: PpcliError | None, log: JobLog) -> Ending:
    """Decide the job's state, make it durable, and say so."""
    plan, halted = job.manifest, error is not None
    failed = [plan.files[i] for i in files if plan.files[i].state is JobState.FAILED]
    if failed and failed[0].failure is not None and (error is None or error.ends_file):
        error = files_error(len(failed), asked, revive(failed[0].failure))
    done = all(entry.state is JobState.COMPLETED for entry in plan.files)
    if done and isinstance(error, Interrupted):  # the signal came when the last chunk was on its way
        error, halted = None, False
    if error is None:
        state = JobState.COMPLETED if done else JobState.PAUSED
    else:
        own = error.ends_file or isinstance(error, Partial)
        state = JobState.FAILED if failed and own else JobState.PAUSED
    try:
        if plan.state in (JobState.PAUSED, JobState.FAILED) and state is not plan.state:
            job.record(steps.JobChanged(JobState.UPLOADING))
        job.record(steps.JobChanged(state, failure(error) if error else None))
    except Local as unrecorded:  # the data dir is full or gone: what it holds of the job is what a kill would leave
        if error is None or error.ends_file or isinstance(error, Partial):
            error = unrecorded
        state, halted = JobState.PAUSED, True
    else:
        _fold(job, log)
    finally:
        job.close()
    if error is not None:
        log.stopped(error)
    log.hear(JobFinished(job.id, state, error.exit_code if error else 0))
    log.close()
    return Ending(state, error, halted)


def _fold(job: Job, log: JobLog) -> None:
    """The journal has everything already, so a manifest that cannot be written changes nothing."""
    try:
        job.fold()
    except Local as error:
        log.warn(job.id, "manifest", f"{error.message} The journal has what happened.")


def files_error(failed: int, total: int, first: PpcliError, *, kept: bool = True) -> PpcliError:
    """The error when files failed for reasons of their own: that of the only file, or `Partial`. `kept`: a job has
    them, so that they can be resumed."""
    if total == 1:
        return first
    again = "'ppcli resume' tries them again" if kept else "run the same command again when that is mended"
    return Partial(
        f"{failed} of {total} files failed.",
        hint=f"The messages above say why; {again}.",
        reason="files_failed",
    )


def revive(kept: Failure) -> PpcliError:
    """The error that a manifest kept."""
    for cls in PpcliError.__subclasses__():
        if cls.kind == kept.kind and not issubclass(cls, Interrupted):
            return cls(kept.message, hint=kept.hint, reason=kept.reason)
    return Interrupted(kept.exit_code, job=True)


def _add(tally: Tally, meter: pipeline.Meter) -> None:
    for name in ("chunks_sent", "chunks_skipped", "bytes_sent", "bytes_skipped", "bytes_copied"):
        setattr(tally, name, getattr(tally, name) + getattr(meter, name))


def _count(tally: Tally, entries: Sequence[FileEntry], files: Iterable[int]) -> None:
    for index in files:
        tally.files_total += 1
        tally.files_completed += entries[index].state is JobState.COMPLETED
        tally.files_failed += entries[index].state is JobState.FAILED
        tally.files_unchanged += entries[index].action is Action.UNCHANGED


def result(place: Workplace, runs: Runs, error: PpcliError | None, target: str | None) -> Result:
    """The `Result` of the runs; `state` is told when there was exactly one."""
    one = runs.endings[0].state if len(runs.endings) == 1 else None
    totals = {f.name: getattr(runs.tally, f.name) for f in fields(Tally)}
    return Result(
        job=None,
        ok=error is None,
        exit_code=error.exit_code if error else 0,
        state=one,
        target=target,
        elapsed=place.elapsed,
        error=error_info(error, job=bool(runs.endings)) if error else None,
        **totals,
    )


def shared_error(errors: Sequence[PpcliError | None]) -> PpcliError | None:
    """Several jobs: the error whose exit code they share, else the first."""
    return next((error for error in errors if error is not None), None)


def resume(place: Workplace, request: ResumeRequest) -> Result:
    """Go on with unfinished jobs: those named, the only one, or all (oldest first; busy ones are skipped). Of several,
    each is tried, whatever became of the others. Raises what ends a single one before it runs."""
    runs, targets = Runs(), set[str]()
    errors: list[PpcliError | None] = []
    chosen = _chosen(place, request)
    for job_id in chosen:
        try:
            ending = _resume_one(place, request, job_id, runs, targets)
        except Interrupted:
            raise
        except PpcliError as error:
            if isinstance(error, Busy) and request.all:
                place.warn(error.kind, f"{error.message} It is skipped.", job_id)
                continue
            if len(chosen) == 1:
                raise
            place.warn(error.kind, error.message, job_id)
            errors.append(error)
            continue
        errors.append(ending.error)
        if isinstance(ending.error, Interrupted):
            break
        if ending.halted and ending.error is not None and len(chosen) > 1:
            place.warn(ending.error.kind, ending.error.message, job_id)
    return result(place, runs, shared_error(errors), targets.pop() if len(targets) == 1 else None)


def _resume_one(place: Workplace, request: ResumeRequest, job_id: str, runs: Runs, targets: set[str]) -> Ending:
    job = reopen(place, job_id)
    state = job.manifest.state
    try:
        targets.add(job.manifest.target)
        if state is JobState.CANCELLED:
            raise Usage(f"Job {job_id} was cancelled.", hint="Run 'ppcli put' again.", reason="cancelled")
        if state is JobState.COMPLETED:
            job.close()
            runs.endings.append(Ending(state, None, halted=False))
            return runs.endings[-1]
        target = place.target(job.manifest.target, job.manifest.options.chunk_size)
    except PpcliError:
        job.close()
        raise
    had = job.manifest.options
    job.manifest.options = replace(
        had, limit_rate=request.limit_rate or had.limit_rate, jobs=request.at_once or had.jobs
    )
    files = [i for i, entry in enumerate(job.manifest.files) if not entry.state.finished]
    return run_job(place, job, target, files, runs, resumed=True, asked=len(job.manifest.files))


def _chosen(place: Workplace, request: ResumeRequest) -> list[str]:
    if request.jobs:
        return list(dict.fromkeys(place.jobs.resolve(prefix) for prefix in request.jobs))
    unfinished = unfinished_jobs(place)
    if not request.all and len(unfinished) > 1:
        raise Usage(
            f"{len(unfinished)} jobs are unfinished: {', '.join(unfinished)}.",
            hint="Name one, or use --all.",
            reason="ambiguous",
        )
    return unfinished


def unfinished_jobs(place: Workplace) -> list[str]:
    """The ids of all jobs that can be resumed, oldest first; damaged ones come last."""
    seen: list[tuple[str, str]] = []
    for job in place.jobs.ids():
        try:
            summary = place.jobs.summary(job)
        except Corrupt:
            seen.append(("~", job))
            continue
        if not summary.state.finished:
            seen.append((summary.created, job))
    return [job for _, job in sorted(seen)]
