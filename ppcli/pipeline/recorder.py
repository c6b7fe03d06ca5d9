"""The recorder: one thread that owns a job's journal and manifest, and tells listeners.

Workers post steps and get a ticket. The recorder takes all that has gathered, appends it in one write and one fsync,
folds it with `manifest.apply`, redeems the tickets, and only then tells the listener. So nothing that a user or a
worker is told can be lost by a kill or a power cut. Steps of one thread become durable in the order they were posted.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from ppcli.errors import Internal, PpcliError
from ppcli.events import Event, Listener
from ppcli.halt import Halt, Stopped
from ppcli.jobs import Job
from ppcli.pipeline import narrate
from ppcli.steps import Step

TICK = 0.1
_FOLD_AT_LEAST = 1 << 20
_BATCH = 4096


class Ticket:
    """Redeemed once its step is durable and folded in."""

    __slots__ = ("_lock", "lost")

    def __init__(self) -> None:
        self.lost = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self) -> None:
        """Block until the step is durable. Raises `Stopped` when it never will be."""
        with self._lock:
            if self.lost:
                raise Stopped

    def redeem(self) -> None:
        self._lock.release()


class Recorder:
    """Start it, `post` from any thread, `stop` it once all posters have left. Only the recorder's thread touches the
    journal, the manifest and the listener in between."""

    def __init__(self, job: Job, listener: Listener, halt: Halt, progress: Callable[[], Event | None]) -> None:
        """`progress` gives the `UploadProgress` to tell at this tick, or None when nothing moved."""
        self._job = job
        self._listener = listener
        self._halt = halt
        self._progress = progress
        self._posted: queue.SimpleQueue[tuple[Step, Ticket] | Event | None] = queue.SimpleQueue()
        self._manifest_size = 0
        self._ticked = 0.0
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def post(self, step: Step) -> Ticket:
        """Have a step recorded."""
        ticket = Ticket()
        self._posted.put((step, ticket))
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

    def _gather(self) -> tuple[list[tuple[Step, Ticket]], list[Event], bool]:
        """What was posted since, waiting at most a tick for the first; False at the end when `stop` was called."""
        batch: list[tuple[Step, Ticket]] = []
        events: list[Event] = []
        try:
            item = self._posted.get(timeout=TICK)
            while item is not None:
                if isinstance(item, Event):
                    events.append(item)
                else:
                    batch.append(item)
                if len(batch) >= _BATCH:
                    return batch, events, True
                item = self._posted.get_nowait()
        except queue.Empty:
            return batch, events, True
        return batch, events, False

    def _record(self, batch: list[tuple[Step, Ticket]]) -> None:
        if not batch:
            return
        job, facts = self._job, [step for step, _ in batch]
        job.record(*facts)
        for _, ticket in batch:
            ticket.redeem()
        for event in narrate.events(job.manifest, facts):
            self._listener.hear(event)
        if job.journal.size > max(_FOLD_AT_LEAST, self._manifest_size):
            self._manifest_size = job.fold()

    def _tick(self) -> None:
        if time.monotonic() - self._ticked < TICK:
            return
        self._ticked = time.monotonic()
        if (event := self._progress()) is not None:
            self._listener.hear(event)
        self._listener.tick()

    def _lose(self, batch: list[tuple[Step, Ticket]]) -> None:
        for _, ticket in batch:
            if not ticket.lost and ticket._lock.locked():
                ticket.lost = True
                ticket.redeem()

    def _drain(self, more: bool) -> None:
        while more:
            batch, _, more = self._gather()
            self._lose(batch)


def _bug(error: Exception) -> Internal:
    bug = Internal(f"The recorder failed: {error!r}.")
    bug.__cause__ = error
    return bug
