"""A run of one job: workers, one digest reader, and one recorder, a thread each.

    workers, reserve stage   open files, reserve slots     \\
    workers, upload stage    send, confirm, complete        > post steps -> recorder -> journal, manifest, listener
    digest reader            whole-file SHA-256            /

Any worker does the work of either stage; the feed bounds how many are in each. The main thread starts workers as the
ramp asks for them, watches for a stop, and never touches the manifest until the recorder has ended. The first halting
failure stops the run; failures that end one file leave the others alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from ppcli import steps
from ppcli.errors import Interrupted, Loss, PpcliError, Recut, SessionLost
from ppcli.events import Event, Listener, Stopping, UploadProgress
from ppcli.halt import Halt, Stopped
from ppcli.hashing import Hashes
from ppcli.jobs import Job
from ppcli.pipeline.begun import Begun, in_order_of_reply, replies_first
from ppcli.pipeline.context import Context, as_told, failure, retrying
from ppcli.pipeline.expiry import Forecast, forgotten, lost_again, starting_over
from ppcli.pipeline.feed import Feed
from ppcli.pipeline.meter import Meter, Pace, Ramp
from ppcli.pipeline.opening import AlreadyThere, Opened, Opener, Opening, Postponed
from ppcli.pipeline.recorder import Recorder
from ppcli.pipeline.sending import Sender
from ppcli.pipeline.threads import Threads
from ppcli.pipeline.work import Burst, Complete, FileRun, Finish, Late, OpenFiles, ReserveParts, UnderWay, Unit, Work
from ppcli.retry import Gate, Retrier
from ppcli.target import Split, Target

P = ParamSpec("P")
T = TypeVar("T")

GRACE = 5.0
"""Seconds that chunks in flight get after a stop was requested."""
_LEAVE = 1.0
_MOMENT = 0.2
"""Seconds that a stop may take without a word."""
_POLL = 0.05
_CHUNK_WEIGHT = 1 << 16
_BURST = 32
"""Small chunks that one worker sends at a time."""
_PATIENCE = 0.25
"""Seconds without a reply to any of them, after which each is waited for by itself."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `error` is what halted it; failures of single files are in the manifest."""

    meter: Meter
    error: PpcliError | None


def run(
    job: Job,
    target: Target,
    files: Iterable[int],
    listener: Listener,
    halt: Halt,
    hashes: Hashes,
    *,
    resumed: bool = False,
) -> Outcome:
    """Bring `files` (positions in the manifest) of a job that this process holds to `target`. Returns when all of them
    ended or the run was halted; every step is durable then, and the manifest is the caller's again. `resumed`: an
    earlier run planned them."""
    return _Pipeline(job, target, files, listener, halt, hashes, resumed).run()


