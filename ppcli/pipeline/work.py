"""What a run is made of: open files, chunks with their slots, and the pieces of work that the feed hands out."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ppcli.errors import SessionLost
from ppcli.manifest import FileEntry
from ppcli.model import FilePlan, Limits, Part, Receipt, Remote, Session, Slot
from ppcli.pipeline.begun import Begun
from ppcli.source import Digests, Source
from ppcli.values import value

_SMALL = 1 << 16


@dataclass(slots=True, eq=False)
class FileRun:
    """One open file of a run. `left` counts what is missing before it can be completed: chunks that are not confirmed,
    and its digest. `sent` counts bytes that went out, `copied` chunks that were adopted, `users` the workers that have
    it in hand, `wanting` the chunks that senders may still take. The feed's lock guards `left`, `users`, `active`,
    `wanting` and `dead`. `skipped` (chunks, bytes) were there before this run. `lost` says why its session is gone,
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
    wanting: int = 0
    skipped: tuple[int, int] = (0, 0)
    dead: bool = False
    lost: SessionLost | None = None
    again: bool = False
    opened: float | None = None

    @property
    def digest_on_the_way(self) -> bool:
        """The only chunk gives the file's digest while it is sent, where that is not known before."""
        return len(self.receipts) == 1 and self.plan.digest is None


@value(frozen=True, slots=True)
class Unit:
    """A chunk with its slot. With a `receipt` it was sent by an earlier run and only has to be confirmed."""

    run: FileRun
    part: Part
    slot: Slot
    receipt: Receipt | None = None

    @property
    def small(self) -> bool:
        """It is one request to be made, which goes out without a question and without waiting."""
        run, wanted = self.run, self.receipt is None and self.part.size <= _SMALL
        return wanted and run.session.whole and not (run.dead or run.plan.immutable or run.limits.keeps_starts)


@value(frozen=True, slots=True)
class Burst:
    """Small chunks that one worker sends, before it waits for the first reply."""

    units: Sequence[Unit]


@value(frozen=True, slots=True)
class Late:
    """A chunk of a burst that was not sent in it, failed, or has no reply yet. It has its place, and a user of its
    file."""

    unit: Unit
    begun: Begun | None

    @property
    def run(self) -> FileRun:
        return self.unit.run


@value(frozen=True, slots=True)
class UnderWay:
    """What was sent before a stop: the last thing to be done."""

    sent: Mapping[Begun, Unit]


@value(frozen=True, slots=True)
class OpenFiles:
    files: tuple[int, ...]


@value(frozen=True, slots=True)
class ReserveParts:
    run: FileRun
    parts: tuple[Part, ...]


@value(frozen=True, slots=True)
class Finish:
    run: FileRun


@value(frozen=True, slots=True)
class Complete:
    """A file whose completion is intended, durably. `doubtful`: an earlier run may have completed it."""

    run: FileRun
    receipts: Sequence[Receipt]
    digest: str | None
    doubtful: bool


@value(frozen=True, slots=True)
class Ready:
    """Chunks whose slots are held, durably."""

    run: FileRun
    units: Sequence[Unit]


ReserveWork: TypeAlias = OpenFiles | ReserveParts
SendWork: TypeAlias = Unit | Finish | Complete | Late
Work: TypeAlias = ReserveWork | SendWork | Burst | UnderWay
Settled: TypeAlias = Ready | Unit | Complete
"""What is handed back once its step is durable: chunks that may be sent, one that is confirmed, a file that may be
completed."""
