"""`summary.json`: what `status` and the job look-up need, so that neither parses every manifest."""

from __future__ import annotations

from dataclasses import dataclass

from ppcli import records
from ppcli.manifest import JobOptions, Manifest, evidence
from ppcli.model import ChunkState, Evidence, JobState
from ppcli.steps import Failure

FORMAT = "ppcli-summary/1"
SOURCES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Wanted:
    """An unfinished file of a job, as a later `put` looks for it: its name on the target and its source's path."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Summary:
    """A job as of manifest step `seq`. Counts are chunks and bytes of the whole job."""

    format: str
    job: str
    seq: int
    state: JobState
    target: str
    created: str
    updated: str
    files: int
    sources: tuple[str, ...]
    planned: int
    reserved: int
    uploaded: int
    confirmed: int
    bytes_confirmed: int
    bytes_total: int
    evidence: Evidence | None
    expires_at: float | None
    failure: Failure | None
    wanted: tuple[Wanted, ...]
    options: JobOptions
    bytes_copied: int = 0

    @property
    def chunks(self) -> int:
        return self.planned + self.reserved + self.uploaded + self.confirmed


def summarize(manifest: Manifest) -> Summary:
    """The summary of a manifest, as it stands."""
    counts, open_files = manifest.totals.chunks, [f for f in manifest.files if not f.state.finished]
    expiries = [f.session.expires_at for f in open_files if f.session and f.session.expires_at is not None]
    return Summary(
        format=FORMAT,
        job=manifest.job,
        seq=manifest.seq,
        state=manifest.state,
        target=manifest.target,
        created=manifest.created,
        updated=manifest.updated,
        files=len(manifest.files),
        sources=tuple(f.path for f in manifest.files[:SOURCES_SHOWN]),
        planned=counts[ChunkState.PLANNED],
        reserved=counts[ChunkState.RESERVED],
        uploaded=counts[ChunkState.UPLOADED],
        confirmed=counts[ChunkState.CONFIRMED],
        bytes_confirmed=manifest.totals.bytes_confirmed,
        bytes_total=manifest.totals.bytes_total,
        evidence=evidence(manifest),
        expires_at=min(expiries, default=None),
        failure=manifest.failure,
        options=manifest.options,
        bytes_copied=sum(f.copied for f in manifest.files),
        wanted=() if manifest.state.finished else tuple(Wanted(f.name, f.path) for f in open_files),
    )


def to_json(summary: Summary) -> bytes:
    return records.text(summary).encode() + b"\n"


def from_json(data: bytes) -> Summary:
    """Raises `ValueError` for anything that is not a summary of this format."""
    record = records.loads(data)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"not a {FORMAT}")
    return records.build(Summary, record)
