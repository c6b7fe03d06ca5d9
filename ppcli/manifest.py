"""A job's plan and the state of every chunk, which `folding.apply` alone changes, and their JSON. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, ClassVar

from ppcli import records
from ppcli.model import Action, Chunk, ChunkState, Evidence, Fingerprint, JobState, Session, Slot, weakest
from ppcli.steps import Failure

FORMAT = "ppcli-manifest/1"
BEGINNING = b'{"format":"%s"' % FORMAT.encode()
END = b"\n]}\n"
"""How the text of every manifest begins and ends."""
STDIN = "-"


@dataclass(slots=True)
class FileEntry:
    """One file of a job. `path` is the source's absolute path, or `-` for spooled stdin; `fingerprint` is None for a
    source that could not be read when the job was made. `recheck`: the source changed since some chunks were confirmed,
    and they have not been compared with it yet. `completing`: the target may have completed it already. `copied` bytes
    were kept or copied on the target's side."""

    RARE: ClassVar = ("recheck", "completing", "copied", "location", "action", "failure")
    """Left out of `manifest.json` where they have their default."""

    name: str
    path: str
    fingerprint: Fingerprint | None
    chunk_size: int
    chunks: list[Chunk]
    digest: str | None = None
    session: Session | None = None
    state: JobState = JobState.INITIATED
    recheck: bool = False
    completing: bool = False
    copied: int = 0
    location: str | None = None
    action: Action | None = None
    failure: Failure | None = None

    @property
    def size(self) -> int:
        return self.fingerprint.size if self.fingerprint else 0

    @property
    def slots(self) -> list[Slot]:
        """Those that its chunks have."""
        return [chunk.slot for chunk in self.chunks if chunk.slot is not None]


@dataclass(frozen=True, slots=True)
class JobOptions:
    """The options of `put` that a resume keeps. Sizes in bytes, rates in bytes per second."""

    jobs: int
    reserve_jobs: int
    retries: int
    limit_rate: int | None = None
    chunk_size: int | None = None
    immutable: bool = False
    fail_fast: bool = False
    fresh: bool = False


@dataclass(slots=True)
class Totals:
    """Sums over all files of a job, kept by `folding.apply`."""

    chunks: dict[ChunkState, int] = field(default_factory=lambda: dict.fromkeys(ChunkState, 0))
    chunks_total: int = 0
    bytes_total: int = 0
    bytes_confirmed: int = 0

    def add(self, file: FileEntry, sign: int = 1) -> None:
        """Count the chunks of `file` in, or with `sign` -1 out."""
        for chunk in file.chunks:
            self.chunks[chunk.state] += sign
            self.bytes_total += sign * chunk.size
            if chunk.state is ChunkState.CONFIRMED:
                self.bytes_confirmed += sign * chunk.size
        self.chunks_total += sign * len(file.chunks)

    @property
    def reserved(self) -> int:
        """Chunks that have a slot or are further."""
        return self.chunks_total - self.chunks[ChunkState.PLANNED]


@dataclass(slots=True)
class Manifest:
    """A job. `seq` is that of the last step applied; `created` and `updated` are RFC 3339, UTC."""

    job: str
    target: str
    options: JobOptions
    files: list[FileEntry]
    created: str
    updated: str
    seq: int = 0
    state: JobState = JobState.INITIATED
    failure: Failure | None = None
    totals: Totals = field(default_factory=Totals, compare=False)

    def __post_init__(self) -> None:
        for file in self.files:
            self.totals.add(file)


def now() -> str:
    """This moment as RFC 3339 in UTC, with milliseconds."""
    return _at(int(datetime.now(UTC).timestamp() * 1000))


@lru_cache(maxsize=2)
def _at(milliseconds: int) -> str:
    return timestamp(milliseconds / 1000)


_LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()


def timestamp(seconds: float) -> str:
    """A time (seconds since the epoch) as RFC 3339 in UTC; one that no calendar has is the last, or the first."""
    if not 0 <= seconds <= _LAST:
        seconds = _LAST if seconds > 0 else 0
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def evidence(manifest: Manifest) -> Evidence | None:
    """The weakest evidence among the confirmed chunks; None while there are none."""
    confirmed = (chunk for file in manifest.files for chunk in file.chunks if chunk.state is ChunkState.CONFIRMED)
    return weakest({chunk.evidence for chunk in confirmed})


def to_json(manifest: Manifest) -> Iterator[bytes]:
    """The text of `manifest.json`, a piece per file, so that the whole is never in memory twice."""
    head: dict[str, Any] = {
        "format": FORMAT,
        "seq": manifest.seq,
        "job": manifest.job,
        "created": manifest.created,
        "updated": manifest.updated,
        "state": manifest.state,
        "target": manifest.target,
        "options": manifest.options,
        "failure": manifest.failure,
    }
    yield records.text(head)[:-1].encode() + b',"files":[\n'
    for position, file in enumerate(manifest.files):
        yield (b",\n" if position else b"") + _file_to_json(file).encode()
    yield END


def _file_to_json(file: FileEntry) -> str:
    name, path, chunks = records.text(file.name), records.text(file.path), records.text(file.chunks)
    mark = records.writer(Fingerprint)(file.fingerprint) if file.fingerprint else _NO_FINGERPRINT
    rest = records.writer(FileEntry, _REST)(file)
    return f'{{"name":{name},"source":{{"path":{path},{mark}}},{rest},"chunks":{chunks}}}'


_NO_FINGERPRINT = records.text(dict.fromkeys(records.names(Fingerprint)))[1:-1]
_REST = tuple(word for word in records.names(FileEntry) if word not in ("name", "path", "fingerprint", "chunks"))


def from_json(data: bytes) -> Manifest:
    """The manifest of a `manifest.json`. Raises `ValueError` for anything that is not one."""
    record = records.loads(data)
    if not isinstance(record, dict) or record.get("format") != FORMAT or not isinstance(record.get("files"), list):
        raise ValueError(f"not a {FORMAT}")
    for file in record["files"]:
        if not isinstance(file, dict) or not isinstance(file.get("source"), dict):
            raise ValueError("a file without a source")
        source = file.pop("source")
        file["path"] = source.pop("path", None)
        file["fingerprint"] = None if source.get("inode") is None else source
    manifest = records.build(Manifest, {key: value for key, value in record.items() if key != "totals"})
    for file in manifest.files:
        if any(chunk.index != index for index, chunk in enumerate(file.chunks)) or not file.chunks:
            raise ValueError(f"the chunks of {file.name!r} are not in order")
    return manifest
