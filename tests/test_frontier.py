"""Targets that count bytes, through the pipeline: strictly in order of offset, never a byte whose checksum is unknown,
never a byte twice that the target has. The target is in memory, and takes as much of a call as its script says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import xxhash
from harness import Place, Recording, quick_retries, run

from ppcli.errors import Doubt, Further, Local, Loss, SessionLost, Temporary, Transient
from ppcli.events import Retrying, WarningRaised
from ppcli.halt import Halt, Stopped
from ppcli.jobs import Job
from ppcli.model import ChunkState, Evidence, FilePlan, JobState, Limits, Part, Receipt, Remote, Session, Slot, Survey
from ppcli.retry import Gate, Retrier, Step
from ppcli.target import ChunkBytes
from ppcli.targets.frontier import Frontiers

CHUNK = 100
DATA = bytes(range(250)) * 4


class Counting:
    """One upload per session. `took(offset, size)` says how many bytes of a call arrive; negative: as many, and then
    the reply is lost."""

    url = "memory:"

    def __init__(self) -> None:
        self.held: dict[str, bytearray] = {}
        self.sent: list[tuple[int, int]] = []
        self.took: Callable[[int, int], int] = lambda offset, size: size
        self.busy = threading.Lock()
        self.frontiers = Frontiers()

    def limits(self, size: int) -> Limits:
        return Limits(1, 1 << 30, CHUNK, replan=False, evidence=Evidence.OFFSET, keeps_starts=True)

    def find(self, name: str, digest: str | None = None) -> None:
        return None

    def open(self, file: FilePlan, old: Session | None, base: Remote | None) -> Session:
        self.frontiers = Frontiers()
        if old is None:
            self.held[f"s{len(self.held)}"] = bytearray()
            return Session(f"s{len(self.held) - 1}", in_order=True)
        return old

    def survey(self, session: Session, file: FilePlan, known: Sequence[Receipt]) -> Survey:
        end = len(self.held[session.id])
        there = [one for one in known if one.checksum and one.index * CHUNK + one.size <= end]
        return Survey({one.index: replace(one, evidence=Evidence.OFFSET) for one in there}, authoritative=True)

    def reserve(self, session: Session, file: FilePlan, parts: Sequence[Part]) -> Sequence[Slot]:
        return [part.offset for part in parts]

    def upload(self, session: Session, file: FilePlan, part: Part, slot: Slot, body: ChunkBytes) -> Receipt:
        assert self.busy.acquire(blocking=False), "two at once"
        try:
            assert part.checksum is not None, "bytes go before their checksum is known"

            def append(url: str, offset: int, tail: object) -> int:
                data = b"".join(bytes(piece) for piece in tail)  # type: ignore[attr-defined]
                self.sent.append((offset, len(data)))
                took = self.took(offset, len(data))
                self.held[url] += data[: abs(took)]
                if took < 0:
                    raise Doubt("the reply was lost")
                return len(self.held[url])

            self.frontiers.advance(session.id, part.offset, body, lambda url: len(self.held[url]), append)
        finally:
            self.busy.release()
        return Receipt(part.index, part.size, slot, body.checksum, None, Evidence.OFFSET)

    def confirm(self, session: Session, file: FilePlan, receipt: Receipt) -> Receipt:
        return receipt

    def complete(self, session: Session, file: FilePlan, receipts: Sequence[Receipt], *, doubtful: bool) -> Remote:
        sums = [
            xxhash.xxh3_128_hexdigest(self.held[session.id][at : at + CHUNK])
            for at in range(0, max(1, file.size), CHUNK)
        ]
        assert sums == [receipt.checksum for receipt in receipts]
        return Remote(file.name, f"memory:{session.id}", file.size)

    def abort(self, session: Session | None, file: FilePlan, slots: Sequence[Slot] = ()) -> None:
        pass

    def notices(self) -> Sequence[object]:
        return ()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with quick_retries():
        yield Place(tmp_path, "memory:", CHUNK)


def job_of(place: Place, data: bytes = DATA) -> Job:
    return place.job([place.source("a", data)], jobs=4)


def stop_at(offset: int, took: int = 0) -> Callable[[int, int], int]:
    def act(at: int, size: int) -> int:
        if at >= offset:
            raise Local("stopped by the test", reason="test")
        return size

    return act


def codes(heard: Recording) -> list[str]:
    return [event.code for event in heard.events if isinstance(event, WarningRaised)]


def test_chunks_go_one_at_a_time_in_order(place: Place) -> None:
    target = Counting()
    assert run(job_of(place), target) is None  # type: ignore[arg-type]
    assert target.sent == [(at, CHUNK) for at in range(0, len(DATA), CHUNK)]
    assert target.held == {"s0": DATA}


def test_a_resume_goes_on_in_order_from_the_middle_of_a_chunk(place: Place) -> None:
    target, job = Counting(), job_of(place)
    target.took = stop_at(300)
    run(job, target)  # type: ignore[arg-type]
    target.held["s0"] += DATA[300:342]
    target.sent.clear()
    target.took = lambda offset, size: size
    assert run(place.store.open(job.id), target) is None  # type: ignore[arg-type]
    assert target.sent[:2] == [(342, 58), (400, 100)]
    assert target.held == {"s0": DATA}


def test_a_chunk_whose_reply_was_lost_with_the_process_is_proved_and_not_sent(place: Place) -> None:
    target, job = Counting(), job_of(place)
    target.took = stop_at(300)
    run(job, target)  # type: ignore[arg-type]
    target.held["s0"] += DATA[300:400]
    target.sent.clear()
    target.took = lambda offset, size: size
    heard = Recording()
    assert run(place.store.open(job.id), target, heard) is None  # type: ignore[arg-type]
    assert target.sent[0] == (400, 100)
    assert codes(heard) == []


def test_the_checksum_of_a_chunk_is_durable_before_its_bytes_go(place: Place) -> None:
    target, job = Counting(), job_of(place)
    target.took = stop_at(300)
    run(job, target)  # type: ignore[arg-type]
    chunk = place.store.peek(job.id).files[0].chunks[3]
    assert (chunk.state, chunk.xxh3) == (ChunkState.RESERVED, xxhash.xxh3_128_hexdigest(DATA[300:400]))


@pytest.mark.parametrize("at", [250, 342, 900])
def test_a_changed_source_never_goes_on_with_what_the_target_has_of_the_old_one(place: Place, at: int) -> None:
    target, job = Counting(), job_of(place)
    target.took = stop_at(300)
    run(job, target)  # type: ignore[arg-type]
    target.held["s0"] += DATA[300:360]
    new = bytearray(DATA)
    new[at] ^= 1
    place.source("a", bytes(new))
    target.took = lambda offset, size: size
    assert run(place.store.open(job.id), target) is None  # type: ignore[arg-type]
    assert target.held["s1" if at < 400 else "s0"] == new


def test_what_was_confirmed_and_is_gone_goes_again_in_order(place: Place) -> None:
    target, job, heard = Counting(), job_of(place), Recording()
    target.took = stop_at(500)
    run(job, target)  # type: ignore[arg-type]
    del target.held["s0"][230:]
    target.sent.clear()
    target.took = lambda offset, size: size
    assert run(place.store.open(job.id), target, heard) is None  # type: ignore[arg-type]
    assert [at for at, _ in target.sent] == [230, *range(300, 1000, 100)]
    assert target.held == {"s0": DATA}
    assert codes(heard) == ["chunks_reset"]


def test_a_target_that_falls_behind_in_a_run_is_asked_and_gets_the_rest(place: Place) -> None:
    target, heard, left = Counting(), Recording(), [1]

    def fall_back(offset: int, size: int) -> int:
        if offset == 500 and left:
            left.pop()
            del target.held["s0"][130:]
            raise Doubt("the reply was lost")
        return size

    target.took = fall_back
    job = job_of(place)
    assert run(job, target, heard) is None  # type: ignore[arg-type]
    assert target.held == {"s0": DATA}, "the same session"
    assert codes(heard) == ["session_behind", "chunks_reset"]
    assert place.store.peek(job.id).files[0].action == "sent"


def test_a_target_that_falls_behind_again_and_again_pauses_the_job(place: Place) -> None:
    target = Counting()

    def fall_back(offset: int, size: int) -> int:
        if offset == 500:
            del target.held["s0"][130:]
            raise Doubt("the reply was lost")
        return size

    target.took = fall_back
    job = job_of(place)
    error = run(job, target)  # type: ignore[arg-type]
    assert isinstance(error, Temporary) and error.reason == "behind"
    assert place.store.peek(job.id).files[0].session is not None


@pytest.mark.parametrize("lost", [1, -1])
def test_progress_renews_the_attempts_within_a_chunk(place: Place, lost: int) -> None:
    """Three attempts would not do for a chunk that arrives seven bytes at a time."""
    target, heard = Counting(), Recording()
    target.took = lambda offset, size: lost * min(7, size)
    assert run(job_of(place, DATA[:150]), target, heard) is None  # type: ignore[arg-type]
    assert target.held == {"s0": DATA[:150]}
    assert all(event.attempt == 1 for event in heard.events if isinstance(event, Retrying))


def test_no_progress_ends(place: Place) -> None:
    target = Counting()
    target.took = lambda offset, size: 0 if offset else size
    error = run(job_of(place), target)  # type: ignore[arg-type]
    assert isinstance(error, Temporary)
    assert len(target.sent) == 1 + 3


def test_further_stops_with_the_run() -> None:
    halt = Halt()
    retrier = Retrier(3, Gate(), halt, lambda attempt: None)
    calls = []

    def attempt() -> None:
        calls.append(1)
        if len(calls) == 5:
            halt.request(Local("stop"))
        raise Further("a bit") if len(calls) % 2 else Transient("no")

    with quick_retries(), pytest.raises(Stopped):
        retrier.call(Step.UPLOAD, "a", 0, attempt)
    assert len(calls) == 5


def test_states_of_a_file_that_counts(place: Place) -> None:
    target, job = Counting(), job_of(place, b"")
    assert run(job, target) is None  # type: ignore[arg-type]
    entry = place.store.peek(job.id).files[0]
    assert (entry.state, entry.chunks[0].evidence, target.sent) == (JobState.COMPLETED, Evidence.OFFSET, [])


def test_an_offset_that_no_honest_server_has(place: Place) -> None:
    target, job = Counting(), job_of(place)
    left = [1]

    def lie(offset: int, size: int) -> int:
        if offset == 300 and left:
            left.pop()
            target.held["s0"] += b"?" * 500
        return size

    target.took = lie
    heard = Recording()
    assert run(job, target, heard) is None  # type: ignore[arg-type]
    assert target.held["s1"] == DATA and codes(heard) == ["session_lost"]
    with pytest.raises(SessionLost) as lost:
        Frontiers().advance("u", 5, place_body(), lambda url: 4, lambda *_: 0)
    assert lost.value.loss is Loss.BEHIND


def place_body() -> ChunkBytes:
    class Nothing:
        size = 10
        checksum = ""

    return Nothing()  # type: ignore[return-value]
