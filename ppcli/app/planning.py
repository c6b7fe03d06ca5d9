"""Looking at what a `put` found: what is on the target already, what can be planned, what fails."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ppcli import planner
from ppcli.app.workplace import Workplace
from ppcli.bodies import OnBytes
from ppcli.collect import Found
from ppcli.errors import PpcliError, Rejected, SourceError, Usage, other_content
from ppcli.events import FileCompleted
from ppcli.manifest import FileEntry
from ppcli.model import Action, FilePlan, Fingerprint, JobState, Limits, Remote
from ppcli.pipeline.context import failure
from ppcli.requests import PutRequest
from ppcli.retry import Step
from ppcli.source import Source, fingerprint
from ppcli.target import Learner, Linker, Overview, Target


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
    digest: str | None = None,
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
    chunks = planner.plan_chunks(size, chunk_size)
    return FileEntry(name, path, seen, chunk_size, chunks, digest=digest, state=state, failure=kept)


def check_chunk_size(place: Workplace, target: Target, wanted: int) -> None:
    """Raises `Usage` for a chunk size (bytes) that the target does not take; about one that only the usual limits
    forbid, it is asked."""
    try:
        planner.chunk_size(0, target.limits(0), wanted)
    except Usage as unusual:
        if not isinstance(target, Learner):
            raise
        try:
            place.call(Step.FIND, target.url, target.learn)
        except PpcliError:
            raise unusual from None
        planner.chunk_size(0, target.limits(0), wanted)


class Examiner:
    """Decides for each file of a `put` that no unfinished job has: unchanged, to be sent, or failed. Any thread may
    ask, for different files."""

    def __init__(self, place: Workplace, target: Target, request: PutRequest) -> None:
        self._place = place
        self._target = target
        self._learner = target if isinstance(target, Learner) else None
        self._request = request

    def examine(self, found: Found, path: Path, on_bytes: OnBytes) -> Unchanged | FileEntry:
        """`path` is where to read it; `on_bytes` is told what is read before anything is sent. Raises what halts a
        job."""
        source = str(found.path)
        if found.error is not None:
            return self._failed(found, source, None, found.error)
        seen: Fingerprint | None = None
        digest = None
        try:
            seen = fingerprint(path)
            self._learn(found.name)
            limits = self._target.limits(seen.size)
            if limits.digest_first:
                seen, digest = self._digest(path, seen, limits, on_bytes)
            remote = self._find(found.name, digest)
            same = self._same(path, seen, remote, digest) if remote is not None else None
            if remote is None and digest is not None:
                self._may_replace(found.name, digest)
                remote, same = self._link(found.name, seen, digest), digest
            if remote is not None and same is not None:
                return _unchanged(found, source, seen, remote, same, limits)
            if remote is not None and self._request.immutable:
                raise other_content(found.name)
        except PpcliError as error:
            if not error.ends_file:
                raise
            return self._failed(found, source, seen, error)
        return plan_file(self._target, found.name, source, seen, self._request.chunk_size, digest=digest)

    def foresee(self, names: Sequence[str]) -> None:
        """Before these are examined: the target may learn something of all of them at once."""
        target = self._target
        if isinstance(target, Overview):
            self._place.call(Step.FIND, "the names there", lambda: target.foresee(names))

    def unknown(self, path: Path) -> int:
        """How many bytes `examine` will have to read of a file before anything can be sent."""
        with contextlib.suppress(PpcliError):
            seen = fingerprint(path)
            if self._target.limits(seen.size).digest_first and self._place.hashes.known(path, seen) is None:
                return seen.size
        return 0

    def unseen(self, found: Found, path: Path) -> FileEntry:
        """The plan for a file without asking the target; its chunk size is looked at again when it is opened."""
        source = str(found.path)
        chunk_size = self._request.chunk_size or planner.USUAL_CHUNK_SIZE
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

    def _digest(self, path: Path, seen: Fingerprint, limits: Limits, on_bytes: OnBytes) -> tuple[Fingerprint, str]:
        """The digest of a source, and the revision it belongs to."""
        hashes = self._place.hashes
        if (known := hashes.known(path, seen)) is not None:
            return seen, known
        with self._place.hashing, Source(path) as source:
            chunk_size = planner.chunk_size(source.fingerprint.size, limits, self._request.chunk_size)
            return source.fingerprint, hashes.of(source, chunk_size, on_bytes)

    def _learn(self, name: str) -> None:
        if (learner := self._learner) is not None:
            self._place.call(Step.FIND, name, learner.learn)

    def _find(self, name: str, digest: str | None = None) -> Remote | None:
        return self._place.call(Step.FIND, name, lambda: self._target.find(name, digest))

    def _may_replace(self, name: str, digest: str) -> None:
        """Where a name was asked for by its content: with `--immutable`, other content under it is an error."""
        if self._request.immutable:
            there = self._find(name)
            if there is not None and there.digest != digest:
                raise other_content(name)

    def _link(self, name: str, seen: Fingerprint, digest: str) -> Remote | None:
        """The target may have this content under another name."""
        target = self._target
        if self._request.dry_run or not isinstance(target, Linker):
            return None
        plan = FilePlan("", 0, name, seen.size, seen.mtime_ns / 10**9, max(1, seen.size), 1, digest)
        return self._place.call(Step.FIND, name, lambda: target.link(plan))

    def _same(self, path: Path, seen: Fingerprint, remote: Remote, digest: str | None) -> str | None:
        """The digest that source and remote share; None where they differ or it cannot be proved."""
        if remote.size != seen.size:
            return None
        there = self._digest_of(remote, fresh=self._request.checksum)
        if there is None and self._request.immutable:  # it is read, before it is said to be other content
            there = self._digest_of(remote, fresh=True)
        if there is None:
            return None
        algorithm = there.partition(":")[0]
        if digest is None or not digest.startswith(f"{algorithm}:"):
            digest = self._place.file_digest(path, self._request.checksum, algorithm)
        return digest if digest == there else None

    def _digest_of(self, remote: Remote, *, fresh: bool) -> str | None:
        return self._place.call(Step.FIND, remote.name, lambda: self._target.digest(remote, fresh=fresh))

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


def unreadable(entries: Sequence[FileEntry]) -> bool:
    """None of these could be read: there is nothing that a job could go on with."""
    return all(entry.failure is not None and entry.failure.kind == SourceError.kind for entry in entries)
