"""What to do next: hands out the work of a run, and knows when there is none left. No I/O, no calls.

Two bounded stages. The reserve stage opens files and reserves slots, and stays at most `ahead` chunks before the upload
stage, which sends and confirms chunks and completes files. Any worker does the work of either. Beside them, one reader
computes whole-file digests.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from ppcli.model import Part
from ppcli.pipeline.crew import Crew
from ppcli.pipeline.ready import ReadyQueue
from ppcli.pipeline.room import Room
from ppcli.pipeline.work import Burst, FileRun, Finish, Late, OpenFiles, Ready, ReserveParts, Settled, Unit, Work

_FILES_A_BATCH = 20
_PARTS_A_BATCH = 64
_A_SENDER = 4
"""Chunks in a burst at most for each worker that the upload stage may have."""


class Feed:
    """Shared by all workers of a run. The `take` calls block; they give None once nothing is left or after `stop`.
    What was taken of a file is given back with `release`.

    There are as many places as `jobs`: a chunk has one from when it is taken until its confirmation is durable, so no
    more than `jobs` chunks are ever in flight, however many of them a quick worker has sent meanwhile."""

    def __init__(
        self,
        files: Iterable[int],
        jobs: int,
        chunks: Callable[[int], int],
        hurry: Callable[[], None],
        burst: int = 1,
    ) -> None:
        """`chunks` tells how many a file is planned to have; `hurry` is that of `Crew`; a worker gets up to `burst`
        small chunks at a time."""
        self._most_at_once = burst
        self._pending = deque(files)
        self._chunks = chunks
        self._opening: dict[int, int] = {}
        self._wanting = 0
        self._senders = self._reservers = 1
        self._sending = self._reserving = 0
        self._ahead = max(4, 2 * jobs)
        self._coming = 0
        self._room = Room()
        self._runs: dict[int, FileRun] = {}
        self._unreserved: deque[FileRun] = deque()
        self._ready = ReadyQueue(jobs, self._took)
        self._unhashed: deque[FileRun] = deque()
        self._stopped = False
        self._lock = threading.Lock()
        self._crew = Crew(self._lock, lambda: self._may_send() or self._may_reserve(), hurry)
        self._hashers = threading.Condition(self._lock)

    def take(self, last: Work | None) -> Work | None:
        """The next piece of work for a worker; `last` is what it had before, None for a new one. What is near its end
        comes first: files to complete, then chunks to send, slots to reserve, files to open."""
        with self._lock:
            if last is None:
                self._crew.join()
            elif isinstance(last, OpenFiles | ReserveParts):
                self._reserving -= 1
            else:
                self._sending -= 1
            if not self._over():  # else nobody calls this one out again
                self._crew.back(len(last.units) if isinstance(last, Burst) else 1)
            while not self._over():
                if (work := self._next()) is not None:
                    self._crew.call()
                    return work
                self._crew.rest()
            return self._ready.under_way()

    def take_hash(self) -> FileRun | None:
        """A file whose digest is wanted."""
        with self._lock:
            while not self._over():
                while self._unhashed:
                    run = self._unhashed.popleft()
                    if not run.dead:
                        run.users += 1
                        return run
                self._hashers.wait()
            return None

    def allow(self, senders: int, reservers: int) -> None:
        """From now on so many workers may be in each stage. To be called again and again: a piece of work that takes
        longer than the time between two calls brings out another worker."""
        with self._lock:
            self._senders, self._reservers = senders, reservers
            self._crew.watch()

    def opened(self, run: FileRun, parts: Sequence[Part], units: Sequence[Unit], *, hashed: bool) -> None:
        """A file is open: `parts` want slots, `units` have one, its digest is wanted unless `hashed`."""
        with self._lock:
            self._runs[run.index] = run
            self._wanting -= self._opening.pop(run.index, 0)
            self._want(run, min(run.left, run.limits.sends or run.left))
            run.left += 0 if hashed else 1
            run.parts.extend(parts)
            if parts:
                self._unreserved.append(run)
            if not hashed:
                self._unhashed.append(run)
                self._hashers.notify()
            self._enqueue(run, units)
            if run.left == 0:
                self._finish(run)

    def coming(self, chunks: int) -> None:
        """So many chunks have slots that are on their way to being durable: `settled` will tell."""
        with self._lock:
            self._coming += chunks

    def settled(self, done: Iterable[Settled]) -> None:
        """These steps are durable: chunks may be sent, others leave their places, files go on to be completed."""
        with self._lock:
            for one in done:
                if isinstance(one, Unit):
                    self._ready.free_place()
                elif isinstance(one, Ready):
                    self._coming -= len(one.units)
                    self._enqueue(one.run, one.units)
                else:
                    self._ready.add_first(one)
            self._crew.call()

    def late(self, works: Iterable[Late]) -> None:
        """What is left of a burst: whoever is free takes it before all else."""
        with self._lock:
            for work in works:
                self._ready.add_first(work)
            self._crew.call()

    def hashed(self, run: FileRun) -> None:
        """The digest that was wanted is there."""
        with self._lock:
            self._advance(run, 1)

    def adopted(self, run: FileRun, copied: int, kept: int) -> None:
        """So many chunks are confirmed without being sent: copied from the version that is there, or kept as they were
        found in the session."""
        with self._lock:
            run.copied += copied
            if run.limits.sends is None:
                self._want(run, -(copied + kept))
            self._advance(run, copied + kept)

    def use(self, run: FileRun) -> None:
        """Have a file in hand without taking work of it; `release` gives it back."""
        with self._lock:
            run.users += 1

    def confirmed(self, run: FileRun) -> bool:
        """A chunk that was taken is confirmed; a file with few sends at once lets the next one go. True when it was the
        last thing that was `left`: then the caller finishes the file."""
        with self._lock:
            run.active -= 1
            self._enqueue(run, ())
            run.left -= 1
            return run.left == 0 and not run.dead

    def drop(self, run: FileRun) -> bool:
        """Hand out nothing more of this file. False when that was so already."""
        with self._lock:
            if run.dead:
                return False
            run.dead = True
            self._want(run, -run.wanting)
            run.parts.clear()
            run.backlog.clear()
            return True

    def release(self, run: FileRun) -> bool:
        """Give back what was taken. True for the last user of a dead file, who ends it with `ended`."""
        with self._lock:
            run.users -= 1
            return run.dead and run.users == 0

    def ended(self, index: int, *, again: bool) -> None:
        """A file is closed. With `again` it is opened anew, before all others."""
        with self._lock:
            self._room.ended()
            self._wanting -= self._opening.pop(index, 0)
            self._runs.pop(index, None)
            if again:
                self._pending.appendleft(index)
            if self._over():
                self._wake_all()
            else:
                self._crew.call()

    def crowded(self, index: int) -> bool:
        """The target takes no more open files than there are: this one waits, as all that follow, until another has
        ended. False where none is open here, nor about to be, so that none will end."""
        with self._lock:
            if not self._room.crowded():
                return False
            self._wanting -= self._opening.pop(index, 0)
            self._pending.appendleft(index)
            return True

    def open_runs(self) -> list[FileRun]:
        """Files that were opened and did not end: after a stop, when all workers have left, they are to be closed."""
        with self._lock:
            return list(self._runs.values())

    def stop(self) -> None:
        """Hand out nothing more, but for what is under way already."""
        with self._lock:
            self._stopped = True
            self._wake_all()

    def _over(self) -> bool:
        return self._stopped or not (self._pending or self._room.open)

    def _wake_all(self) -> None:
        self._crew.call_all()
        self._hashers.notify_all()

    def _next(self) -> Work | None:
        if self._sending < self._senders and (work := self._ready.next(self._burst)) is not None:
            self._sending += 1
            return work
        if self._may_reserve():
            self._reserving += 1
            return self._some_parts() if self._unreserved else self._some_files()
        return None

    def _took(self, unit: Unit) -> None:
        if unit.run.limits.sends is None:
            self._want(unit.run, -1)

    def _burst(self) -> int:
        """As far as one worker is worth more than several; few at first, as there are few workers."""
        return min(self._crew.together(self._most_at_once), _A_SENDER * self._senders)

    def _may_reserve(self) -> bool:
        """Is there work for the reserve stage? Another file is opened only when those that are open will not keep the
        senders busy: a session that was opened early and waits may end before its turn comes."""
        while self._unreserved and self._unreserved[0].dead:
            self._unreserved.popleft()
        if len(self._ready) + self._coming >= self._ahead or self._reserving >= self._reservers:
            return False
        if self._unreserved:
            return True
        batch = self._files_a_batch()
        room = self._wanting + min(batch, self._ahead // 2) <= self._ahead and batch <= self._room.left
        return bool(self._pending) and room

    def _may_send(self) -> bool:
        return self._sending < self._senders and self._ready.has_work()

    def _files_a_batch(self) -> int:
        """Several, as long as that leaves every worker some; the fewer the longer they take."""
        most = min(self._crew.batch(_FILES_A_BATCH), self._room.left)
        return max(1, min(most, len(self._pending) // (2 * self._reservers)))

    def _some_files(self) -> OpenFiles:
        files: list[int] = []
        for _ in range(self._files_a_batch()):
            if self._wanting >= self._ahead:
                break
            files.append(index := self._pending.popleft())
            self._opening[index] = self._chunks(index)
            self._wanting += self._opening[index]
        self._room.take(len(files))
        return OpenFiles(tuple(files))

    def _want(self, run: FileRun, chunks: int) -> None:
        """So many chunks more (or less) of an open file are there to be sent."""
        chunks = max(chunks, -run.wanting)
        run.wanting += chunks
        self._wanting += chunks

    def _some_parts(self) -> ReserveParts:
        run = self._unreserved.popleft()
        # A file that is sent strictly in order gets its slots in order as well: one batch.
        most = run.limits.reserves or _PARTS_A_BATCH
        count = len(run.parts) if run.limits.sends == 1 else min(most, self._ahead, len(run.parts))
        parts = tuple(run.parts.popleft() for _ in range(count))
        if run.parts:  # the file that is first is finished first
            self._unreserved.appendleft(run)
        run.users += 1
        return ReserveParts(run, parts)

    def _enqueue(self, run: FileRun, units: Sequence[Unit]) -> None:
        if run.dead:
            return
        if run.limits.sends is None:
            for unit in units:
                self._ready.add(unit)
        else:
            run.backlog.extend(units)
            while run.backlog and run.active < run.limits.sends:
                run.active += 1
                self._ready.add(run.backlog.popleft())
        self._crew.call()

    def _advance(self, run: FileRun, steps: int) -> None:
        """After the last thing that was `left`, the file is finished."""
        run.left -= steps
        if steps and run.left == 0 and not run.dead:
            self._finish(run)

    def _finish(self, run: FileRun) -> None:
        self._ready.add_first(Finish(run))
        self._crew.call()