class _Pipeline:
    def __init__(
        self,
        job: Job,
        target: Target,
        files: Iterable[int],
        listener: Listener,
        halt: Halt,
        hashes: Hashes,
        resumed: bool,
    ) -> None:
        options = job.manifest.options
        self._job = job
        self._halt = halt
        self._meter = Meter()
        self._shown: tuple[int, int, float] | None = None
        entries = job.manifest.files
        self._feed = Feed(
            files,
            options.jobs,
            lambda index: len(entries[index].chunks),
            lambda: self._recorder.hurry(),  # noqa: PLW0108 -- made below
            burst=_BURST if isinstance(target, Split) and target.splits else 1,
        )
        self._recorder = Recorder(job, listener, halt, self._progress, self._feed.settled)
        retrier = Retrier(options.retries, Gate(), halt, lambda attempt: self._recorder.tell(retrying(job.id, attempt)))
        pace = Pace(options.limit_rate, options.jobs)
        self._context = Context(
            job, target, self._recorder, self._feed, retrier, halt, self._meter, pace, hashes, resumed
        )
        self._opener = Opener(self._context, options.immutable, options.chunk_size)
        self._sender = Sender(self._context)
        self._threads = Threads()
        self._forecast = Forecast(time.time())

    def run(self) -> Outcome:
        self._recorder.start()
        self._threads.start(self._hash_files)
        options = self._job.manifest.options
        ramp, workers, poll = Ramp(self._context.pace.workers), 0, 0.001
        while True:
            senders = ramp.update(time.monotonic(), self._meter.bytes_sent + _CHUNK_WEIGHT * self._meter.chunks_sent)
            openers = min(senders, options.reserve_jobs)
            self._feed.allow(senders, openers)
            while workers < senders + openers:
                self._threads.start(self._work)
                workers += 1
            poll = min(_POLL, 2 * poll)
            self._foresee()
            if self._halt.wait(poll) or self._threads.left():
                break
        self._feed.stop()
        self._leave()
        self._recorder.stop()
        if self._threads.left():
            for run in self._feed.open_runs():
                run.source.close()
        return Outcome(self._meter, self._halt.error)

    def _foresee(self) -> None:
        """Will any session end too early?"""
        if self._forecast.due(now := time.time()):
            for said in self._forecast.warnings(self._feed.open_runs(), self._meter, now):
                self._context.warn("session_expires", said)

    def _leave(self) -> None:
        """Wait for the workers: GRACE seconds for calls in flight, then they end at their next piece of data."""
        begun, error = time.monotonic(), self._halt.error
        if not self._threads.left(begun + _MOMENT) and isinstance(error, Interrupted):
            self._recorder.tell(Stopping(self._job.id, error.exit_code, GRACE))
        self._threads.left(begun + GRACE)
        self._halt.abandon()
        self._threads.left(begun + GRACE + _LEAVE)

    def _progress(self) -> Event | None:
        """Where nothing moves any more, until the rate says so."""
        totals, sent, rate = self._job.manifest.totals, self._meter.bytes_sent, round(self._meter.rate(), 1)
        shown = (sent, totals.bytes_confirmed, rate)
        if shown == self._shown:
            return None
        self._shown = shown
        return UploadProgress(self._job.id, sent, totals.bytes_confirmed, totals.bytes_total, rate)

    def _work(self) -> None:
        """What a worker does, for as long as there is anything to do."""
        work: Work | None = None
        while (work := self._feed.take(work)) is not None:
            if isinstance(work, Burst):
                self._send_burst(work.units)
            elif isinstance(work, UnderWay):
                for one in replies_first(list(work.sent), GRACE):
                    self._guard(work.sent[one].run, self._sender.deliver, work.sent[one], one)
            elif isinstance(work, Late):
                self._guard(work.run, self._sender.deliver, work.unit, work.begun)
            elif isinstance(work, Unit):
                self._guard(work.run, self._sender.deliver, work)
            elif isinstance(work, Complete):
                self._guard(work.run, self._sender.complete, work)
            elif isinstance(work, ReserveParts):
                self._guard(work.run, self._opener.reserve, work.run, work.parts)
                self._recorder.hurry()
            elif isinstance(work, Finish):
                self._guard(work.run, self._sender.finish, work.run)
            else:
                self._open_files(work)

    def _send_burst(self, units: Sequence[Unit]) -> None:
        """Send all of them before the first reply is waited for. Those that are not there soon, or failed, are left to
        whoever is free: nobody else waits with them."""
        begun: dict[Begun, Unit] = {}
        for unit in units:
            if (one := self._sender.begin(unit)) is None:
                break
            begun[one] = unit
            if one.failed:  # as the next may: there may be no way to the server, which takes long to find out
                break
        unsent = [Late(unit, None) for unit in units[len(begun) :]]
        for one in in_order_of_reply(list(begun), _PATIENCE):
            if one.succeeded:
                unit = begun.pop(one)
                self._guard(unit.run, self._sender.deliver, unit, one)
        self._feed.late([*unsent, *(Late(unit, one) for one, unit in begun.items())])

    def _hash_files(self) -> None:
        while (run := self._feed.take_hash()) is not None:
            self._guard(run, self._sender.digest, run)

    def _open_files(self, work: OpenFiles) -> None:
        """Open a batch of files: their intents become durable together."""
        prepare = self._opener.prepare
        openings = [one for index in work.files if (one := self._unopened(index, prepare, index)) is not None]
        if self._intended(openings):
            for opening in openings:
                if (opened := self._unopened(opening.index, self._opener.open, opening)) is not None:
                    self._hand_over(opened)
        else:
            for opening in openings:
                opening.source.close()
        self._recorder.hurry()

    def _intended(self, openings: Sequence[Opening]) -> bool:
        """Where opening leaves something on the target, the intents are made durable first; and those of files that
        had failed, which they have not any more. False: the run stops."""
        told = [one.index for one in openings if one.limits.open_leaves_trace or one.entry.failure is not None]
        try:
            if told:
                self._recorder.record(steps.Opening(tuple(told)))
        except Stopped:
            return False
        return not self._halt.requested

    def _hand_over(self, opened: Opened) -> None:
        """Give an open file to the feed. One that wants a single slot gets it right away."""
        run, parts = opened.run, opened.parts
        if len(parts) != 1:
            self._feed.opened(run, parts, opened.units, hashed=opened.hashed)
            return
        self._feed.use(run)
        self._feed.opened(run, (), opened.units, hashed=opened.hashed)
        if opened.unsaid is not None:
            self._guard(run, self._opener.reserve_first, opened)
        else:
            self._guard(run, self._opener.reserve, run, parts)

    def _unopened(self, index: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Do one piece of work on a file that has no run yet; what goes wrong ends the file, or halts the run."""
        try:
            return work(*args, **kwargs)
        except (Stopped, Postponed):
            pass
        except AlreadyThere:
            self._feed.ended(index, again=False)
        except Recut:
            self._feed.ended(index, again=True)
        except SessionLost as lost:  # one that was taken over, and ended by whoever began it
            if not (again := self._context.reopens(index)):
                self._fail(index, forgotten(self._job.manifest.files[index].name, lost))
            self._feed.ended(index, again=again)
        except Exception as error:  # a worker must not die silently: everything else becomes the run's error
            self._fail(index, as_told(error))
            self._feed.ended(index, again=False)
        return None

    def _guard(self, run: FileRun, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Do one piece of work on an open file; what goes wrong ends that file, or halts the run."""
        try:
            work(*args, **kwargs)
        except Stopped:
            pass
        except SessionLost as lost:
            self._lose(run, lost)
        except Exception as error:  # a worker must not die silently: everything else becomes the run's error
            if self._feed.drop(run):
                self._fail(run.index, as_told(error))
        finally:
            if self._feed.release(run):
                self._end(run)

    def _fail(self, index: int, error: PpcliError) -> None:
        if error.ends_file:
            self._recorder.post(steps.Failed(index, failure(error)))
        if not error.ends_file or self._job.manifest.options.fail_fast:
            self._halt.request(error)

    def _lose(self, run: FileRun, lost: SessionLost) -> None:
        """The session is gone, or behind: once, the file is opened anew; the second time it has failed."""
        if not self._feed.drop(run):
            return
        run.lost, run.again = lost, self._context.reopens(run.index)
        if not run.again:
            self._fail(run.index, lost_again(run, lost))

    def _end(self, run: FileRun) -> None:
        """The last worker has left a file: a lost session is given up, and perhaps replaced."""
        run.source.close()
        try:
            if run.lost is not None:
                self._give_up(run, run.lost)
        except Stopped:
            pass
        except Exception as error:  # a worker must not die silently, nor a file stay open for ever
            self._halt.request(as_told(error))
        self._feed.ended(run.index, again=run.again)

    def _give_up(self, run: FileRun, lost: SessionLost) -> None:
        """Forget a session, durably: whoever opens the file next must not find it in the manifest. One that is only
        behind is kept, and must be found there."""
        context = self._context
        if lost.loss is Loss.BEHIND:
            self._recorder.flush()
        else:
            context.discard(run.session, run.plan, run.entry)
            if lost.loss is Loss.POISONED and run.limits.digest_first:  # or the digest was wrong: read it again
                context.hashes.forget(run.source.path)
                seen = run.source.fingerprint
                self._recorder.post(steps.Replanned(run.index, run.entry.path, seen, run.plan.chunk_size))
            self._meter.skipped(-run.skipped[0], -run.skipped[1])
            self._recorder.record(steps.Reset(run.index, None, lost.cause, session_lost=True))
        if run.again:
            there = sum(receipt.size for receipt in run.receipts if receipt is not None)
            code = "session_behind" if lost.loss is Loss.BEHIND else "session_lost"
            context.warn(code, starting_over(run.entry.name, lost, there))
            context.sent_before[run.index] = run.sent
