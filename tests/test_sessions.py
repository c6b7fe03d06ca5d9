"""Sessions that end too early or hold wrong bytes, and targets that want digests first: the pipeline against a target
in memory, and the forecast on its own."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from harness import Place, Recording, quick_retries, run
from memory import DEFAULT_LIMITS, MemoryTarget

from ppcli import pipeline, steps
from ppcli.errors import Local, Loss, SessionLost, Transient
from ppcli.events import FileCompleted, WarningRaised
from ppcli.halt import Halt
from ppcli.hashing import Hashes
from ppcli.jobfiles import JOURNAL
from ppcli.journal import read
from ppcli.manifest import FileEntry
from ppcli.model import FilePlan, Fingerprint, JobState, Receipt, Remote, Session
from ppcli.pipeline.expiry import Forecast
from ppcli.pipeline.meter import Meter
from ppcli.pipeline.work import FileRun
from ppcli.planner import plan_chunks
from ppcli.retry import Gate
from ppcli.source import Source

CHUNK = 100
HASHED = replace(DEFAULT_LIMITS, digest_first=True, replan=False)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with quick_retries():
        yield Place(tmp_path, "memory:", CHUNK)


class Declared(MemoryTarget):
    """Wants the digest when a session is opened, refuses a session of another one, and checks it at the end."""

    def __init__(self) -> None:
        super().__init__(HASHED)
        self.lifetime: float | None = None

    def open(self, file: FilePlan, old: Session | None, base: Remote | None) -> Session:
        assert file.digest is not None
        if old is not None and old.detail["sha256"] != file.digest:
            raise SessionLost("its content is another now")
        session = super().open(file, old, base)
        ends = None if self.lifetime is None else time.time() + self.lifetime
        return replace(session, expires_at=ends, detail={"sha256": file.digest})

    def complete(self, session: Session, file: FilePlan, receipts: list[Receipt], *, doubtful: bool) -> Remote:  # type: ignore[override]
        remote = super().complete(session, file, receipts, doubtful=doubtful)
        assert sha256(self.objects[file.name]) == session.detail["sha256"] == file.digest
        return remote


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def warnings(heard: Recording, code: str) -> list[str]:
    return [event.message for event in heard.events if isinstance(event, WarningRaised) and event.code == code]


def lose_once(target: MemoryTarget, loss: Loss, at: int) -> None:
    left = [1]

    def fault(step: str, name: str, chunk: int | None) -> None:
        if step == "upload" and chunk == at and left:
            left.pop()
            raise SessionLost("its session has expired", loss)

    target.fault = fault


@pytest.mark.parametrize("size", [0, 1, CHUNK, 5 * CHUNK + 3])
def test_the_digest_is_known_before_the_session_is_opened(place: Place, size: int) -> None:
    data, target = bytes(range(256)) * 3, Declared()
    job = place.job([place.source("a", data[:size])])
    assert run(job, target) is None
    assert target.objects["a"] == data[:size]
    assert place.store.peek(job.id).files[0].digest == sha256(data[:size])


def test_a_resume_reads_nothing_twice_to_hash_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Declared()
    job = place.job([place.source("a", b"x" * (4 * CHUNK))], jobs=1)
    target.fault = stop_at(2)
    run(job, target)
    target.fault = lambda step, name, chunk: None
    read: list[int] = []
    pieces, whole = Source.pieces, Source.read

    def counting(self: Source, offset: int, size: int, *rest: int) -> Iterator[memoryview]:
        read.append(size)
        return pieces(self, offset, size, *rest)

    def at_one_go(self: Source, offset: int, size: int) -> bytes:
        read.append(size)
        return whole(self, offset, size)

    monkeypatch.setattr(Source, "pieces", counting)
    monkeypatch.setattr(Source, "read", at_one_go)
    assert run(place.store.open(job.id), target) is None
    assert sum(read) == 2 * CHUNK, "only what was not sent yet"


def stop_at(chunk: int) -> object:
    def fault(step: str, name: str, index: int | None) -> None:
        if step == "upload" and index == chunk:
            raise Local("stopped by the test", reason="test")

    return fault


def test_a_source_that_changed_beyond_what_was_sent_gets_another_session(place: Place) -> None:
    """No chunk that is there changed, but the session was opened for other content."""
    path = place.source("a", b"1" * (5 * CHUNK))
    target = Declared()
    job = place.job([path], jobs=1)
    target.fault = stop_at(2)  # type: ignore[assignment]
    run(job, target)
    new = b"1" * (4 * CHUNK) + b"2" * CHUNK
    path.write_bytes(new)
    target.fault = lambda step, name, chunk: None
    heard = Recording()
    assert run(place.store.open(job.id), target, heard) is None
    assert target.objects["a"] == new
    assert target.uploads == {}, "the old session was given up"
    assert "200 B that were there are sent again" in warnings(heard, "session_lost")[0]


def test_a_lost_session_says_what_it_costs_and_is_given_up(place: Place) -> None:
    target, heard = Declared(), Recording()
    lose_once(target, Loss.EXPIRED, at=3)
    job = place.job([place.source("a", b"y" * (5 * CHUNK))], jobs=1)
    assert run(job, target, heard) is None
    assert target.objects["a"] == b"y" * (5 * CHUNK)
    assert target.uploads == {} and target.calls["abort"] == 1
    (said,) = warnings(heard, "session_lost")
    assert "300 B" in said and "expired" in said


@pytest.mark.parametrize(
    ("loss", "kind", "reason"),
    [
        (Loss.EXPIRED, "rejected", "session_too_short"),
        (Loss.POISONED, "integrity", "damaged"),
        (Loss.GONE, "rejected", "session_lost"),
    ],
)
def test_the_second_loss_fails_the_file_with_its_cause(place: Place, loss: Loss, kind: str, reason: str) -> None:
    target = Declared()
    target.lifetime = 10.0

    def always(step: str, name: str, chunk: int | None) -> None:
        if step == "upload" and chunk == 1:
            raise SessionLost("no", loss)

    target.fault = always
    job = place.job([place.source("a", bytes(100 * CHUNK)), place.source("b", b"fine")], jobs=2)
    assert run(job, target) is None
    bad, good = place.store.peek(job.id).files
    assert good.state is JobState.COMPLETED
    assert bad.failure is not None and (bad.failure.kind, bad.failure.reason) == (kind, reason)
    assert bad.session is None, "the next run must not go on with a session that is no good"
    if loss is Loss.EXPIRED:
        assert "more than 1" in bad.failure.message and "B/s" in bad.failure.message


def test_an_old_session_that_was_lost_leaves_one_replacement_for_this_run(place: Place) -> None:
    target = Declared()
    job = place.job([place.source("a", b"z" * (5 * CHUNK))], jobs=1)
    target.fault = stop_at(3)  # type: ignore[assignment]
    run(job, target)
    target.uploads.clear()
    lose_once(target, Loss.EXPIRED, at=4)
    assert run(place.store.open(job.id), target) is None
    assert target.objects["a"] == b"z" * (5 * CHUNK)


def session_run(size: int, there: int, ends: float | None, *, slides: bool = False) -> FileRun:
    entry = FileEntry("a", "/a", Fingerprint(size, 0, 0, 0, 0), CHUNK, plan_chunks(size, CHUNK))
    plan = FilePlan("job", 0, "a", size, 0.0, CHUNK, len(entry.chunks))
    receipts = [Receipt(c.index, c.size, c.index, "") if c.offset < there else None for c in entry.chunks]
    session = Session("s", ends, {}, slides)
    return FileRun(0, entry, plan, HASHED, None, session, None, receipts, 0, resumed=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ends", "slides", "sent", "at", "warned"),
    [
        (3600.0, False, 10 * CHUNK, 20.0, False),  # 990 chunks at 0.5 a second: 1980 s, in time
        (1000.0, False, 10 * CHUNK, 20.0, True),
        (1000.0, True, 10 * CHUNK, 20.0, False),  # it moves on
        (None, False, 10 * CHUNK, 20.0, False),
        (1000.0, False, 10 * CHUNK, 5.0, False),  # too early to tell
        (30.0, False, CHUNK, 5.0, True),  # but not for a short session
        (1000.0, False, 0, 20.0, False),  # no rate yet
    ],
)
def test_the_forecast(ends: float | None, slides: bool, sent: int, at: float, warned: bool) -> None:
    runs = [session_run(1000 * CHUNK, 10 * CHUNK, ends, slides=slides)]
    forecast, meter = Forecast(), Meter()
    meter.bytes_sent, meter.since = sent, 0.0
    said = forecast.warnings(runs, meter, at)
    assert bool(said) is warned
    if said:
        assert "B/s" in said[0] and "sent again" in said[0]
        assert forecast.warnings(runs, meter, at + 1) == [], "once a session"


def test_few_sessions_are_open_and_each_file_is_finished_before_the_next(place: Place) -> None:
    """Sessions end; one that was opened early and waits for its turn would have ended before."""
    target, jobs, chunks = MemoryTarget(), 2, 30
    most = [0]

    def count(step: str, name: str, chunk: int | None) -> None:
        if step == "upload":
            most[0] = max(most[0], len(target.uploads))

    target.fault = count
    job = place.job([place.source(f"f{n:02}", bytes([n]) * chunks * CHUNK) for n in range(40)], jobs=jobs)
    assert run(job, target) is None
    assert len(target.objects) == 40
    assert most[0] <= 4, "a file of 30 chunks keeps two senders busy"


def test_what_was_lost_with_a_session_does_not_count_as_skipped(place: Place) -> None:
    target = Declared()
    job = place.job([place.source("a", b"z" * (10 * CHUNK))], jobs=1)
    target.fault = stop_at(6)  # type: ignore[assignment]
    run(job, target)
    lose_once(target, Loss.EXPIRED, at=8)
    job = place.store.open(job.id)
    outcome = pipeline.run(job, target, [0], heard := Recording(), Halt(), Hashes())
    job.close()
    assert (outcome.meter.chunks_skipped, outcome.meter.bytes_skipped) == (0, 0)
    assert outcome.meter.chunks_sent == 12
    (done,) = [event for event in heard.events if isinstance(event, FileCompleted)]
    assert done.bytes_sent == outcome.meter.bytes_sent


def test_a_bug_while_a_session_is_given_up_ends_the_run(place: Place) -> None:
    target = Declared()

    def fault(step: str, name: str, chunk: int | None) -> None:
        if step == "abort":
            raise RuntimeError("a bug")
        if step == "upload":
            raise SessionLost("gone")

    target.fault = fault
    job = place.job([place.source("a", bytes(3 * CHUNK)), place.source("b", b"b")], jobs=2)
    error = run(job, target)
    assert error is not None and error.kind == "internal"


def test_a_session_that_is_behind_before_it_was_recorded_is_opened_again(place: Place) -> None:
    target, left = MemoryTarget(), [1]

    def fault(step: str, name: str, chunk: int | None) -> None:
        if step == "reserve" and left:
            left.pop()
            raise SessionLost("it holds less", Loss.BEHIND)

    target.fault = fault
    assert run(place.job([place.source("a", b"a")]), target) is None
    assert target.objects == {"a": b"a"} and not target.uploads, "one session, and it was completed"


def test_a_session_is_on_record_while_its_first_slot_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was made while the target asked another call to pause: a kill in that pause must not lose it."""
    place, target, paused = Place(tmp_path, "memory:", CHUNK), MemoryTarget(), threading.Event()
    job, opener, known = place.job([place.source(name, b"x") for name in "ab"]), [0], list[bool]()
    hold, wait = Gate.hold, Gate.wait

    def fault(step: str, name: str, chunk: int | None) -> None:
        if step == "upload" and name == "a" and not paused.is_set():
            raise Transient("slow down", retry_after=1.0)
        if step == "lost:open" and name == "b":
            assert paused.wait(10)
            opener[0] = threading.get_ident()

    def holding(self: Gate, seconds: float) -> None:
        hold(self, seconds)
        paused.set()

    def waiting(self: Gate, halt: Halt) -> None:
        wait(self, halt)
        if threading.get_ident() == opener[0]:
            said = read(job.directory / JOURNAL).records
            known.append(any(record["step"] == "opened" and record["file"] == 1 for record in said))

    monkeypatch.setattr(Gate, "hold", holding)
    monkeypatch.setattr(Gate, "wait", waiting)
    target.fault = fault
    assert run(job, target) is None
    assert known[0], "when the pause ended, before there was a slot"


@pytest.mark.parametrize("trace", [True, False])
def test_a_file_that_is_tried_again_is_failed_no_more(place: Place, trace: bool) -> None:
    target = MemoryTarget(replace(DEFAULT_LIMITS, open_leaves_trace=trace))
    job = place.job([place.source("a", b"a")])
    job.record(steps.Failed(0, steps.Failure("rejected", "quota", "It is full.", "", 5)))

    def fault(step: str, name: str, chunk: int | None) -> None:
        raise Local("the target's disk is gone")

    target.fault = fault
    assert isinstance(run(job, target, resumed=True), Local)
    assert (job.manifest.files[0].state, job.manifest.files[0].failure) == (JobState.UPLOADING, None)
