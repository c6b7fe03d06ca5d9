"""The reserve stage: open files on the target, learn what it holds of them, reserve slots for the rest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ppcli import planner, steps
from ppcli.errors import Crowded, SessionLost
from ppcli.manifest import FileEntry
from ppcli.model import (
    ChunkState,
    FilePlan,
    Limits,
    Part,
    Remote,
    Session,
    Slot,
    Survey,
)
from ppcli.pipeline import adopting, digesting
from ppcli.pipeline.context import Context
from ppcli.pipeline.expiry import starting_over
from ppcli.pipeline.remaining import part_of, receipt_of, remaining
from ppcli.pipeline.work import FileRun, Ready, Unit
from ppcli.retry import Step
from ppcli.source import Source, settle
from ppcli.values import value


@dataclass(slots=True)
class Opening:
    """A file on its way to being open. `old` is the session of an earlier run."""

    index: int
    entry: FileEntry
    source: Source
    limits: Limits
    old: Session | None
    plan: FilePlan
    base: Remote | None


class Postponed(Exception):
    """The file was given back to the feed: it is opened once another has ended."""


class AlreadyThere(Exception):
    """The file was finished by somebody else, or before, and is recorded as done."""


@value(frozen=True, slots=True)
class Opened:
    """An open file: `parts` want slots, `units` have one. `unsaid`: its step, to be recorded with its first slot."""

    run: FileRun
    parts: Sequence[Part]
    units: Sequence[Unit]
    unsaid: steps.Opened | None

    @property
    def hashed(self) -> bool:
        """No separate reading for the digest: it is known, or the only chunk gives it on its way."""
        run = self.run
        return run.entry.digest is not None or len(run.receipts) == 1 or not run.limits.digest_wanted


class Opener:
    """Turns files into open `FileRun`s. Any reserve worker may call it, for different files."""

    def __init__(self, context: Context, immutable: bool, wanted_chunk_size: int | None) -> None:
        self._context = context
        self._immutable = immutable
        self._wanted = wanted_chunk_size
        self._foresight = digesting.Foresight(context)

    def prepare(self, index: int) -> Opening:
        """Look at the source, and plan it anew if it changed. Raises `SourceError` and `AlreadyThere`."""
        context, entry = self._context, self._context.job.manifest.files[index]
        source = Source(context.path(entry))
        try:
            context.learn(entry)
            self._foresight.look()
            limits = context.target.limits(source.fingerprint.size)
            base = (
                context.retrier.call(Step.FIND, entry.name, None, lambda: context.target.find(entry.name))
                if limits.adopts
                else None
            )
            limits = context.target.limits(source.fingerprint.size)  # the first call may have told what they are
            changed = not source.fingerprint.same(entry.fingerprint)
            if changed or not planner.fits(entry.size, entry.chunk_size, limits):
                self._replan(index, entry, source, limits)
            settle(source.fingerprint)
            if entry.recheck:
                self._compare(index, entry, source, limits)
            unasked = limits.digest_first and entry.digest is None
            if unasked:
                digesting.know(context, index, entry, source)
            old, plan = entry.session, self._plan(index, entry)
            asks = old is None and (unasked or context.resumed)
            if asks and digesting.there_already(context, index, source, plan, limits):
                raise AlreadyThere
            return Opening(index, entry, source, limits, old, plan, base)
        except BaseException:  # also a signal: nothing may stay held or half made
            source.close()
            raise

    def open(self, opening: Opening) -> Opened:
        """Create or reattach the session, and see what is left to do. Raises `Postponed` where it has to wait for
        another."""
        context, source, chunks = self._context, opening.source, opening.entry.chunks
        try:
            session, survey = self._session(opening)
            step = steps.Opened(opening.index, session)
            untouched = survey is None and len(chunks) == 1 and chunks[0].state is ChunkState.PLANNED
            # Its slot comes at once, unless all pause: then the session would be known to nobody for as long
            waits = untouched and not opening.limits.adopts and not context.retrier.pauses
            if not waits:
                context.recorder.post(step)
            run = self._run(opening, session)
            sums = context.hashes.take_chunks(source.path, source.fingerprint, opening.entry.chunk_size)
            parts, units = remaining(context, run, survey, sums)
        except BaseException:  # also a signal: nothing may stay held or half made
            source.close()
            raise
        return Opened(run, parts, units, step if waits else None)

    def reserve(self, run: FileRun, parts: Sequence[Part]) -> None:
        """Get slots for `parts`, or keep what the target has of them already. Once they are durable they go to the
        upload stage."""
        parts = adopting.adopt(self._context, run, parts)
        slots = self._slots(run, parts)
        self._hand_on(run, parts, slots, steps.Reserved(run.index, tuple([part.index for part in parts]), tuple(slots)))

    def reserve_first(self, opened: Opened) -> None:
        """As `reserve`, for a file whose step is `unsaid`."""
        run, parts, step = opened.run, opened.parts, opened.unsaid
        assert step is not None
        try:
            slots = self._slots(run, parts)
        except BaseException:  # also `Stopped`: whoever goes on must know of the session
            self._context.recorder.post(step)
            raise
        step = steps.Opened(step.file, step.session, tuple([part.index for part in parts]), tuple(slots))
        self._hand_on(run, parts, slots, step)

    def _slots(self, run: FileRun, parts: Sequence[Part]) -> Sequence[Slot]:
        context = self._context
        if not parts:
            return ()
        return context.retrier.call(
            Step.RESERVE, run.plan.name, parts[0].index, lambda: context.target.reserve(run.session, run.plan, parts)
        )

    def _hand_on(self, run: FileRun, parts: Sequence[Part], slots: Sequence[Slot], step: steps.Step) -> None:
        units = [Unit(run, part, slot) for part, slot in zip(parts, slots, strict=True)]
        self._context.feed.coming(len(units))
        self._context.recorder.post(step, Ready(run, units))

    def _plan(self, index: int, entry: FileEntry) -> FilePlan:
        assert entry.fingerprint is not None
        return FilePlan(
            job=self._context.job.id,
            key=index,
            name=entry.name,
            size=entry.size,
            modified=entry.fingerprint.mtime_ns / 10**9,
            chunk_size=entry.chunk_size,
            chunks=len(entry.chunks),
            digest=entry.digest,
            immutable=self._immutable,
            fresh=self._context.job.manifest.options.fresh,
        )

    def _replan(self, index: int, entry: FileEntry, source: Source, limits: Limits) -> None:
        """The source is not what the manifest says: another revision, another path, or it could not be read before."""
        context, size, chunk_size = self._context, source.fingerprint.size, entry.chunk_size
        if entry.fingerprint is None or not planner.fits(size, chunk_size, limits):
            chunk_size = planner.chunk_size(size, limits, self._wanted)
        if entry.fingerprint is not None and not source.fingerprint.same(entry.fingerprint):
            again = "only what differs is sent" if limits.replan else "it is sent again"
            context.warn("source_changed", f"{entry.path} changed since it was planned; {again}.")
        context.recorder.record(steps.Replanned(index, entry.path, source.fingerprint, chunk_size))

    def _compare(self, index: int, entry: FileEntry, source: Source, limits: Limits) -> None:
        """Reset every chunk whose bytes are not those of the present source. Where the target was told the digest of
        the whole, that one tells the revisions apart."""
        changed = (
            ()
            if limits.digest_first
            else tuple(
                chunk.index
                for chunk in entry.chunks
                if chunk.xxh3 is not None and source.checksum(part_of(chunk), self._context.reading) != chunk.xxh3
            )
        )
        post = self._context.recorder.post
        if changed and not limits.replan:
            if entry.session is not None:
                session, plan, target = entry.session, self._plan(index, entry), self._context.target
                self._context.retrier.call(
                    Step.ABORT, entry.name, None, lambda: target.abort(session, plan, entry.slots)
                )
            post(steps.Reset(index, None, "the source changed", session_lost=True))
        elif changed:
            post(steps.Reset(index, changed, "the source changed"))
        self._context.recorder.record(steps.Compared(index))

    def _session(self, opening: Opening) -> tuple[Session, Survey | None]:
        """A session, and what it holds when it is an old one. A lost one is replaced once, by a recorded reset."""
        context, target = self._context, self._context.target
        try:
            session = self._opened(opening)
            survey = None
            if opening.old is not None or session.taken_over:
                known = [receipt for chunk in opening.entry.chunks if (receipt := receipt_of(chunk)) is not None]
                survey = context.retrier.call(
                    Step.SURVEY, opening.entry.name, None, lambda: target.survey(session, opening.plan, known)
                )
                if survey.expires_at is not None:
                    session = replace(session, expires_at=survey.expires_at)
        except SessionLost as lost:
            if opening.old is None:
                raise
            context.discard(opening.old, opening.plan, opening.entry)
            if digesting.there_already(context, opening.index, opening.source, opening.plan, opening.limits):
                raise AlreadyThere from lost  # by whoever ended it
            there = sum(c.size for c in opening.entry.chunks if c.state is ChunkState.CONFIRMED)
            context.warn("session_lost", starting_over(opening.entry.name, lost, there))
            context.recorder.record(steps.Reset(opening.index, None, lost.cause, session_lost=True))
            opening.old, survey = None, None
            session = self._opened(opening)
        return session, survey

    def _opened(self, opening: Opening) -> Session:
        """Where the target is crowded, a file waits for those that are open here; where none is, it tries again."""
        context = self._context

        def attempt() -> Session:
            try:
                return context.target.open(opening.plan, opening.old, opening.base)
            except Crowded as crowded:
                if context.feed.crowded(opening.index):
                    raise Postponed from crowded
                raise

        return context.retrier.call(Step.OPEN, opening.entry.name, None, attempt)

    def _run(self, opening: Opening, session: Session) -> FileRun:
        return FileRun(
            index=opening.index,
            entry=opening.entry,
            plan=opening.plan,
            limits=replace(opening.limits, sends=1) if session.in_order else opening.limits,
            source=opening.source,
            session=session,
            base=opening.base,
            receipts=[None] * len(opening.entry.chunks),
            left=len(opening.entry.chunks),
            resumed=False,
            opened=time.time() if opening.old is None else None,
            sent=self._context.sent_before.get(opening.index, 0),
        )
