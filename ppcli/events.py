"""What happens, told to listeners (bars, plain text, JSON). Field names are the keys of the JSON stream.

Every event of a job is told only after the step behind it is durable, except `UploadProgress`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from ppcli.model import Action, Evidence, JobState


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events; `event` is the word in the JSON stream, which leaves out those without one."""

    event: ClassVar[str] = ""


@dataclass(frozen=True, slots=True)
class JobEvent(Event):
    """An event of one job; `job` is its id, or None before there is one."""

    job: str | None


@dataclass(frozen=True, slots=True)
class JobStarted(JobEvent):
    event: ClassVar[str] = "job_started"
    target: str
    files: int
    chunks: int
    bytes: int
    resumed: bool


@dataclass(frozen=True, slots=True)
class ReservationProgress(JobEvent):
    event: ClassVar[str] = "reservation_progress"
    reserved: int
    total: int


@dataclass(frozen=True, slots=True)
class UploadProgress(JobEvent):
    event: ClassVar[str] = "upload_progress"
    bytes_sent: int
    bytes_confirmed: int
    bytes_total: int
    bytes_per_second: float


@dataclass(frozen=True, slots=True)
class HashingProgress(JobEvent):
    """Sources are read for their digests before anything is sent; told only where a target wants that."""

    event: ClassVar[str] = "hashing_progress"
    bytes_hashed: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class ChunkConfirmed(JobEvent):
    event: ClassVar[str] = "chunk_confirmed"
    name: str
    chunk: int
    confirmed: int
    total: int
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Retrying(JobEvent):
    event: ClassVar[str] = "retrying"
    name: str
    chunk: int | None
    step: str
    attempt: int
    delay: float
    cause: str


@dataclass(frozen=True, slots=True)
class Stopping(JobEvent):
    """A signal stops the run (`exit_code` is that of its end), and what is in flight gets up to `grace` seconds. For
    people only: it has no word in the JSON stream."""

    exit_code: int
    grace: float


@dataclass(frozen=True, slots=True)
class Receiving(JobEvent):
    """How far a `get` is; the total is None while it is not known. For people only, as `Stopping`."""

    bytes_done: int
    bytes_total: int | None
    bytes_per_second: float


@dataclass(frozen=True, slots=True)
class FilePlanned(JobEvent):
    event: ClassVar[str] = "file_planned"
    name: str
    source: str
    size: int
    chunks: int
    chunk_size: int


@dataclass(frozen=True, slots=True)
class ReservationPlanned(JobEvent):
    """What a `put` will reserve at most where that costs, how many free pads it uses again, and how many unchanged ones
    it is known to keep. Of the new and the reused, `pads_records` are for the records of the files."""

    event: ClassVar[str] = "reservation_planned"
    target: str
    pads_new: int
    pads_reused: int
    pads_kept: int
    pads_records: int
    pad_size: int
    bytes_new: int
    bytes_reused: int
    bytes_kept: int


@dataclass(frozen=True, slots=True)
class FileCompleted(JobEvent):
    event: ClassVar[str] = "file_completed"
    name: str
    source: str
    size: int
    location: str
    digest: str | None
    action: Action
    bytes_sent: int
    evidence: Evidence | None


@dataclass(frozen=True, slots=True)
class FileFailed(JobEvent):
    event: ClassVar[str] = "file_failed"
    name: str
    source: str
    size: int | None
    kind: str
    reason: str | None
    message: str


@dataclass(frozen=True, slots=True)
class FileSkipped(JobEvent):
    event: ClassVar[str] = "file_skipped"
    name: str
    source: str
    size: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class WarningRaised(JobEvent):
    event: ClassVar[str] = "warning"
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class JobFinished(JobEvent):
    event: ClassVar[str] = "job_finished"
    state: JobState
    exit_code: int


@dataclass(frozen=True, slots=True)
class ChunkCounts:
    planned: int
    reserved: int
    uploaded: int
    confirmed: int
    total: int


@dataclass(frozen=True, slots=True)
class ByteCounts:
    confirmed: int
    total: int


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error as it is shown in JSON."""

    kind: str
    reason: str | None
    message: str
    hint: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class JobStatus(JobEvent):
    event: ClassVar[str] = "job"
    state: JobState
    target: str
    resumable: bool
    created: str
    updated: str
    pid: int | None
    files: int
    sources: tuple[str, ...]
    chunks: ChunkCounts
    bytes: ByteCounts
    evidence: Evidence | None
    expires_at: str | None
    last_error: ErrorInfo | None
    resume_command: str | None
    bytes_copied: int = 0


@dataclass(frozen=True, slots=True)
class ObjectListed(Event):
    event: ClassVar[str] = "object"
    name: str
    size: int
    digest: str | None
    modified: str | None


@dataclass(frozen=True, slots=True)
class IncompleteListed(Event):
    event: ClassVar[str] = "incomplete"
    id: str
    name: str | None
    job: str | None
    size: int
    modified: str | None


@dataclass(frozen=True, slots=True)
class Serving(Event):
    """`ppcli serve` accepts connections from now on."""

    event: ClassVar[str] = "serving"
    url: str
    host: str
    port: int
    data: str
    pid: int
    version: str


@dataclass(frozen=True, slots=True)
class TokenCreated(Event):
    """`ppcli serve` made a token: the one event with a secret in it, which is told here and never again.

    `saved` names the file that keeps it for clients of this computer; `id` is no secret.
    """

    event: ClassVar[str] = "token"
    user: str
    token: str
    saved: str | None
    id: str


@dataclass(frozen=True, slots=True)
class TokenListed(Event):
    """`expires` None: it does not end by itself."""

    event: ClassVar[str] = "token_listed"
    id: str
    user: str
    created: str
    expires: str | None


@dataclass(frozen=True, slots=True)
class TokenRevoked(Event):
    event: ClassVar[str] = "token_revoked"
    id: str
    user: str


@dataclass(frozen=True, slots=True)
class UserAdded(Event):
    event: ClassVar[str] = "user"
    user: str


@dataclass(frozen=True, slots=True)
class Result(JobEvent):
    """The last line of every command: the totals over all its jobs."""

    event: ClassVar[str] = "result"
    ok: bool
    exit_code: int
    state: JobState | None = None
    target: str | None = None
    files_total: int = 0
    files_completed: int = 0
    files_unchanged: int = 0
    files_failed: int = 0
    chunks_sent: int = 0
    chunks_skipped: int = 0
    bytes_sent: int = 0
    bytes_skipped: int = 0
    bytes_copied: int = 0
    elapsed: float = 0.0
    error: ErrorInfo | None = None


class Listener(Protocol):
    """Hears every event, one at a time; `tick` comes several times a second, also while nothing happens."""

    def hear(self, event: Event) -> None: ...

    def tick(self) -> None: ...
