"""Plain data that every layer shares. Sizes and offsets are bytes; times are seconds since the epoch, UTC."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, TypeAlias

from ppcli.values import value


class ChunkState(StrEnum):
    """planned -> reserved -> uploaded -> confirmed; back to planned only by a recorded reset."""

    PLANNED = "planned"
    RESERVED = "reserved"
    UPLOADED = "uploaded"
    CONFIRMED = "confirmed"


class JobState(StrEnum):
    """The state of a job, and of each of its files."""

    INITIATED = "initiated"
    UPLOADING = "uploading"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """Terminal: nothing can be resumed."""
        return self in (JobState.COMPLETED, JobState.CANCELLED)

    def may_become(self, new: JobState) -> bool:
        return new in _NEXT[self]


_NEXT: Mapping[JobState, frozenset[JobState]] = {
    JobState.INITIATED: frozenset({JobState.UPLOADING, JobState.PAUSED, JobState.FAILED, JobState.CANCELLED}),
    JobState.UPLOADING: frozenset(set(JobState) - {JobState.INITIATED}),
    JobState.PAUSED: frozenset({JobState.UPLOADING, JobState.CANCELLED}),
    JobState.FAILED: frozenset({JobState.UPLOADING, JobState.CANCELLED}),
    JobState.COMPLETED: frozenset(),
    JobState.CANCELLED: frozenset(),
}


class Evidence(StrEnum):
    """What proves a chunk, best first. Only `CONTENT` may be called verified."""

    CONTENT = "content"
    ETAG = "etag"
    OFFSET = "offset"
    MARK = "mark"


def weakest(levels: Collection[Evidence | None]) -> Evidence | None:
    """The weakest of these; None where there is none."""
    for level in _WORST_FIRST:
        if level in levels:
            return level
    return None


_WORST_FIRST = tuple(reversed(Evidence))


class Action(StrEnum):
    """How a completed file got there."""

    SENT = "sent"
    RESUMED = "resumed"
    UNCHANGED = "unchanged"
    COPIED = "copied"


Slot: TypeAlias = int | str
"""Where a chunk lives on the target: a pad number, a part number, an offset, a partial URL."""


@value(frozen=True, slots=True)
class Fingerprint:
    """What tells one revision of a source from another without reading it."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    def same(self, other: Fingerprint | None) -> bool:
        """Is it the same revision? The device is not compared: its number changes when a disk is mounted again."""
        return (
            other is not None
            and self.mtime_ns == other.mtime_ns
            and self.ctime_ns == other.ctime_ns
            and self.inode == other.inode
            and self.size == other.size
        )


@dataclass(slots=True)
class Chunk:
    """A byte range of a file and how far it got. `xxh3` is the XXH3-128 (hex) of the bytes that were sent.

    Changed only by `folding.apply`.
    """

    index: int
    offset: int
    size: int
    state: ChunkState = ChunkState.PLANNED
    xxh3: str | None = None
    slot: Slot | None = None
    etag: str | None = None
    evidence: Evidence | None = None


@value(frozen=True, slots=True)
class Part:
    """A chunk as a target sees it. `checksum` is the XXH3-128, `sha256` the SHA-256 of its bytes, both in hex, where
    they are known already: from a reading before this one, so that the bytes sent are to be compared with them."""

    index: int
    offset: int
    size: int
    checksum: str | None = None
    sha256: str | None = None


@value(frozen=True, slots=True)
class Receipt:
    """What the target answered for a chunk. `checksum` is the XXH3-128 (hex) of the bytes that were sent;
    `evidence` is None until something proves them."""

    index: int
    size: int
    slot: Slot
    checksum: str
    etag: str | None = None
    evidence: Evidence | None = None


@value(frozen=True, slots=True)
class Session:
    """What the target calls one file's upload. `expires_at` `slides` where every chunk that is stored moves it on.
    `detail` is the target's own, kept in the manifest, never a secret. `in_order`: chunks go one at a time, in order of
    offset, whatever `Limits.sends` says. `taken_over`: somebody else began it, so what it holds counts only once it is
    proved against the source. `whole`: it is one request, which makes the file visible; `complete` asks nobody."""

    RARE: ClassVar = ("expires_at", "detail", "slides", "in_order", "taken_over", "whole")
    """Left out of manifest and journal where they have their default (see `records.writer`)."""

    id: str
    expires_at: float | None = None
    detail: Mapping[str, str] = field(default_factory=dict)
    slides: bool = False
    in_order: bool = False
    taken_over: bool = False
    whole: bool = False


