"""How work flows through the pipeline: what is in flight, who is woken, who waits for what is durable."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cli_kit import until
from harness import Place, Recording, quick_retries, run
from memory import MemoryTarget, SplitTarget

from ppcli import pipeline, steps
from ppcli.errors import Doubt, Interrupted, Rejected, Temporary, Transient
from ppcli.events import UploadProgress
from ppcli.halt import Halt, Stopped
from ppcli.hashing import Hashes
from ppcli.jobs import Job
from ppcli.model import ChunkState, JobState, Part
from ppcli.pipeline import begun, crew, meter
from ppcli.pipeline.crew import Crew
from ppcli.pipeline.feed import Feed
from ppcli.pipeline.meter import Ramp
from ppcli.pipeline.recorder import Ticket
from ppcli.pipeline.sending import Sender
from ppcli.pipeline.work import OpenFiles, ReserveParts, Unit, Work
from ppcli.retry import Retrier, Step

CHUNK = 100


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with quick_retries():
        yield Place(tmp_path, "memory:", CHUNK)


class Flight:
    """Counts the chunks whose first byte was sent and whose confirmation is not durable yet, on a slow disk."""

    def __init__(self, target: MemoryTarget, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now: set[tuple[int, int]] = set()
        self.most = 0
        self._lock = threading.Lock()
        real = Job.record

        def record(job: Job, *facts: steps.Step) -> None:
            time.sleep(0.002)
            real(job, *facts)
            with self._lock:
                self.now -= {(fact.file, fact.chunk) for fact in facts if isinstance(fact, steps.Confirmed)}

        monkeypatch.setattr(Job, "record", record)
        target.fault = self._call

    def _call(self, step: str, name: str, chunk: int | None) -> None:
        if step == "upload":
            assert chunk is not None
            with self._lock:
                self.now.add((int(name), chunk))
                self.most = max(self.most, len(self.now))


@pytest.mark.parametrize("jobs", [1, 3, 12])
@pytest.mark.parametrize("sizes", [[120 * CHUNK], [CHUNK] * 60, [5 * CHUNK] * 20], ids=["one", "many", "both"])
def test_at_most_jobs_chunks_are_in_flight_until_they_are_durable(
    place: Place, monkeypatch: pytest.MonkeyPatch, jobs: int, sizes: list[int]
) -> None:
    job = place.job([place.source(str(number), bytes(size)) for number, size in enumerate(sizes)], jobs=jobs)
    target = MemoryTarget()
    flight = Flight(target, monkeypatch)
    assert run(job, target) is None
    assert len(target.objects) == len(sizes)
    assert 1 <= flight.most <= jobs
    assert not flight.now


@pytest.mark.parametrize("jobs", [1, 3, 12])
def test_small_requests_are_sent_several_at_a_time_within_the_jobs(
    place: Place, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    job = place.job([place.source(str(number), bytes(CHUNK)) for number in range(60)], jobs=jobs)
    target = SplitTarget()
    monkeypatch.setattr(Crew, "together", lambda crew, most: most)
    flight = Flight(target, monkeypatch)
    assert run(job, target) is None
    assert len(target.objects) == 60
    assert flight.most <= jobs
    assert target.waiting <= jobs
    assert target.waiting > 1 or jobs == 1
    assert not flight.now


def test_what_fails_among_requests_that_were_sent_together_fails_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost replies and refusals are tried again, each within its own attempts; a source that is gone ends its file."""
    monkeypatch.setattr(Crew, "together", lambda crew, most: most)
    paths = [place.source(str(number), bytes([number]) * CHUNK) for number in range(30)]
    job, target, tries = place.job(paths, jobs=10), SplitTarget(), Counter[str]()

    def fault(step: str, name: str, chunk: int | None) -> None:
        if step in ("upload", "lost:upload") and int(name) % 3:
            tries[name] += 1
            if tries[name] < 3:
                raise Doubt("the reply was lost") if step.startswith("lost:") else Transient("503")
        if step == "upload" and name == "6":
            raise Rejected("no", hint="none")

    target.fault = fault
    run(job, target)
    assert target.objects == {str(n): bytes([n]) * CHUNK for n in range(30) if n != 6}
    assert [entry.name for entry in job.manifest.files if entry.state is JobState.FAILED] == ["6"]


