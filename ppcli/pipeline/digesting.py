"""Digests of whole files before they are opened: for targets that want them, and to see what is there already. Runs on
reserve workers."""

from __future__ import annotations

import threading
import time
from typing import cast

from ppcli import steps
from ppcli.bodies import OnBytes
from ppcli.events import HashingProgress
from ppcli.manifest import FileEntry
from ppcli.model import Action, FilePlan, Limits, Remote
from ppcli.pipeline.context import Context
from ppcli.retry import Step
from ppcli.source import Source
from ppcli.target import Linker, Overview

_TOLD_EVERY = 0.5
"""Seconds between two notices of how far the reading of a source is."""
_WORTH_TELLING = 64 << 20


def know(context: Context, index: int, entry: FileEntry, source: Source) -> None:
    """Have the digest of the source in the manifest, durably."""
    hashes = context.hashes
    digest = hashes.known(source.path, source.fingerprint)
    if digest is None:
        digest = hashes.of(source, entry.chunk_size, _reading(context, source.fingerprint.size))
    context.recorder.record(steps.Digested(index, digest))


class Foresight:
    """Has the target look once, at all names that an earlier run had not begun. Any thread."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._wanted = context.resumed and isinstance(context.target, Overview)

    def look(self) -> None:
        if not self._wanted:
            return
        with self._lock:  # all wait for the one that asks
            if not self._wanted:
                return
            context, target = self._context, cast(Overview, self._context.target)
            files = context.job.manifest.files  # nothing was opened in this run yet, so that their states stand still
            names = [entry.name for entry in files if entry.session is None and not entry.state.finished]
            context.retrier.call(Step.FIND, "the names there", None, lambda: target.foresee(names))
            self._wanted = False


def there_already(context: Context, index: int, source: Source, plan: FilePlan, limits: Limits) -> bool:
    """Is this content there? Nobody asked the target before the job was made, or somebody else may have finished it
    since. What is there is recorded as done."""
    there, digest = _with_digest(context, plan) if limits.digest_first else _compared(context, source, plan)
    if there is None:
        return False
    context.recorder.post(steps.Completed(index, there.location, digest, Action.UNCHANGED, 0))
    context.meter.skipped(plan.chunks, plan.size)
    return True


def _with_digest(context: Context, plan: FilePlan) -> tuple[Remote | None, str | None]:
    target, call = context.target, context.retrier.call
    there = call(Step.FIND, plan.name, None, lambda: target.find(plan.name, plan.digest))
    if there is None and isinstance(target, Linker):
        there = call(Step.FIND, plan.name, None, lambda: target.link(plan))
    return there, plan.digest


def _compared(context: Context, source: Source, plan: FilePlan) -> tuple[Remote | None, str | None]:
    """The source is read only where the size is the same and the target can say what it has."""
    target, call = context.target, context.retrier.call
    there = call(Step.FIND, plan.name, None, lambda: target.find(plan.name))
    if there is None or there.size != plan.size:
        return None, None
    told = call(Step.FIND, plan.name, None, lambda: target.digest(there))
    if told is None or context.hashes.of_file(source.path, algorithm=told.partition(":")[0]) != told:
        return None, None
    return there, told


def _reading(context: Context, size: int) -> OnBytes:
    """Tells listeners now and then how far the reading of a large source is."""
    done, told = 0, time.monotonic()

    def read(count: int) -> None:
        nonlocal done, told
        context.reading(count)
        done += count
        now = time.monotonic()
        if size >= _WORTH_TELLING and (now - told >= _TOLD_EVERY or done == size):
            told = now
            context.recorder.tell(HashingProgress(context.job.id, done, size))

    return read