@value(frozen=True, slots=True)
class FilePlan:
    """One file of a job, as a target sees it.

    `key` names it within the job and survives restarts (with `job` it is the owner of everything reserved for it).
    `digest` is `sha256:hex` where it is known; `immutable` forbids replacing other content under `name`; `fresh`
    forbids to take over what somebody else began.
    """

    job: str
    key: int
    name: str
    size: int
    modified: float
    chunk_size: int
    chunks: int
    digest: str | None = None
    immutable: bool = False
    fresh: bool = False

    def with_digest(self, digest: str | None) -> FilePlan:
        """The same, now that the digest of what was sent is known."""
        if digest == self.digest:
            return self
        return FilePlan(  # half the time of `replace`
            self.job,
            self.key,
            self.name,
            self.size,
            self.modified,
            self.chunk_size,
            self.chunks,
            digest,
            self.immutable,
            self.fresh,
        )


@value(frozen=True, slots=True)
class Remote:
    """A finished object on a target. `digest` is `algorithm:hex` (see `checksums`). `slots`, one per chunk of
    `chunk_size`, let a new version adopt chunks."""

    name: str
    location: str
    size: int
    digest: str | None = None
    modified: float | None = None
    version: str | None = None
    chunk_size: int | None = None
    slots: Sequence[Slot] = ()


@value(frozen=True, slots=True)
class Incomplete:
    """An upload that was begun on the target and never completed. `job` owns it, where that can be told."""

    id: str
    name: str | None
    job: str | None
    size: int
    modified: float | None


@value(frozen=True, slots=True)
class Survey:
    """What a session holds. Authoritative: a chunk that is not in `held` is not there. A chunk in `held` that the
    manifest does not know may be adopted, from the slot of its receipt."""

    held: Mapping[int, Receipt]
    authoritative: bool
    expires_at: float | None = None


@value(frozen=True, slots=True)
class Notice:
    """Something that users of a target should know; `code` is that of the warning it becomes."""

    code: str
    message: str


@value(frozen=True, slots=True)
class Cost:
    """What an upload will ask for where slots cost: at most `new` ones, of `slot_size` bytes each, beside the `reused`
    free ones that are there already, and the `kept` ones of chunks that are known to be unchanged. Of the new and the
    reused, `records` hold what is written of the files beside their bytes."""

    new: int
    reused: int
    kept: int
    records: int
    slot_size: int

    @property
    def bytes_new(self) -> int:
        return self.new * self.slot_size

    @property
    def bytes_reused(self) -> int:
        return self.reused * self.slot_size

    @property
    def bytes_kept(self) -> int:
        return self.kept * self.slot_size


@value(frozen=True, slots=True)
class Limits:
    """What a target allows for one file, and what the pipeline must know of it. It branches on these, never on names.

    chunk_min, chunk_max   bytes; equal where the target fixes the chunk size
    chunk_default          bytes; the smallest size the planner picks by itself
    max_chunks             None: no limit
    sends                  chunks of one file that may be on their way at once; 1 means strictly in order of offset
    replan                 True: chunks already there survive a change of the source's size or content
    evidence               the best this target can give
    adopts                 True: `adopt` can keep or copy unchanged chunks of the version that is there already
    open_leaves_trace      True: opening a session creates something on the target, so the intent is made durable first
    digest_first           True: `open` wants the digest of the whole file, and `find` finds content by it
    remote                 True: every call crosses a network, so that it pays to ask about many files at once
    keeps_starts           True: an upload that breaks off leaves the start of its chunk there, so the chunk's checksum
                           is made durable before its first byte goes: a later run knows then whose bytes they are
    reserves               chunks whose slots are asked for in one call at most; None: as many as are wanted
    server_cuts            True: the server itself said how files are cut: a size that was wished for gives way
    digest_wanted          False: the target's own digest names the content, so that no source of several chunks is read
                           once more for its SHA-256
    """

    chunk_min: int
    chunk_max: int
    chunk_default: int
    max_chunks: int | None = None
    sends: int | None = None
    replan: bool = True
    evidence: Evidence = Evidence.CONTENT
    adopts: bool = False
    open_leaves_trace: bool = True
    digest_first: bool = False
    remote: bool = False
    keeps_starts: bool = False
    reserves: int | None = None
    digest_wanted: bool = True
    server_cuts: bool = False
