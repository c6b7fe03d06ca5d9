"""What to do next: hands out the work of a run, and knows when there is none left. No I/O, no calls.

Two bounded stages. The reserve stage opens files and reserves slots, and stays at most `ahead` chunks before the upload
stage, which sends and confirms chunks and completes files. Beside them, one reader computes whole-file digests.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from ppcli.errors import SessionLost
from ppcli.manifest import FileEntry
from ppcli.model import FilePlan, Limits, Part, Receipt, Remote, Session, Slot
from ppcli.source import Digests, Source

_OPEN_AT_ONCE = 64
_FILES_A_BATCH = 16
_PARTS_A_BATCH = 64


@dataclass(slots=True, eq=False)
class FileRun:
    """One open file of a run. `left` counts what is missing before it can be completed: chunks that are not confirmed,
    and its digest. `sent` counts bytes that went out, `copied` chunks that were adopted, `users` the workers that have
    it in hand. The feed's lock guards `left`, `users`, `active` and `dead`. `lost` says why its session is gone,
    `again` that it gets another; `opened` is when it was asked for (seconds since the epoch), None for that of an
    earlier run. `offers` are slots of chunks that were found in the session and are not proved yet."""

    index: int
    entry: FileEntry
    plan: FilePlan
    limits: Limits
    source: Source
    session: Session
    base: Remote | None
    receipts: list[Receipt | None]
    left: int
    resumed: bool
    parts: deque[Part] = field(default_factory=deque)
    backlog: deque[Unit] = field(default_factory=deque)
    digests: Digests | None = None
    offers: Mapping[int, Slot] = field(default_factory=dict)
    sent: int = 0
    copied: int = 0
    users: int = 0
    active: int = 0
    dead: bool = False
    lost: SessionLost | None = None
    again: bool = False
    opened: float | None = None

    @property
    def digest_on_the_way(self) -> bool:
        """The only chunk gives the file's digest while it is sent, where that is not known before."""
        return len(self.receipts) == 1 and self.plan.digest is None

    def with_digest(self, digest: str | None) -> FilePlan:
        """The plan, now that the digest of what was sent is known."""
        return replace(self.plan, digest=digest)


@dataclass(frozen=True, slots=True)
class Unit:
    """A chunk with its slot. With a `receipt` it was sent by an earlier run and only has to be confirmed."""

    run: FileRun
    part: Part
    slot: Slot
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class OpenFiles:
    files: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReserveParts:
    run: FileRun
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Finish:
    run: FileRun


ReserveWork: TypeAlias = OpenFiles | ReserveParts
SendWork: TypeAlias = Unit | Finish