def test_that_nothing_moves_any_more_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "_WINDOW", 0.3)
    job, target, heard = place.job([place.source(name, bytes(CHUNK)) for name in "ab"]), SplitTarget(), Recording()
    target.silent = {"b"}
    running = threading.Thread(target=run, args=(job, target, heard), daemon=True)
    running.start()
    rates: list[float] = []

    def told() -> list[float]:
        rates[:] = [event.bytes_per_second for event in heard.events if isinstance(event, UploadProgress)]
        return rates

    until(lambda: told() and max(rates) > 0 and rates[-1] == 0)
    target.speaks.set()
    running.join()


def test_nobody_waits_for_a_reply_that_does_not_come(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Crew, "together", lambda crew, most: most)
    job = place.job([place.source(str(number), bytes(CHUNK)) for number in range(40)], jobs=4)
    target = SplitTarget()
    target.silent = {"1", "6"}
    running = threading.Thread(target=run, args=(job, target), daemon=True)
    running.start()
    until(lambda: len(target.objects) == 38)
    until(lambda: place.store.peek(job.id).totals.chunks[ChunkState.CONFIRMED] == 38)
    target.speaks.set()
    running.join()
    assert len(target.objects) == 40
    assert max(target.received.values()) == 1


def test_a_late_success_waits_for_no_pause(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """All workers may pause while its reply comes, which is no attempt that could do so as well."""
    monkeypatch.setattr(Crew, "together", lambda crew, most: most)
    tried, begin, begun_names = [], Sender.begin, []
    call = Retrier.call

    def counted(retrier: Retrier, step: Step, name: str, chunk: int | None, attempt: Any) -> Any:
        tried.append((step, name))
        return call(retrier, step, name, chunk, attempt)

    def noted(sender: Sender, unit: Unit) -> begun.Begun | None:
        begun_names.append(unit.run.entry.name)
        return begin(sender, unit)

    monkeypatch.setattr(Retrier, "call", counted)
    monkeypatch.setattr(Sender, "begin", noted)
    job, target = place.job([place.source(str(number), bytes(CHUNK)) for number in range(40)], jobs=8), SplitTarget()
    target.silent = {str(number) for number in range(40)}
    running = threading.Thread(target=run, args=(job, target), daemon=True)
    running.start()
    until(lambda: begun_names)
    target.speaks.wait(1)  # longer than a burst has patience
    target.speaks.set()
    running.join()
    assert len(target.objects) == 40
    assert not [(step, name) for step, name in tried if name in begun_names and step in (Step.UPLOAD, Step.COMPLETE)]


def test_of_a_burst_nothing_is_begun_after_a_stop(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent before is confirmed, though a reply among them asks for a pause."""
    monkeypatch.setattr(Crew, "together", lambda crew, most: most)
    monkeypatch.setattr(Crew, "batch", lambda crew, most: most)
    job = place.job([place.source(str(number), bytes(CHUNK)) for number in range(40)], jobs=20)
    target, halt = SplitTarget(), Halt()

    def stop(step: str, name: str, chunk: int | None) -> None:
        if step == "upload" and target.calls["upload"] >= 3 and not halt.requested:
            halt.request(Interrupted(130, job=True))
            raise Transient("503", retry_after=200)

    target.fault = stop
    pipeline.run(job, target, range(40), Recording(), halt, Hashes())
    assert target.calls["upload"] < 10  # two workers may be at it
    assert job.manifest.totals.chunks[ChunkState.CONFIRMED] == len(target.received) >= 2


def test_a_pause_that_a_target_asked_for_is_over_by_the_time_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several of one batch may ask for the same pause: it is made once."""
    clock = [100.0]
    monkeypatch.setattr(begun, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def call() -> Iterator[None]:
        yield
        raise Transient("503", retry_after=60)

    under_way = begun.Begun(cast(Any, None), lambda body: cast(Any, call()))
    under_way.go_on()
    assert not under_way.waits and not under_way.succeeded
    clock[0] = 150.0
    with pytest.raises(Transient) as caught:
        under_way.outcome()
    assert caught.value.retry_after == 10


def test_a_chunk_that_failed_gives_its_place_back(place: Place) -> None:
    """Every file loses a chunk for good; with places lost as well, the run would stand still after three."""
    target = MemoryTarget()
    target.mangle = lambda name, chunk, data: b"?" * len(data) if chunk == 0 else data
    job = place.job([place.source(str(number), bytes(2 * CHUNK)) for number in range(12)], jobs=3, retries=1)
    assert run(job, target) is None
    assert {entry.state for entry in job.manifest.files} == {JobState.FAILED}


class Crowd:
    """How many threads are in one kind of call at once."""

    def __init__(self, target: MemoryTarget, step: str) -> None:
        self._step = step
        self._inside: Counter[int] = Counter()
        self.most = 0
        target.fault = self._call

    def _call(self, step: str, name: str, chunk: int | None) -> None:
        if step == self._step:
            self._inside[threading.get_ident()] = 1
            self.most = max(self.most, self._inside.total())
            time.sleep(0.02)
            self._inside[threading.get_ident()] = 0


@pytest.mark.parametrize("step", ["open", "reserve", "upload", "confirm", "complete"])
def test_calls_that_take_long_bring_all_workers_out(place: Place, step: str) -> None:
    target = MemoryTarget()
    crowd = Crowd(target, step)
    job = place.job([place.source(str(number), bytes(CHUNK)) for number in range(40)], jobs=4)
    assert run(job, target) is None
    assert crowd.most == 4


def test_a_file_that_is_intended_to_be_completed_is_asked_about_after_a_halt(place: Place) -> None:
    """The halt comes between the intent and the call: nobody completes the file until the next run."""
    target = MemoryTarget()

    def halt(step: str, name: str, chunk: int | None) -> None:
        if step == "complete":
            raise Temporary("unplugged")

    target.fault = halt
    job = place.job([place.source(str(number), b"x") for number in range(8)], jobs=8)
    assert isinstance(run(job, target), Temporary)
    on_disk = place.store.peek(job.id).files
    assert any(entry.completing for entry in on_disk)
    assert all(entry.chunks[0].state is ChunkState.CONFIRMED for entry in on_disk if entry.completing)
    target.fault = lambda step, name, chunk: None
    target.received.clear()
    assert run(place.store.open(job.id), target) is None
    assert len(target.objects) == 8
    assert not {int(name) for name, _ in target.received} & {n for n, entry in enumerate(on_disk) if entry.completing}


def test_a_completion_is_asked_for_only_once_its_intent_is_durable(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    intended: set[int] = set()
    real = Job.record

    def record(job: Job, *facts: steps.Step) -> None:
        time.sleep(0.002)
        real(job, *facts)
        intended.update(fact.file for fact in facts if isinstance(fact, steps.Completing))

    monkeypatch.setattr(Job, "record", record)
    target = MemoryTarget()
    early: list[str] = []
    target.fault = lambda step, name, chunk: (
        early.append(name) if step == "complete" and int(name) not in intended else None
    )
    job = place.job([place.source(str(number), bytes(CHUNK)) for number in range(40)], jobs=4)
    assert run(job, target) is None
    assert not early


def test_a_ticket_is_redeemed_whoever_comes_first() -> None:
    tickets = [Ticket() for _ in range(5000)]
    redeemer = threading.Thread(target=lambda: [ticket.redeem() for ticket in tickets])
    redeemer.start()
    for ticket in tickets:
        ticket.wait()
    redeemer.join()


def test_a_ticket_that_is_lost_stops_its_waiter() -> None:
    lost = Ticket()
    lost.lose()
    with pytest.raises(Stopped):
        lost.wait()


def test_files_that_a_crowded_target_turns_away_wait_for_the_last_one() -> None:
    feed = Feed([0, 1, 2], jobs=2, chunks=lambda index: 1, hurry=lambda: None)
    feed.allow(1, 3)
    taken = [feed.take(None) for _ in range(3)]
    assert taken == [OpenFiles((index,)) for index in range(3)]
    assert [feed.crowded(index) for index in (0, 1, 2)] == [True, True, False], "one keeps asking"
    feed.ended(2, again=False)
    assert feed.take(taken[2]) == OpenFiles((1,))
    feed.ended(1, again=False)
    assert feed.take(taken[1]) == OpenFiles((0,))


def test_slots_are_reserved_little_ahead_of_what_is_durable() -> None:
    """However long the disk takes for the first of them."""
    rests = threading.Event()
    feed = Feed([0], jobs=20, chunks=lambda index: 1000, hurry=rests.set)
    feed.allow(20, 20)
    limits = SimpleNamespace(sends=None, reserves=None)
    run: Any = SimpleNamespace(index=0, dead=False, wanting=0, left=1000, users=0, active=0, limits=limits)
    run.parts, run.backlog = deque(), deque()
    work = feed.take(None)
    feed.opened(run, [Part(index, index, 1) for index in range(1000)], (), hashed=True)
    taken: list[Part] = []

    def reserve(work: Work | None) -> None:
        while (work := feed.take(work)) is not None:
            assert isinstance(work, ReserveParts)
            taken.extend(work.parts)
            feed.coming(len(work.parts))
            feed.release(run)

    worker = threading.Thread(target=reserve, args=[work])
    worker.start()
    assert rests.wait(20)
    feed.stop()
    worker.join()
    assert len(taken) <= 40


def test_a_call_that_gets_stuck_after_many_quick_ones_brings_the_others_out(place: Place) -> None:
    """Quick ones may be done by a single worker."""
    target = MemoryTarget(keep=False)
    stuck = threading.Event()

    def call(step: str, name: str, chunk: int | None) -> None:
        if (step, chunk) == ("upload", 2000):
            assert stuck.wait(20), "nobody else went on"
        elif (step, chunk) == ("upload", 2500):
            stuck.set()

    target.fault = call
    job = place.job([place.source("big", bytes(3000 * CHUNK))], jobs=12)
    assert run(job, target) is None


def test_beside_a_stuck_call_quick_work_is_not_left_alone_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is sent to rest so that another one does it all stands still until the clock tells better."""
    clock = [0.0]
    rests: list[float] = []
    monkeypatch.setattr(crew, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(crew, "resource", SimpleNamespace(getrusage=lambda _: Usage(), RUSAGE_SELF=0))
    workers = crew.Crew(threading.Lock(), lambda: True, lambda: None)

    class Resting:
        def wait(self) -> None:
            rests.append(clock[0])
            for _ in range(2):
                clock[0] += 0.05
                workers.watch()

        def notify(self) -> None: ...

    monkeypatch.setattr(workers, "_condition", Resting())
    workers.join()  # the one that is stuck
    workers.join()
    while clock[0] < 10:
        clock[0] += 0.001
        workers.back()
    assert 1 <= len(rests) < 15


class Usage:
    """Of a process that needs next to nothing."""

    ru_utime = ru_stime = 0.0
    ru_nvcsw = 0


def test_what_nobody_waits_for_is_recorded_before_long(place: Place) -> None:
    """A confirmation does not wait for the next chunk, however long that takes."""
    target = MemoryTarget()
    job = place.job([place.source("big", bytes(2 * CHUNK))], jobs=1)

    def call(step: str, name: str, chunk: int | None) -> None:
        if (step, chunk) == ("upload", 1):
            deadline = time.monotonic() + 20
            while place.store.peek(job.id).files[0].chunks[0].state is not ChunkState.CONFIRMED:
                assert time.monotonic() < deadline
                time.sleep(0.01)

    target.fault = call
    assert run(job, target) is None


def test_workers_that_come_back_after_the_end_leave(place: Place) -> None:
    """Also where small work has sent the others to rest: a halted run does not wait for one that nobody calls."""
    target = MemoryTarget(keep=False)

    def call(step: str, name: str, chunk: int | None) -> None:
        if (step, chunk) == ("confirm", 1500):
            raise Temporary("unplugged")

    target.fault = call
    job = place.job([place.source("big", bytes(2000 * CHUNK))], jobs=8, retries=1)
    assert isinstance(run(job, target), Temporary)
    assert not [thread for thread in threading.enumerate() if thread.name in ("work", "recorder")]


@pytest.mark.parametrize(("rate", "workers"), [(1 << 20, 20), (1 << 30, 2)])
def test_workers_join_while_they_help_unless_few_move_all_that_can_be_moved(rate: int, workers: int) -> None:
    ramp, work = Ramp(20), 0
    for tick in range(60):  # a twentieth of a second each
        work += rate * ramp.workers // 20 if rate < Ramp.BUSY else rate // 20
        ramp.update(tick / 20, work)
    assert ramp.workers == workers


def test_where_nothing_more_comes_of_it_a_few_more_are_tried_after_a_while() -> None:
    ramp = Ramp(20)
    for tick in range(300):
        ramp.update(tick / 20, (1 << 30) // 20 * (tick + 1))
    assert 2 < ramp.workers < 20


def test_workers_join_where_nothing_is_to_be_sent() -> None:
    ramp = Ramp(20)
    for tick in range(200):
        ramp.update(tick / 20, 0)
    assert ramp.workers == 20
