"""The upload stage: send a chunk, confirm it, and complete a file after its last one."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from ppcli import steps
from ppcli.bodies import ChunkBody
from ppcli.errors import Damaged, Doubt, Integrity, SourceError
from ppcli.model import Action, Part, Receipt, Remote
from ppcli.pieces import ALONE
from ppcli.pipeline.begun import Begun
from ppcli.pipeline.context import Context
from ppcli.pipeline.work import Complete, FileRun, Unit
from ppcli.retry import Step
from ppcli.source import Digests, Source, fingerprint
from ppcli.target import Split


class Sender:
    """Any upload worker may call it, for different chunks."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._split = cast(Split, context.target)

    def begin(self, unit: Unit) -> Begun | None:
        """Send a small chunk, and leave its reply to `deliver`. None while all pause, and after a stop. For
        a target that is `Split`."""
        context, run = self._context, unit.run
        if context.halt.requested or context.retrier.pauses:
            return None
        split, part, slot = self._split, unit.part, unit.slot
        return Begun(context.body(run, part), lambda body: split.uploading(run.session, run.plan, part, slot, body))

    def deliver(self, unit: Unit, begun: Begun | None = None) -> None:
        """Take one chunk from reserved to confirmed, and finish its file when it was the last. It keeps its place until
        the confirmation is durable."""
        context, run, part = self._context, unit.run, unit.part
        try:
            receipt = self._proved(unit, begun)
        except BaseException:  # also `Stopped`: a place that is not given back is one worker less
            context.feed.settled((unit,))
            raise
        assert receipt.evidence is not None
        if unit.receipt is not None:  # an earlier run sent it, and only its confirmation was missing
            run.resumed = True
            context.skip(run, part.size)
        run.receipts[part.index] = receipt
        context.recorder.post(
            steps.Confirmed(run.index, part.index, receipt.slot, receipt.checksum, receipt.etag, receipt.evidence), unit
        )
        if context.feed.confirmed(run):
            self.finish(run)  # its step comes after this one

    def _proved(self, unit: Unit, begun: Begun | None) -> Receipt:
        """Send and confirm a chunk. What the target mangles is sent again, within the retries; then it is
        `Integrity`."""
        context, run, part = self._context, unit.run, unit.part
        receipt, attempt = unit.receipt, 0
        while True:
            attempt += 1
            try:
                return self._confirmed(unit, receipt, begun)
            except Damaged as damaged:
                if context.retrier.exhausted(attempt):
                    raise Integrity(
                        f"Chunk {part.index} of {run.entry.name} arrived damaged {attempt} times: {damaged.cause}.",
                        hint="Check the target's disk or the network path, then run 'ppcli resume'.",
                        reason="damaged",
                    ) from damaged
                receipt = begun = None
                unit = self._again(unit, damaged, attempt)

    def _confirmed(self, unit: Unit, receipt: Receipt | None, begun: Begun | None) -> Receipt:
        context, run, part, target = self._context, unit.run, unit.part, self._context.target
        if receipt is None:
            body, receipt = self._sent(unit, begun)
            if run.digest_on_the_way:
                run.digests = Digests(body.whole, [receipt.checksum])
            context.meter.chunk_sent()
            if receipt.evidence is not None:  # the reply was the proof
                return receipt
            context.recorder.post(steps.Uploaded(run.index, part.index, receipt.checksum, receipt.etag))
        sent = receipt
        return context.retrier.call(
            Step.CONFIRM, run.plan.name, part.index, lambda: target.confirm(run.session, run.plan, sent)
        )

    def _sent(self, unit: Unit, begun: Begun | None) -> tuple[ChunkBody, Receipt]:
        """The chunk's bytes, and the receipt for them. What was begun is the first attempt; where it succeeded, nothing
        is waited for."""
        context, run, slot, target = self._context, unit.run, unit.slot, self._context.target
        if begun:
            begun.wait()
            if begun.succeeded:
                return begun.body, begun.outcome()
        part = self._hashed(run, unit.part)
        self._check_before_the_end(run, part)
        body, under_way = begun.body if begun else context.body(run, part), [begun] if begun else []

        def attempt() -> Receipt:
            if under_way:
                return under_way.pop().outcome()
            return target.upload(run.session, run.plan, part, slot, body)

        return body, context.retrier.call(Step.UPLOAD, run.plan.name, part.index, attempt)

    def _hashed(self, run: FileRun, part: Part) -> Part:
        """The part with its checksum, durable before the first byte goes where the target keeps starts of chunks."""
        if not run.limits.keeps_starts or part.checksum is not None:
            return part
        checksum = run.source.checksum(part, self._context.reading)
        self._context.recorder.record(steps.Hashed(run.index, part.index, checksum))
        return replace(part, checksum=checksum)

    def _check_before_the_end(self, run: FileRun, part: Part) -> None:
        """Where the last bytes make the file visible, those before them must be of the same revision."""
        if not run.session.in_order or part.index + 1 < len(run.receipts):
            return
        if not fingerprint(run.source.path).same(run.entry.fingerprint):
            self._one_revision(run, [receipt for receipt in run.receipts if receipt is not None])

    def _again(self, unit: Unit, damaged: Damaged, attempt: int) -> Unit:
        """Record that a damaged chunk starts over, and get it a slot."""
        context, run, part = self._context, unit.run, unit.part
        context.recorder.post(steps.Reset(run.index, (part.index,), damaged.cause))
        context.retrier.pause(Step.CONFIRM, run.entry.name, part.index, attempt, damaged)
        (slot,) = context.retrier.call(
            Step.RESERVE, run.plan.name, part.index, lambda: context.target.reserve(run.session, run.plan, (part,))
        )
        context.recorder.record(steps.Reserved(run.index, (part.index,), (slot,)))
        return Unit(run, replace(part, checksum=None) if run.limits.keeps_starts else part, slot)

    def digest(self, run: FileRun) -> None:
        """Compute the digest of a file of several chunks, beside its upload."""
        run.digests = run.source.digests(run.plan.chunk_size, self._context.reading, ALONE)
        self._context.feed.hashed(run)

    def finish(self, run: FileRun) -> None:
        """All chunks are confirmed: check that they are one revision of the source, and intend to complete the file. A
        single request is completed at once."""
        context, entry = self._context, run.entry
        receipts = [receipt for receipt in run.receipts if receipt is not None]
        digest = self._one_revision(run, receipts)
        if digest is not None and entry.fingerprint is not None:
            context.hashes.record(run.source.path, entry.fingerprint, digest)
        step, work = steps.Completing(run.index, digest), Complete(run, receipts, digest, doubtful=entry.completing)
        if run.session.whole:  # there is no call that a kill could come after
            context.recorder.post(step)
            self.complete(work)
        else:
            context.recorder.post(step, work)

    def complete(self, work: Complete) -> None:
        """Make a file visible."""
        context, run = self._context, work.run
        remote = self._complete(work)
        action = Action.RESUMED if run.resumed else Action.SENT
        if run.copied == len(work.receipts):
            action = Action.COPIED
        told = work.digest or remote.digest
        if work.digest is None and told is not None and run.entry.fingerprint is not None:
            context.hashes.record(run.source.path, run.entry.fingerprint, told)
        context.recorder.post(steps.Completed(run.index, remote.location, told, action, run.sent))
        context.feed.drop(run)

    def _complete(self, work: Complete) -> Remote:
        context, run, plan = self._context, work.run, work.run.plan.with_digest(work.digest)
        if run.session.whole:  # it asks nobody, so it waits for no pause either
            return context.target.complete(run.session, plan, work.receipts, doubtful=work.doubtful)
        unsure = [work.doubtful]

        def attempt() -> Remote:
            try:
                return context.target.complete(run.session, plan, work.receipts, doubtful=unsure[0])
            except Doubt:
                unsure[0] = True
                raise

        return context.retrier.call(Step.COMPLETE, run.plan.name, None, attempt)

    def _one_revision(self, run: FileRun, receipts: list[Receipt]) -> str | None:
        """The file's digest. A source whose fingerprint moved is read again: the same bytes go on. Raises
        `SourceError` (`changed`) when what was sent is not one revision."""
        context, path = self._context, run.source.path
        now = fingerprint(path)
        if not now.same(run.entry.fingerprint):
            with Source(path) as again:
                run.digests = again.digests(run.plan.chunk_size, context.reading)
        if run.digests is None and (run.entry.digest is not None or not run.limits.digest_wanted):
            return run.entry.digest
        if run.digests is None:
            run.digests = run.source.digests(run.plan.chunk_size, context.reading)
        pairs = zip(receipts, run.digests.chunks, strict=False)
        wrong = [receipt.index for receipt, now_there in pairs if receipt.checksum != now_there]
        if wrong or len(run.digests.chunks) != len(run.receipts):
            context.recorder.post(steps.Reset(run.index, tuple(wrong), "the source changed while it was sent"))
            raise SourceError(
                f"{run.entry.path} changed while it was sent.",
                hint=f"Run the same command again: {'only what changed' if run.limits.replan else 'the file'} is sent.",
                reason="changed",
            )
        return run.digests.whole
