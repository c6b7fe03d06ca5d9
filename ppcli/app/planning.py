"""Looking at what a `put` found: what is on the target already, what can be planned, what fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ppcli import planner
from ppcli.app.workplace import Workplace
from ppcli.collect import Found
from ppcli.errors import PpcliError, Rejected, SourceError
from ppcli.events import FileCompleted
from ppcli.manifest import FileEntry
from ppcli.model import Action, Fingerprint, JobState, Limits, Remote
from ppcli.pipeline.context import failure
from ppcli.retry import Step
from ppcli.source import fingerprint
from ppcli.target import Target


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A file that is provably on the target already."""

    told: FileCompleted
    chunks: int


def plan_file(
    target: Target,
    name: str,
    path: str,
    seen: Fingerprint | None,
    wanted: int | None,
    error: PpcliError | None = None,
) -> FileEntry:
    """The manifest entry for a source; with an `error` it has failed already, and a resume will try it again. Raises
    `Usage` for a chunk size (`wanted`, bytes) that the target does not take."""
    size = seen.size if seen else 0
    try:
        chunk_size = planner.chunk_size(size, target.limits(size), wanted)
    except Rejected as rejected:
        error, chunk_size = rejected, max(1, size)
    state = JobState.FAILED if error else JobState.INITIATED
    kept = failure(error) if error else None
    return FileEntry(name, path, seen, chunk_size, planner.plan_chunks(size, chunk_size), state=state, failure=kept)


class Examiner:
    """Decides for each file of a `put` that no unfinished job has: unchanged, to be sent, or failed."""

    def __init__(
        self, place: Workplace, target: Target, *, checksum: bool, immutable: bool, wanted: int | None
    ) -> None:
        self._place = place
        self._target = target
        self._checksum = checksum
        self._immutable = immutable
        self._wanted = wanted

    def examine(self, found: Found, path: Path) -> Unchanged | FileEntry:
        """`path` is where to read it. Raises what halts a job."""
        source = str(found.path)
        if found.error is not None:
            return self._failed(found, source, None, found.error)
        seen: Fingerprint | None = None
        try:
            seen = fingerprint(path)
            limits = self._target.limits(seen.size)
            remote = self._place.call(Step.FIND, found.name, lambda: self._target.find(found.name))
            if remote is not None:
                if (digest := self._same(path, seen, remote)) is not None:
                    return _unchanged(found, source, seen, remote, digest, limits)
                if self._immutable:
                    raise _exists(found.name)
        except PpcliError as error:
            if not error.ends_file:
                raise
            return self._failed(found, source, seen, error)
        return plan_file(self._target, found.name, source, seen, self._wanted)

    def unseen(self, found: Found, path: Path) -> FileEntry:
        """The plan for a file without asking the target; its chunk size is looked at again when it is opened."""
        source = str(found.path)
        chunk_size = self._wanted or planner.USUAL_CHUNK_SIZE
        try:
            if found.error is not None:
                raise found.error
            seen = fingerprint(path)
        except SourceError as error:
            return FileEntry(
                found.name,
                source,
                None,
                chunk_size,
                planner.plan_chunks(0, chunk_size),
                state=JobState.FAILED,
                failure=failure(error),
            )
        return FileEntry(found.name, source, seen, chunk_size, planner.plan_chunks(seen.size, chunk_size))

    def _same(self, path: Path, seen: Fingerprint, remote: Remote) -> str | None:
        """The digest that source and remote share; None where they differ or it cannot be proved."""
        if remote.size != seen.size:
            return None
        there = self._target.digest(remote, fresh=self._checksum)
        here = self._place.file_digest(path, self._checksum) if there is not None else None
        return here if here == there else None

    def _failed(self, found: Found, source: str, seen: Fingerprint | None, error: PpcliError) -> FileEntry:
        return plan_file(self._target, found.name, source, seen, None, error)


def _unchanged(found: Found, source: str, seen: Fingerprint, remote: Remote, digest: str, limits: Limits) -> Unchanged:
    told = FileCompleted(
        job=None,
        name=found.name,
        source=source,
        size=seen.size,
        location=remote.location,
        digest=digest,
        action=Action.UNCHANGED,
        bytes_sent=0,
        evidence=limits.evidence,
    )
    chunk = remote.chunk_size or planner.chunk_size(seen.size, limits)
    return Unchanged(told, planner.chunk_count(seen.size, chunk))


def _exists(name: str) -> Rejected:
    return Rejected(
        f"{name} is there already, with other content, and --immutable was given.",
        hint="Choose another name, or leave --immutable out to replace it.",
        reason="exists",
    )


def unreadable(entries: Sequence[FileEntry]) -> bool:
    """None of these could be read: there is nothing that a job could go on with."""
    return all(entry.failure is not None and entry.failure.kind == SourceError.kind for entry in entries)
