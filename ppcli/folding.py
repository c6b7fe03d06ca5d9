"""`apply`, the one function that changes a manifest: it folds in one step of the job.

The live state of a running job and the state replayed from a journal come from it alike. Pure: no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ppcli import steps
from ppcli.manifest import FileEntry, Manifest
from ppcli.model import Action, Chunk, ChunkState, Evidence, JobState
from ppcli.planner import plan_chunks, replan_chunks
from ppcli.steps import Step


def apply(manifest: Manifest, seq: int, step: Step) -> None:
    """Fold one step in. Raises `ValueError` or `IndexError` for a step that does not fit the plan."""
    match step:
        case steps.JobChanged():
            if step.state is not manifest.state and not manifest.state.may_become(step.state):
                raise ValueError(f"{manifest.state} does not become {step.state}")
            manifest.state, manifest.failure = step.state, step.failure
        case steps.Opening():
            for position in step.files:
                _begin(manifest.files[position])
        case _:
            _FOLDS[type(step)](manifest, manifest.files[step.file], step)
    manifest.seq = seq


def _reserved(manifest: Manifest, file: FileEntry, step: steps.Reserved | steps.Opened) -> None:
    for index, slot in zip(step.chunks, step.slots, strict=True):
        chunk = file.chunks[index]
        chunk.slot = slot
        _move(manifest, chunk, ChunkState.RESERVED)


def _hashed(manifest: Manifest, file: FileEntry, step: steps.Hashed) -> None:
    file.chunks[step.chunk].xxh3 = step.xxh3


def _uploaded(manifest: Manifest, file: FileEntry, step: steps.Uploaded) -> None:
    chunk = file.chunks[step.chunk]
    chunk.xxh3, chunk.etag = step.xxh3, step.etag
    _move(manifest, chunk, ChunkState.UPLOADED)


def _confirmed(
    manifest: Manifest, file: FileEntry, step: steps.Confirmed | steps.ConfirmedCompleting | steps.ConfirmedCompleted
) -> None:
    chunk = file.chunks[step.chunk]
    chunk.slot, chunk.xxh3, chunk.etag, chunk.evidence = step.slot, step.xxh3, step.etag, step.evidence
    _move(manifest, chunk, ChunkState.CONFIRMED)


def _reset(manifest: Manifest, file: FileEntry, step: steps.Reset) -> None:
    indexes = range(len(file.chunks)) if step.chunks is None else step.chunks
    for chunk in [file.chunks[index] for index in indexes]:
        chunk.xxh3 = chunk.etag = chunk.evidence = chunk.slot = None
        _move(manifest, chunk, ChunkState.PLANNED)
    if step.session_lost:
        file.session, file.copied = None, 0
    file.completing = False


def _move(manifest: Manifest, chunk: Chunk, state: ChunkState) -> None:
    totals, before = manifest.totals, chunk.state
    totals.chunks[before] -= 1
    totals.chunks[state] += 1
    if state is ChunkState.CONFIRMED:
        totals.bytes_confirmed += chunk.size
    if before is ChunkState.CONFIRMED:
        totals.bytes_confirmed -= chunk.size
    chunk.state = state


def _begin(file: FileEntry) -> None:
    file.state, file.failure = JobState.UPLOADING, None


def _opened(manifest: Manifest, file: FileEntry, step: steps.Opened) -> None:
    _begin(file)
    file.session = step.session
    _reserved(manifest, file, step)


def _compared(manifest: Manifest, file: FileEntry, step: steps.Compared) -> None:
    file.recheck = False


def _copied(manifest: Manifest, file: FileEntry, step: steps.Copied) -> None:
    file.copied += step.size


def _digested(manifest: Manifest, file: FileEntry, step: steps.Digested) -> None:
    file.digest = step.digest


def _completing(manifest: Manifest, file: FileEntry, step: steps.Completing | steps.ConfirmedCompleting) -> None:
    file.completing, file.digest = True, step.digest


def _confirmed_completing(manifest: Manifest, file: FileEntry, step: steps.ConfirmedCompleting) -> None:
    _confirmed(manifest, file, step)
    _completing(manifest, file, step)


def _confirmed_completed(manifest: Manifest, file: FileEntry, step: steps.ConfirmedCompleted) -> None:
    _confirmed(manifest, file, step)
    _visible(file, step)


def _completed(manifest: Manifest, file: FileEntry, step: steps.Completed) -> None:
    _visible(file, step)
    if step.action is Action.UNCHANGED:  # it was there, with this digest, before any chunk was sent
        for chunk in file.chunks:
            chunk.evidence = Evidence.CONTENT
            _move(manifest, chunk, ChunkState.CONFIRMED)


def _visible(file: FileEntry, step: steps.Completed | steps.ConfirmedCompleted) -> None:
    file.state, file.completing, file.failure = JobState.COMPLETED, False, None
    file.location, file.digest, file.action = step.location, step.digest, step.action


def _failed(manifest: Manifest, file: FileEntry, step: steps.Failed) -> None:
    file.state, file.failure = JobState.FAILED, step.failure


def _cancelled(manifest: Manifest, file: FileEntry, step: steps.FileCancelled) -> None:
    _reset(manifest, file, steps.Reset(step.file, None, "cancelled", session_lost=True))
    file.state = JobState.CANCELLED


def _replanned(manifest: Manifest, file: FileEntry, step: steps.Replanned) -> None:
    manifest.totals.add(file, -1)
    if step.chunk_size == file.chunk_size:
        file.chunks = replan_chunks(file.chunks, step.fingerprint.size, file.chunk_size)
    else:
        file.chunks = plan_chunks(step.fingerprint.size, step.chunk_size)
        file.chunk_size = step.chunk_size
    manifest.totals.add(file)
    file.path, file.fingerprint, file.digest = step.path, step.fingerprint, None
    file.completing, file.recheck = False, True


_FOLDS: Mapping[type[Step], Callable[[Manifest, FileEntry, Any], None]] = {
    steps.Opened: _opened,
    steps.Reserved: _reserved,
    steps.Hashed: _hashed,
    steps.Uploaded: _uploaded,
    steps.Confirmed: _confirmed,
    steps.Reset: _reset,
    steps.Replanned: _replanned,
    steps.Copied: _copied,
    steps.Compared: _compared,
    steps.Digested: _digested,
    steps.Completing: _completing,
    steps.Completed: _completed,
    steps.ConfirmedCompleting: _confirmed_completing,
    steps.ConfirmedCompleted: _confirmed_completed,
    steps.Failed: _failed,
    steps.FileCancelled: _cancelled,
}
