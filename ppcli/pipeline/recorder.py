"""The recorder: one thread that owns a job's journal and manifest, and tells listeners.

Workers post steps, which gather until somebody needs them: a worker that waits for what it posted, one that has nothing
to do before they are durable, or the clock. Then the recorder takes all of them, appends them with one fsync, folds
them with `folding.apply`, redeems the tickets of those who wait, and only then tells the listener. So nothing that a
user or a worker is told can be lost by a kill or a power cut. Steps of one thread become durable in the order they were
posted.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ppcli.errors import Internal, PpcliError
from ppcli.events import Event, Listener
from ppcli.halt import Halt, Stopped
from ppcli.jobs import Job
from ppcli.pipeline import narrate
from ppcli.pipeline.work import Settled
from ppcli.steps import Step

TICK = 0.1
_GATHER = 0.02
"""Seconds that steps gather when nobody needs them before."""
_FOLD_AT_LEAST = 1 << 20
_BATCH = 4096


class Ticket:
    """Redeemed once all that its thread posted before is durable and folded in."""

    __slots__ = ("_lock", "_lost")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._lost = False

    def wait(self) -> None:
        """Block until then; one thread does. Raises `Stopped` when it never will be."""
        self._lock.acquire()
        if self._lost:
            raise Stopped

    def redeem(self) -> None:
        self._lock.release()

    def lose(self) -> None:
        """What was posted before it never becomes durable."""
        self._lost = True
        self._lock.release()


@dataclass(slots=True)
class _Batch:
    """What was posted since the last one, in order. `settled` are to be handed on once `facts` are durable; `last`:
    nothing comes after it."""

    facts: list[Step] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=list)
    tickets: list[Ticket] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    last: bool = False


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
        self._posted: deque[tuple[Step, Settled | None] | Ticket | Event | None] = deque()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._manifest_size = job.manifest_size
        self._ticked = 0.0
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def post(self, step: Step, then: Settled | None = None) -> None:
        """Have a step recorded, before long; `then` is handed on once it is durable."""
        self._posted.append((step, then))

    def flush(self) -> None:
        """Block until all that this thread posted is durable. Raises `Stopped` when it never will be."""
        ticket = Ticket()
        self._posted.append(ticket)
        self.hurry()
        ticket.wait()

    def record(self, step: Step) -> None:
        """Have a step recorded and wait until it is durable. Raises `Stopped` when it never will be."""
        self.post(step)
        self.flush()

    def hurry(self) -> None:
        """Have all that was posted recorded now."""
        self._bell.put(None)

    def tell(self, event: Event) -> None:
        """Have the listener told of something that is not kept."""
        self._posted.append(event)

    def stop(self) -> None:
        """Record all that was posted, then end; afterwards the caller's thread owns journal and manifest again."""
        self._posted.append(None)
        self.hurry()
        self._thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            batch = self._gather()
            last = batch.last
            try:
                self._record(batch)
                for event in batch.events:
                    self._listener.hear(event)
                self._tick()
                if last and (progress := self._progress()) is not None:
                    self._listener.hear(progress)
            except Exception as error:  # whatever broke the recorder, no worker may wait for ever
                self._halt.request(error if isinstance(error, PpcliError) else _bug(error))
                self._lose(batch)
                while not last:
                    batch = self._gather()
                    last = batch.last
                    self._lose(batch)

    def _gather(self) -> _Batch:
        """What was posted, once somebody needs it or after a while."""
        with contextlib.suppress(queue.Empty):
            self._bell.get(timeout=_GATHER)
            while True:
                self._bell.get_nowait()
        batch, posted = _Batch(), self._posted
        while posted and len(batch.facts) < _BATCH:
            item = posted.popleft()
            if isinstance(item, tuple):
                batch.facts.append(item[0])
                if item[1] is not None:
                    batch.settled.append(item[1])
            elif isinstance(item, Ticket):
                batch.tickets.append(item)
            elif item is None:
                batch.last = True
            else:
                batch.events.append(item)
        if posted:
            self.hurry()
        return batch

    def _record(self, batch: _Batch) -> None:
        job = self._job
        if batch.facts:
            job.record(*batch.facts)
        while batch.tickets:
            batch.tickets.pop().redeem()
        if not batch.facts:
            return
        self._settled(batch.settled)
        for event in narrate.events(job.manifest, batch.facts):
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

    def _lose(self, batch: _Batch) -> None:
        while batch.tickets:
            batch.tickets.pop().lose()


def _bug(error: Exception) -> Internal:
    bug = Internal(f"The recorder failed: {error!r}.")
    bug.__cause__ = error
    return bug
