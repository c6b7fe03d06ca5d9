"""The steps of a job: the facts that its journal records, one line each, and `folding.apply` folds.

`to_body` gives the text of a journal line, `from_record` takes a parsed one.
`file` is the position of a file in the manifest, `chunk` the index of a chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias, cast

from ppcli import records
from ppcli.model import Action, Evidence, Fingerprint, JobState, Session, Slot
from ppcli.values import value


@value(frozen=True, slots=True)
class Failure:
    """Why a file or job stopped: the fields of an error, as they are kept."""

    kind: str
    reason: str | None
    message: str
    hint: str
    exit_code: int


@value(frozen=True, slots=True)
class Opening:
    """Sessions are about to be asked for."""

    files: tuple[int, ...]


@value(frozen=True, slots=True)
class Opened:
    """There is a session. Slots that were reserved right away are held: `slots[i]` is for `chunks[i]`."""

    file: int
    session: Session
    chunks: tuple[int, ...] = ()
    slots: tuple[Slot, ...] = ()


@value(frozen=True, slots=True)
class Reserved:
    """Slots that are held: `slots[i]` is for `chunks[i]`."""

    file: int
    chunks: tuple[int, ...]
    slots: tuple[Slot, ...]


@value(frozen=True, slots=True)
class Hashed:
    """A chunk's checksum, before the first of its bytes goes."""

    file: int
    chunk: int
    xxh3: str


@value(frozen=True, slots=True)
class Uploaded:
    file: int
    chunk: int
    xxh3: str
    etag: str | None


@value(frozen=True, slots=True)
class Confirmed:
    file: int
    chunk: int
    slot: Slot
    xxh3: str
    etag: str | None
    evidence: Evidence


@value(frozen=True, slots=True)
class Reset:
    """These chunks (None: all) are planned again. `session_lost` forgets the session as well."""

    file: int
    chunks: tuple[int, ...] | None
    reason: str
    session_lost: bool = False


@value(frozen=True, slots=True)
class Replanned:
    """The source is another revision, or at another path. What is confirmed must be compared with it."""

    file: int
    path: str
    fingerprint: Fingerprint
    chunk_size: int


@value(frozen=True, slots=True)
class Compared:
    """Every chunk that is still confirmed has the bytes of the present source."""

    file: int


@value(frozen=True, slots=True)
class Copied:
    """`size` bytes of the file were kept or copied on the target's side; their chunks are confirmed by other steps."""

    file: int
    size: int


@value(frozen=True, slots=True)
class Digested:
    """The digest of the whole source is known before its upload."""

    file: int
    digest: str


@value(frozen=True, slots=True)
class Completing:
    """All chunks are confirmed; the target is about to be asked to make the file visible."""

    file: int
    digest: str | None


@value(frozen=True, slots=True)
class Completed:
    """`sent` counts the bytes that went out for this file in this run; it is told, not kept."""

    file: int
    location: str
    digest: str | None
    action: Action
    sent: int


@value(frozen=True, slots=True)
class ConfirmedCompleting:
    """`Confirmed`, for the last chunk of a file, then `Completing`."""

    file: int
    chunk: int
    slot: Slot
    xxh3: str
    etag: str | None
    evidence: Evidence
    digest: str | None


@value(frozen=True, slots=True)
class ConfirmedCompleted:
    """`Confirmed`, for the last chunk of a file, then `Completed`."""

    file: int
    chunk: int
    slot: Slot
    xxh3: str
    etag: str | None
    evidence: Evidence
    location: str
    digest: str | None
    action: Action


@value(frozen=True, slots=True)
class Failed:
    file: int
    failure: Failure


@value(frozen=True, slots=True)
class FileCancelled:
    file: int


@value(frozen=True, slots=True)
class JobChanged:
    """The job as a whole moves to `state`."""

    state: JobState
    failure: Failure | None = None


Step: TypeAlias = (
    Opening
    | Opened
    | Reserved
    | Hashed
    | Uploaded
    | Confirmed
    | Reset
    | Replanned
    | Compared
    | Copied
    | Digested
    | Completing
    | Completed
    | ConfirmedCompleting
    | ConfirmedCompleted
    | Failed
    | FileCancelled
    | JobChanged
)

_KINDS: Mapping[str, type[Any]] = {
    "opened+reserved": Opened,  # written once, read still
    "opening": Opening,
    "opened": Opened,
    "reserved": Reserved,
    "hashed": Hashed,
    "uploaded": Uploaded,
    "confirmed": Confirmed,
    "reset": Reset,
    "replanned": Replanned,
    "compared": Compared,
    "copied": Copied,
    "digested": Digested,
    "completing": Completing,
    "completed": Completed,
    "confirmed+completing": ConfirmedCompleting,
    "confirmed+completed": ConfirmedCompleted,
    "failed": Failed,
    "file_cancelled": FileCancelled,
    "job_changed": JobChanged,
}
_WORDS = {cls: word for word, cls in _KINDS.items()}


def to_body(seq: int, step: Step) -> str:
    """The JSON text of a step, without its closing brace (see `journal.encode`)."""
    kind: Any = type(step)
    return f'{{"seq":{seq},"step":"{_WORDS[kind]}",{records.writer(kind)(step)}'


def from_record(record: Mapping[str, Any]) -> Step:
    """The step of a journal record. Raises `ValueError` for an unknown or malformed one."""
    kind = _KINDS.get(str(record.get("step")))
    if kind is None:
        raise ValueError(f"unknown step {record.get('step')!r}")
    if kind is Opening and "files" not in record:  # written by 0.1.0: one file
        record = {"files": [record.get("file")]}
    return cast(Step, records.build(kind, record))
