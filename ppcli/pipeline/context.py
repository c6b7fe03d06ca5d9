"""What the stages of a run share."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from functools import cached_property

from ppcli.bodies import ChunkBody
from ppcli.disk import StrPath
from ppcli.errors import Damaged, Integrity, Internal, PpcliError, StepFailure, local_error
from ppcli.events import Retrying, WarningRaised
from ppcli.halt import Halt
from ppcli.hashing import Hashes
from ppcli.jobs import Job
from ppcli.manifest import STDIN, FileEntry
from ppcli.model import FilePlan, Part, Session
from ppcli.pipeline.feed import Feed
from ppcli.pipeline.meter import Meter, Pace
from ppcli.pipeline.recorder import Recorder
from ppcli.pipeline.work import FileRun
from ppcli.retry import Attempt, Retrier, Step
from ppcli.steps import Failure
from ppcli.target import Learner, Target


@dataclass(frozen=True)
class Context:
    """One run of one job. Workers read the manifest's plan (names, offsets, sizes), never its states: those belong to
    the recorder's thread."""

    job: Job
    target: Target
    recorder: Recorder
    feed: Feed
    retrier: Retrier
    halt: Halt
    meter: Meter
    pace: Pace
    hashes: Hashes
    resumed: bool = False
    """An earlier run of the job had its files planned: what is there by now has not been asked."""
    reopened: set[int] = field(default_factory=set)
    sent_before: dict[int, int] = field(default_factory=dict)
    """Bytes that went into a session of this run that was lost, by file."""

    def path(self, entry: FileEntry) -> StrPath:
        return self.job.spool if entry.path == STDIN else entry.path

    def learn(self, entry: FileEntry) -> None:
        """Have the target's limits known."""
        if (learner := self._learner) is not None:
            self.retrier.call(Step.FIND, entry.name, None, learner.learn)

    @cached_property
    def _learner(self) -> Learner | None:
        """Found out once: it takes as long as a small file."""
        return self.target if isinstance(self.target, Learner) else None

    def body(self, run: FileRun, part: Part) -> ChunkBody:
        """The bytes of a chunk, counted and paced as they go out. A file of one chunk gets its digest on the way."""

        def gone(count: int) -> None:
            self.meter.sent(count)
            run.sent += count
            self.halt.check(self.pace.delay(count))

        return run.source.body(part, on_bytes=gone, whole=run.digest_on_the_way, piece=self.pace.piece)

    def skip(self, run: FileRun, size: int) -> None:
        """A chunk of `size` bytes was there before this run."""
        run.skipped = run.skipped[0] + 1, run.skipped[1] + size
        self.meter.skipped(1, size)

    def reopens(self, index: int) -> bool:
        """Whether a file whose session is lost gets another: once in a run."""
        first = index not in self.reopened
        self.reopened.add(index)
        return first

    def discard(self, session: Session, plan: FilePlan, entry: FileEntry) -> None:
        """Free what a lost session still holds, as far as one attempt does; its successor needs nothing of it."""
        with contextlib.suppress(PpcliError, StepFailure):
            self.target.abort(session, plan, entry.slots)

    def reading(self, _count: int) -> None:
        """Called while a source is read only to be hashed."""
        if self.halt.requested:
            self.halt.sleep(0)

    def warn(self, code: str, message: str) -> None:
        self.recorder.tell(WarningRaised(self.job.id, code, message))


def retrying(job: str | None, attempt: Attempt) -> Retrying:
    """The event for an attempt that failed."""
    return Retrying(
        job, attempt.name, attempt.chunk, attempt.step, attempt.number, round(attempt.delay, 3), attempt.cause
    )


def failure(error: PpcliError) -> Failure:
    """An error as a manifest keeps it."""
    return Failure(error.kind, error.reason, error.message, error.hint, error.exit_code)


def as_told(error: Exception) -> PpcliError:
    """What users are told of an error that ended a piece of work."""
    if isinstance(error, PpcliError):
        return error
    if isinstance(error, OSError):
        return local_error(error, "go on")
    if isinstance(error, Damaged):
        return Integrity(f"{error.cause}.", hint="Check the target's disk, then run 'ppcli resume'.", reason="damaged")
    bug = Internal(f"Unexpected {type(error).__name__}: {error}.", hint="Please report this with the job's log.")
    bug.__cause__ = error
    return bug
