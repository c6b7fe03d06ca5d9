"""What happens, told on stderr: the same way above the bars and in plain text."""

from __future__ import annotations

from collections.abc import Callable

from ppcli.cli import sentences
from ppcli.cli.call import View
from ppcli.cli.streams import escape
from ppcli.events import (
    Event,
    FileFailed,
    JobFinished,
    JobStarted,
    ReservationPlanned,
    Result,
    Retrying,
    Serving,
    Stopping,
    TokenCreated,
    WarningRaised,
)
from ppcli.model import JobState

RETRY_INTERVAL = 30.0
"""Seconds between two notices about retries: twenty workers that lose one server say it once."""


class Narrator:
    """Turns events into sentences; `say` prints one. With `quiet` only errors are told."""

    def __init__(
        self, say: Callable[[str], None], clock: Callable[[], float], view: View, *, quiet: bool = False
    ) -> None:
        self._say = say
        self._clock = clock
        self._quiet = quiet
        self._view = view
        self._silent_so_far = True
        self._concluded = False
        self._files: dict[str | None, int] = {}  # of the jobs that started here
        self._running: list[str] = []
        self._unfinished: list[str] = []
        self._failed_jobs: list[str] = []
        self._held: list[FileFailed] = []
        self._retries = 0
        self._retries_told = 0
        self._retries_told_at = -RETRY_INTERVAL

    def hear(self, event: Event) -> None:
        match event:
            case Result():
                self._conclude(event)
            case JobStarted():
                self._files[event.job] = event.files
                self._running.append(str(event.job))
                self.note(sentences.beginning(event))
            case ReservationPlanned():
                self.note(sentences.reservation(event))
            case Retrying():
                self._retry(event)
            case Stopping():
                self.note(sentences.stopping(event))
            case WarningRaised():
                if not self._quiet or event.code == "default_target":  # success on this disk only is never silent
                    self._tell(f"warning: {event.message}")
            case TokenCreated() if event.saved is not None:  # told once, so also with --quiet
                self._tell(f"the token of {event.user}, also kept in {event.saved}: {event.token}")
            case Serving():
                self.note(f"serving {event.data} at {event.url}; Ctrl-C stops it")
            case FileFailed():
                self._failed(event)
            case JobFinished():
                self._finished(event)
        self._silent_so_far = False

    def note(self, text: str) -> None:
        """Tell what is neither a result nor an error."""
        if not self._quiet:
            self._tell(text)

    def last_words(self) -> str:
        """The line for a run that is cut off: how to go on. Empty where the end was told already."""
        if self._concluded:
            return ""
        jobs = [*self._unfinished, *self._running]
        again = f"To go on: ppcli resume {' '.join(jobs)}" if jobs else "Run the same command again."
        return f"ppcli: Stopped at once{'; everything confirmed is kept' if jobs else ''}. {again}\n"

    def _tell(self, text: str) -> None:
        self._say(f"ppcli: {escape(text)}")

    def _retry(self, event: Retrying) -> None:
        self._retries += 1
        now = self._clock()
        if now - self._retries_told_at < RETRY_INTERVAL:
            return
        new = self._retries - self._retries_told
        self.note(f"{f'{new} retries, the last: ' if new > 1 else ''}{sentences.retry(event)}")
        self._retries_told = self._retries
        self._retries_told_at = now

    def _failed(self, event: FileFailed) -> None:
        """Tell it now where other files go on; a single file's failure is the error of the command."""
        if self._files.get(event.job, 1) > 1:
            self._tell(sentences.failure(event))
        else:
            self._held.append(event)

    def _finished(self, event: JobFinished) -> None:
        if event.job in self._running:
            self._running.remove(event.job)
        if event.state in (JobState.PAUSED, JobState.FAILED) and event.job is not None:
            self._unfinished.append(event.job)
            if event.state is JobState.FAILED:
                self._failed_jobs.append(event.job)
        if event.job not in self._files:
            self.note(f"job {event.job}: {event.state}")

    def _conclude(self, result: Result) -> None:
        self._concluded = True
        error = result.error
        for event in self._held:
            if error is None or error.message != event.message:
                self._tell(sentences.failure(event))
        if self._view.moved and (self._files or result.files_completed or result.files_failed):
            self.note(sentences.ending(result, self._view.moved, self._retries))
        elif result.ok and self._silent_so_far and self._view.nothing:
            self.note(self._view.nothing)
        if error is None:
            return
        self._tell(error.message)
        again = f"ppcli resume {' '.join(self._unfinished)}" if self._unfinished else "ppcli resume"
        hint = error.hint.replace("'ppcli resume'", f"'{again}'")  # alone it would be refused where other jobs wait
        if hint:
            self._tell(hint)
        if self._unfinished and (self._failed_jobs or again not in hint):
            # a resume may fail for ever
            give_up = f"; to give up: ppcli cancel {' '.join(self._failed_jobs)}" if self._failed_jobs else ""
            self._tell(f"To go on: {again}{give_up}")
