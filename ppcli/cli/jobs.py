"""The commands about jobs: `resume`, `status`, `cancel`."""

from __future__ import annotations

import click

from ppcli.cli.call import Call, View
from ppcli.cli.options import Command
from ppcli.cli.params import complete_job, environment, parse_count, to_option, yes_option
from ppcli.requests import CancelRequest, ResumeRequest, StatusRequest
from ppcli.units import parse_rate

_jobs = click.argument("jobs", nargs=-1, metavar="[JOB]...", shell_complete=complete_job)


def _jobs_or_all(jobs: tuple[str, ...], every: bool) -> None:
    if jobs and every:
        raise click.UsageError("Name jobs or say --all, not both.")


@click.command(cls=Command)
@_jobs
@click.option("--all", "every", is_flag=True, help="All unfinished jobs, oldest first; busy ones are skipped.")
def resume(jobs: tuple[str, ...], every: bool) -> Call:
    """Go on with unfinished jobs.

    \b
      ppcli resume
      ppcli resume 7f3a

    JOB is any unique beginning of a job's id (`ppcli status` lists them). Without one, the only unfinished job is
    meant. A job keeps the options of its put; PPCLI_LIMIT_RATE and PPCLI_JOBS, where they are set, take their place.
    """
    _jobs_or_all(jobs, every)
    rate, at_once = environment("PPCLI_LIMIT_RATE", parse_rate), environment("PPCLI_JOBS", parse_count)
    request = ResumeRequest(jobs=jobs, all=every, limit_rate=rate, at_once=at_once)
    return Call(
        lambda app: app.resume(request), View(locations=True, moved="sent", nothing="There is no unfinished job.")
    )


@click.command(cls=Command)
@_jobs
@click.option("--all", "every", is_flag=True, help="Finished jobs too.")
@click.option("--exit-code", is_flag=True, help="Exit with the job's state, see below.")
def status(jobs: tuple[str, ...], every: bool, exit_code: bool) -> Call:
    """Show the unfinished jobs, or the named ones.

    \b
      ppcli status
      ppcli status --exit-code 7f3a

    With --exit-code: 0 completed, 7 running, 75 paused, 9 cancelled, and its own code for a failed job. Of several
    jobs, the first that is not 0.
    """
    _jobs_or_all(jobs, every)
    request = StatusRequest(jobs=jobs, all=every, exit_code=exit_code)
    nothing = "There is no job." if every else "There is no unfinished job."
    return Call(lambda app: app.status(request), View(details=len(jobs) == 1, nothing=nothing))


@click.command(cls=Command)
@_jobs
@click.option("--all", "every", is_flag=True, help="All unfinished jobs.")
@click.option("--incomplete", is_flag=True, help="Remove uploads on the target that were begun and never completed.")
@to_option
@yes_option
def cancel(jobs: tuple[str, ...], every: bool, incomplete: bool, to: str | None, yes: bool) -> Call:
    """Give up jobs and free what they hold on the target.

    \b
      ppcli cancel 7f3a
      ppcli cancel --incomplete --to /mnt/nas

    Finished files stay. On a terminal it asks first when bytes are confirmed already; --yes answers.
    """
    _jobs_or_all(jobs, every)
    request = CancelRequest(jobs=jobs, all=every, yes=yes, incomplete=incomplete, to=to)
    return Call(lambda app: app.cancel(request), View(nothing="There is no unfinished job." if every else ""))
