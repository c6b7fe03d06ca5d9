"""The pipeline against a target in memory: seeded faults, resumes, and what is on disk after every halt."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from harness import Place, Recording, quick_retries, run
from memory import DEFAULT_LIMITS, MemoryTarget, SplitTarget

from ppcli import journal, pipeline, steps
from ppcli.errors import Credentials, Doubt, Integrity, Local, Rejected, SessionLost, Temporary, Transient
from ppcli.events import ChunkConfirmed, FileCompleted, Retrying
from ppcli.halt import Halt
from ppcli.hashing import Hashes
from ppcli.jobfiles import JOURNAL
from ppcli.jobs import Job
from ppcli.manifest import Manifest
from ppcli.model import Action, ChunkState, FilePlan, JobState, Remote, Session

CHUNK = 100


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with quick_retries():
        yield Place(tmp_path, "memory:", CHUNK)


class Script:
    """Faults drawn from a seed: `rate` of the calls fail, in a way that fits the call."""

    def __init__(self, seed: int, rate: float) -> None:
        self._random = random.Random(seed)
        self._rate = rate
        self._lock = threading.Lock()

    def __call__(self, step: str, name: str, chunk: int | None) -> None:
        with self._lock:
            draw, kind = self._random.random(), self._random.randrange(8)
        if draw > self._rate or step in ("find", "abort"):
            return
        if kind < 3:
            raise Doubt("the reply was lost") if step.startswith("lost:") else Transient("503")
        if kind == 3:
            raise Local("the disk is full", reason="disk_full")
        if kind == 4:
            raise Credentials("the token expired")
        if kind == 5 and step in ("upload", "survey", "reserve"):
            raise SessionLost("410 Gone")
        if kind == 6:
            raise Temporary("the network is gone")


def states(plan: Manifest) -> list[object]:
    return [(f.name, f.state, f.session, f.completing, f.chunks) for f in plan.files]


@pytest.mark.parametrize("seed", range(200))
def test_scripted_failures_end_complete(place: Place, seed: int) -> None:
    """However a run is halted, what the disk says is what the run knew, and resumes bring every byte there."""
    rng = random.Random(seed)
    contents = {f"f{n}": rng.randbytes(rng.choice([0, 1, 99, 100, 101, 250, 1000])) for n in range(rng.randint(1, 6))}
    paths = [place.source(name, data) for name, data in contents.items()]
    job = place.job(paths, jobs=rng.choice([1, 3, 8]))
    limits = replace(DEFAULT_LIMITS, sends=rng.choice([None, None, 1, 2]), open_leaves_trace=rng.random() < 0.5)
    target = rng.choice([MemoryTarget, SplitTarget])(limits)
    target.fault = Script(seed, rng.choice([0.02, 0.1, 0.3]))
    confirmed: set[tuple[str, int]] = set()
    for attempt in range(60):
        heard = Recording()
        if attempt == 40:
            target.fault = lambda step, name, chunk: None
        run(job, target, heard)
        assert states(place.store.peek(job.id)) == states(job.manifest), "the disk says something else"
        told = {(e.name, e.chunk) for e in heard.events if isinstance(e, ChunkConfirmed)}
        assert len(told) == sum(isinstance(e, ChunkConfirmed) for e in heard.events) or target.fault is not None
        confirmed |= told
        job = place.store.open(job.id)
        if all(entry.state is JobState.COMPLETED for entry in job.manifest.files):
            break
    job.close()
    assert target.objects == contents
    assert target.uploads == {} or all(name in contents for name in (u.name for u in target.uploads.values()))


def test_a_confirmed_chunk_is_never_sent_again(place: Place) -> None:
    data = random.Random(3).randbytes(50 * CHUNK)
    job = place.job([place.source("a", data)], jobs=4)
    target = MemoryTarget()
    calls = iter(range(1000))

    def stop(step: str, name: str, chunk: int | None) -> None:
        if step == "upload" and next(calls) == 25:
            raise Temporary("unplugged")

    target.fault = stop
    assert isinstance(run(job, target), Temporary)
    known = {c.index for c in place.store.peek(job.id).files[0].chunks if c.state is ChunkState.CONFIRMED}
    assert known
    target.received.clear()
    target.fault = lambda step, name, chunk: None
    heard = Recording()
    assert run(place.store.open(job.id), target, heard) is None
    assert target.objects["a"] == data
    assert not known & {chunk for _, chunk in target.received}
    assert not known & {e.chunk for e in heard.events if isinstance(e, ChunkConfirmed)}
    (done,) = [e for e in heard.events if isinstance(e, FileCompleted)]
    assert done.action is Action.RESUMED


def test_at_most_jobs_chunks_are_in_flight(place: Place) -> None:
    job = place.job([place.source("a", bytes(200 * CHUNK))], jobs=3)
    target = MemoryTarget()
    assert run(job, target) is None
    assert 1 <= target.most_in_flight <= 3


def test_a_target_that_wants_order_gets_one_chunk_at_a_time_in_order(place: Place) -> None:
    target = MemoryTarget(replace(DEFAULT_LIMITS, sends=1))
    sent: list[int] = []
    target.fault = lambda step, name, chunk: sent.append(chunk) if step == "upload" and chunk is not None else None
    assert run(place.job([place.source("a", bytes(30 * CHUNK))], jobs=8), target) is None
    assert sent == list(range(30))
    assert target.most_in_flight == 1


def test_one_bad_file_does_not_stop_the_others(place: Place) -> None:
    target = MemoryTarget()

    def refuse(step: str, name: str, chunk: int | None) -> None:
        if name == "bad" and step == "upload":
            raise Rejected("too large", reason="too_large")

    target.fault = refuse
    job = place.job([place.source(name, bytes(3 * CHUNK)) for name in ("a", "bad", "z")])
    assert run(job, target) is None
    assert set(target.objects) == {"a", "z"}
    bad = place.store.peek(job.id).files[1]
    assert (bad.state, bad.failure and bad.failure.reason) == (JobState.FAILED, "too_large")


@pytest.mark.parametrize("attempts", [1, 5])
def test_retries_are_bounded_and_told(place: Place, attempts: int) -> None:
    target, tries = MemoryTarget(), []

    def fail(step: str, name: str, chunk: int | None) -> None:
        if step == "upload" and chunk == 1:
            tries.append(chunk)
            raise Transient("503 Service Unavailable")

    target.fault = fail
    heard = Recording()
    error = run(place.job([place.source("a", bytes(2 * CHUNK))], retries=attempts), target, heard)
    assert isinstance(error, Temporary) and "503" in error.message
    assert len(tries) == attempts
    assert [e.attempt for e in heard.events if isinstance(e, Retrying)] == list(range(1, attempts))


def test_a_long_retry_after_ends_the_run_and_names_it(place: Place) -> None:
    target = MemoryTarget()

    def wait(step: str, name: str, chunk: int | None) -> None:
        if step == "upload":
            raise Transient("429 Too Many Requests", retry_after=301)

    target.fault = wait
    error = run(place.job([place.source("a", b"x")]), target)
    assert isinstance(error, Temporary) and "301" in error.message


def test_damage_that_stays_is_an_integrity_failure_of_that_file(place: Place) -> None:
    target = MemoryTarget()
    target.mangle = lambda name, chunk, data: b"?" * len(data) if (name, chunk) == ("a", 1) else data
    job = place.job([place.source("a", bytes(3 * CHUNK)), place.source("b", b"fine")], retries=3)
    assert run(job, target) is None
    failure = place.store.peek(job.id).files[0].failure
    assert failure is not None and failure.exit_code == Integrity("").exit_code
    assert target.received["a", 1] == 3
    assert target.objects == {"b": b"fine"}


def test_a_source_that_changes_while_it_is_sent_never_becomes_a_mixture(place: Place) -> None:
    path = place.source("a", b"1" * (4 * CHUNK))
    target = MemoryTarget()

    def change(step: str, name: str, chunk: int | None) -> None:
        if step == "lost:upload" and chunk == 2:
            path.write_bytes(b"2" * (4 * CHUNK))

    target.fault = change
    job = place.job([path], jobs=1)
    assert run(job, target) is None
    entry = place.store.peek(job.id).files[0]
    assert entry.failure is not None and (entry.failure.kind, entry.failure.reason) == ("source", "changed")
    assert target.objects == {}
    target.fault = lambda step, name, chunk: None
    assert run(place.store.open(job.id), target) is None
    assert target.objects["a"] == b"2" * (4 * CHUNK)


def test_a_touched_source_goes_on_after_it_was_read_again(place: Place) -> None:
    path = place.source("a", b"1" * (4 * CHUNK))
    target = MemoryTarget()
    target.fault = lambda step, name, chunk: path.touch() if step == "lost:upload" and chunk == 2 else None
    assert run(place.job([path], jobs=1), target) is None
    assert target.objects["a"] == b"1" * (4 * CHUNK)


def test_a_session_is_reopened_once_and_the_second_loss_fails_the_file(place: Place) -> None:
    target = MemoryTarget()

    def lose(step: str, name: str, chunk: int | None) -> None:
        if step == "upload" and chunk == 1:
            raise SessionLost("410 Gone")

    target.fault = lose
    job = place.job([place.source("a", bytes(3 * CHUNK))], jobs=1)
    assert run(job, target) is None
    failure = place.store.peek(job.id).files[0].failure
    assert failure is not None and failure.reason == "session_lost"
    assert target.calls["open"] == 2


@pytest.mark.parametrize(("times", "state"), [(1, JobState.COMPLETED), (2, JobState.FAILED)])
def test_a_session_that_is_taken_over_and_gone_at_once_is_replaced_once(
    place: Place, times: int, state: JobState
) -> None:
    """Whoever began it has completed it, or given it up, since it was found."""
    target = TakenOver()
    gone = iter(range(times))

    def lose(step: str, name: str, chunk: int | None) -> None:
        if (step, name) == ("survey", "a") and next(gone, None) is not None:
            raise SessionLost("no such upload")

    target.fault = lose
    job = place.job([place.source("a", bytes(3 * CHUNK)), place.source("b", b"b")], jobs=1)
    assert run(job, target) is None
    assert [entry.state for entry in job.manifest.files] == [state, JobState.COMPLETED]


class TakenOver(MemoryTarget):
    """Every session is one that somebody else began."""

    def open(self, file: FilePlan, old: Session | None, base: Remote | None) -> Session:
        return replace(super().open(file, old, base), taken_over=True)


def test_a_failed_fsync_halts_and_keeps_what_was_durable(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from ppcli import disk

    job = place.job([place.source("a", bytes(20 * CHUNK))], jobs=1)
    real, left = disk.fsync, [15]

    def failing(fd: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        real(fd)

    target = MemoryTarget()
    monkeypatch.setattr(disk, "fsync", failing)
    heard = Recording()
    error = run(job, target, heard)
    monkeypatch.setattr(disk, "fsync", real)
    assert isinstance(error, Local) and error.reason == "disk_full"
    told = {e.chunk for e in heard.events if isinstance(e, ChunkConfirmed)}
    known = {c.index for c in place.store.peek(job.id).files[0].chunks if c.state is ChunkState.CONFIRMED}
    assert told <= known
    assert run(place.store.open(job.id), target) is None
    assert target.objects["a"] == bytes(20 * CHUNK)


def test_a_stop_lets_chunks_in_flight_end(place: Place) -> None:
    target, halt = MemoryTarget(), Halt()

    def stop(step: str, name: str, chunk: int | None) -> None:
        if step == "upload" and chunk == 5:
            halt.request(Temporary("stop"))

    target.fault = stop
    job = place.job([place.source("a", bytes(100 * CHUNK))], jobs=2)
    job.record(steps.JobChanged(JobState.UPLOADING))
    pipeline.run(job, target, [0], Recording(), halt, Hashes())
    chunks = job.manifest.files[0].chunks
    job.close()
    assert chunks[5].state is ChunkState.CONFIRMED
    assert sum(c.state is ChunkState.CONFIRMED for c in chunks) < 100


def small_job(place: Place) -> tuple[Job, Path]:
    """A completed job whose journal still has every line."""
    job = place.job([place.source("a", bytes(3 * CHUNK)), place.source("b", b"b")], jobs=2)
    assert run(job, MemoryTarget()) is None
    return job, place.store.directory / job.id / JOURNAL


def test_every_prefix_of_a_journal_loads(place: Place) -> None:
    job, path = small_job(place)
    whole = path.read_bytes()
    lines = [len(b"".join(whole.splitlines(keepends=True)[:n])) for n in range(whole.count(b"\n") + 1)]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        opened = place.store.open(job.id)
        assert opened.notices == [], "a cut is no damage"
        assert opened.manifest.seq == sum(end <= cut for end in lines[1:])
        opened.close()
        assert len(path.read_bytes()) == max(end for end in lines if end <= cut)


@pytest.mark.parametrize("position", [0.1, 0.5, 0.8])
def test_damage_in_the_middle_keeps_the_prefix_and_sets_the_file_aside(place: Place, position: float) -> None:
    job, path = small_job(place)
    whole = bytearray(path.read_bytes())
    at = int(len(whole) * position)
    whole[at] ^= 0x20
    path.write_bytes(bytes(whole))
    opened = place.store.open(job.id)
    assert len(opened.notices) == 1
    assert opened.manifest.seq == bytes(whole[:at]).count(b"\n")
    assert list(path.parent.glob("journal.jsonl.corrupt-*"))
    opened.close()
    assert place.store.open(job.id).notices == []


@pytest.mark.parametrize(
    "body", ['{"seq":2,"step":"compared","file":', '{"seq":9,"step":"compared"', '{"seq":"2"', "[2"]
)
def test_a_line_whose_checksum_fits_and_whose_text_does_not_ends_the_sound_prefix(body: str) -> None:
    """Lines are parsed together; one that is wrong does not take those before it along."""
    good = [journal.encode(f'{{"seq":{seq},"step":"compared","file":0') for seq in (1, 2)]
    reading = journal.parse(good[0] + journal.encode(body) + good[1])
    assert [record["seq"] for record in reading.records] == [1]
    assert (reading.sound, reading.torn, reading.damaged) == (len(good[0]), False, True)


def test_a_stale_journal_after_a_fold_is_old_news(place: Place) -> None:
    """Killed between writing the manifest and emptying the journal."""
    job, path = small_job(place)
    whole = path.read_bytes()
    opened = place.store.open(job.id)
    before = states(opened.manifest)
    opened.fold()
    opened.close()
    path.write_bytes(whole)
    assert states(place.store.open(job.id).manifest) == before
    assert len(journal.read(path).records) == whole.count(b"\n")
