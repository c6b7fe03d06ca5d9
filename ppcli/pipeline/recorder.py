"""The recorder: one thread that owns a job's journal and manifest, and tells listeners.

Workers post steps and get a ticket. The recorder takes all that has gathered, appends it in one write and one fsync,
folds it with `manifest.apply`, redeems the tickets, and only then tells the listener. So nothing that a user or a
worker is told can be lost by a kill or a power cut. Steps of one thread become durable in the order they were posted.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence

from ppcli import steps
from ppcli.errors import Internal, PpcliError
from ppcli.events import Event, Listener
from ppcli.halt import Halt, Stopped
from ppcli.jobs import Job
from ppcli.pipeline import narrate
from ppcli.pipeline.work import Settled
from ppcli.steps import Step

TICK = 0.1
_FOLD_AT_LEAST = 1 << 20
_BATCH = 4096


class Ticket:
    """A posted step; redeemed once that is durable and folded in. Most are never waited for, so a ticket gets its lock
    only from its waiter: that sets the lock before it looks at `_redeemed`, and the recorder does both the other way
    round, so one of them sees the other."""

    __slots__ = ("_lock", "_redeemed", "lost", "step", "then")

    def __init__(self, step: Step, then: Settled | None) -> None:
        self.step = step
        self.then = then
        self.lost = False
        self._redeemed = False
        self._lock: threading.Lock | None = None

    def wait(self) -> None:
        """Block until the step is durable; one thread does. Raises `Stopped` when it never will be."""
        if not self._redeemed:
            lock = threading.Lock()
            lock.acquire()
            self._lock = lock
            if not self._redeemed:
                lock.acquire()
        if self.lost:
            raise Stopped

    def redeem(self) -> None:
        self._redeemed = True
        if self._lock is not None:
            self._lock.release()

    def lose(self) -> None:
        """As `redeem`, for a step that never becomes durable; no effect on a ticket that was redeemed."""
        if not self._redeemed:
            self.lost = True
            self.redeem()


class Recorder:
    """Start it, `post` from any thread, `stop` it once all posters have left. Only the recorder's thread touches the
    journal, the manifest and the listener in between."""

    def __init__(
        self,
        job: Job,
        listener: Listener,
        halt: Halt,
        progress: Callable[[], Event | None],
        settled: Callable[[Sequence[Settled]], None],
    ) -> None:
        """`progress` gives the `UploadProgress` to tell at this tick, or None when nothing moved. `settled` takes what
        was posted with steps that have become durable."""
        self._job = job
        self._listener = listener
        self._halt = halt
        self._progress = progress
        self._settled = settled
        self._posted: queue.SimpleQueue[Ticket | Event | None] = queue.SimpleQueue()
        self._manifest_size = job.manifest_size
        self._ticked = 0.0
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def post(self, step: Step, then: Settled | None = None) -> Ticket:
        """Have a step recorded; `then` is handed on once it is durable."""
        ticket = Ticket(step, then)
        self._posted.put(ticket)
        return ticket

    def tell(self, event: Event) -> None:
        """Have the listener told of something that is not kept."""
        self._posted.put(event)

    def stop(self) -> None:
        """Record all that was posted, then end; afterwards the caller's thread owns journal and manifest again."""
        self._posted.put(None)
        self._thread.join()

    def _run(self) -> None:
        more = True
        while more:
            batch, events, more = self._gather()
            try:
                self._record(batch)
                for event in events:
                    self._listener.hear(event)
                self._tick()
                if not more and (last := self._progress()) is not None:
                    self._listener.hear(last)
            except Exception as error:  # whatever broke the recorder, no worker may wait for ever
                self._halt.request(error if isinstance(error, PpcliError) else _bug(error))
                self._lose(batch)
                self._drain(more)
                return

    def _gather(self) -> tuple[list[Ticket], list[Event], bool]:
        """What was posted since, waiting at most a tick for the first; False at the end when `stop` was called."""
        batch: list[Ticket] = []
        events: list[Event] = []
        try:
            item = self._posted.get(timeout=TICK)
            while item is not None:
                if isinstance(item, Ticket):
                    batch.append(item)
                else:
                    events.append(item)
                if len(batch) >= _BATCH:
                    return batch, events, True
                item = self._posted.get_nowait()
        except queue.Empty:
            return batch, events, True
        return batch, events, False

    def _record(self, batch: list[Ticket]) -> None:
        if not batch:
            return
        job, facts = self._job, steps.without_repeated([ticket.step for ticket in batch])
        job.record(*facts)
        for ticket in batch:
            ticket.redeem()
        self._settled([ticket.then for ticket in batch if ticket.then is not None])
        for event in narrate.events(job.manifest, facts):
            self._listener.hear(event)
        if job.journal.size > max(_FOLD_AT_LEAST, self._manifest_size):
            job.fold()
            self._manifest_size = job.manifest_size

    def _tick(self) -> None:
        if time.monotonic() - self._ticked < TICK:
            return
        self._ticked = time.monotonic()
        if (event := self._progress()) is not None:
            self._listener.hear(event)
        self._listener.tick()

    def _lose(self, batch: list[Ticket]) -> None:
        for ticket in batch:
            ticket.lose()

    def _drain(self, more: bool) -> None:
        while more:
            batch, _, more = self._gather()
            self._lose(batch)


def _bug(error: Exception) -> Internal:
    bug = Internal(f"The recorder failed: {error!r}.")
    bug.__cause__ = error
    return bug