class Feed:
    """Shared by all workers of a run. The `take_*` calls block; they give None once nothing is left or after `stop`.
    What was taken of a file is given back with `release`."""

    def __init__(self, files: Iterable[int], jobs: int, reserve_jobs: int) -> None:
        self._pending = deque(files)
        self._reserve_jobs = reserve_jobs
        self._ahead = max(4, 2 * jobs)
        self._open = 0
        self._runs: dict[int, FileRun] = {}
        self._unreserved: deque[FileRun] = deque()
        self._ready: deque[SendWork] = deque()
        self._unhashed: deque[FileRun] = deque()
        self._stopped = False
        lock = threading.Lock()
        self._reservers = threading.Condition(lock)
        self._senders = threading.Condition(lock)
        self._hashers = threading.Condition(lock)

    def take_reserve(self) -> ReserveWork | None:
        """Work for the reserve stage: slots for an open file first, then files to open."""
        with self._reservers:
            while not self._over():
                while self._unreserved and self._unreserved[0].dead:
                    self._unreserved.popleft()
                if len(self._ready) < self._ahead:
                    if self._unreserved:
                        return self._some_parts()
                    if self._pending and self._open < _OPEN_AT_ONCE:
                        return self._some_files()
                self._reservers.wait()
            return None

    def take_send(self) -> SendWork | None:
        """Work for the upload stage."""
        with self._senders:
            while not self._over():
                while self._ready:
                    work = self._ready.popleft()
                    if len(self._ready) < self._ahead:
                        self._reservers.notify()
                    if not work.run.dead:
                        work.run.users += 1
                        return work
                self._senders.wait()
            return None

    def take_hash(self) -> FileRun | None:
        """A file whose digest is wanted."""
        with self._hashers:
            while not self._over():
                while self._unhashed:
                    run = self._unhashed.popleft()
                    if not run.dead:
                        run.users += 1
                        return run
                self._hashers.wait()
            return None

    def opened(self, run: FileRun, parts: Sequence[Part], units: Sequence[Unit], *, hashed: bool) -> None:
        """A file is open: `parts` want slots, `units` have one, its digest is wanted unless `hashed`."""
        with self._senders:
            self._runs[run.index] = run
            run.left += 0 if hashed else 1
            run.parts.extend(parts)
            if parts:
                self._unreserved.append(run)
                self._reservers.notify()
            if not hashed:
                self._unhashed.append(run)
                self._hashers.notify()
            self._enqueue(run, units)
            if run.left == 0:
                self._finish(run)

    def reserved(self, run: FileRun, units: Sequence[Unit]) -> None:
        with self._senders:
            self._enqueue(run, units)

    def hashed(self, run: FileRun) -> None:
        """The digest that was wanted is there."""
        with self._senders:
            self._advance(run, 1)

    def adopted(self, run: FileRun, copied: int, kept: int) -> None:
        """So many chunks are confirmed without being sent: copied from the version that is there, or kept as they were
        found in the session."""
        with self._senders:
            run.copied += copied
            self._advance(run, copied + kept)

    def use(self, run: FileRun) -> None:
        """Have a file in hand without taking work of it; `release` gives it back."""
        with self._senders:
            run.users += 1

    def confirmed(self, run: FileRun) -> bool:
        """A chunk that was taken is confirmed; a file with few sends at once lets the next one go. True when it was the
        last thing that was `left`: then the caller finishes the file."""
        with self._senders:
            run.active -= 1
            self._enqueue(run, ())
            run.left -= 1
            return run.left == 0 and not run.dead

    def drop(self, run: FileRun) -> bool:
        """Hand out nothing more of this file. False when that was so already."""
        with self._senders:
            if run.dead:
                return False
            run.dead = True
            run.parts.clear()
            run.backlog.clear()
            return True

    def release(self, run: FileRun) -> bool:
        """Give back what was taken. True for the last user of a dead file, who ends it with `ended`."""
        with self._senders:
            run.users -= 1
            return run.dead and run.users == 0

    def ended(self, index: int, *, again: bool) -> None:
        """A file is closed. With `again` it is opened anew, before all others."""
        with self._senders:
            self._open -= 1
            self._runs.pop(index, None)
            if again:
                self._pending.appendleft(index)
            if self._over():
                self._wake_all()
            else:
                self._reservers.notify()

    def open_runs(self) -> list[FileRun]:
        """Files that were opened and did not end: after a stop, when all workers have left, they are to be closed."""
        with self._senders:
            return list(self._runs.values())

    def stop(self) -> None:
        """Hand out nothing more at all."""
        with self._senders:
            self._stopped = True
            self._wake_all()

    def _over(self) -> bool:
        return self._stopped or not (self._pending or self._open)

    def _wake_all(self) -> None:
        for waiting in (self._reservers, self._senders, self._hashers):
            waiting.notify_all()

    def _some_files(self) -> OpenFiles:
        fair = len(self._pending) // (2 * self._reserve_jobs)
        count = max(1, min(_FILES_A_BATCH, fair, _OPEN_AT_ONCE - self._open))
        files = tuple(self._pending.popleft() for _ in range(min(count, len(self._pending))))
        self._open += len(files)
        return OpenFiles(files)

    def _some_parts(self) -> ReserveParts:
        run = self._unreserved.popleft()
        # A file that is sent strictly in order gets its slots in order as well: one batch.
        count = len(run.parts) if run.limits.sends == 1 else min(_PARTS_A_BATCH, self._ahead, len(run.parts))
        parts = tuple(run.parts.popleft() for _ in range(count))
        if run.parts:
            self._unreserved.append(run)
            self._reservers.notify()
        run.users += 1
        return ReserveParts(run, parts)

    def _enqueue(self, run: FileRun, units: Sequence[Unit]) -> None:
        if run.dead:
            return
        if run.limits.sends is None:
            self._ready.extend(units)
        else:
            run.backlog.extend(units)
            while run.backlog and run.active < run.limits.sends:
                run.active += 1
                self._ready.append(run.backlog.popleft())
        self._senders.notify(len(self._ready))

    def _advance(self, run: FileRun, steps: int) -> None:
        """After the last thing that was `left`, the file is finished."""
        run.left -= steps
        if steps and run.left == 0 and not run.dead:
            self._finish(run)

    def _finish(self, run: FileRun) -> None:
        self._ready.appendleft(Finish(run))
        self._senders.notify()
