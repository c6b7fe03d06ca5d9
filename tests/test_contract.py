"""What every target must do, through the pipeline and on its own. A new target joins by a line in `URLS`; a scheme
without one fails the first test."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Faulty, Place, quick_retries, run

from ppcli import planner
from ppcli.errors import Doubt, Local, PpcliError
from ppcli.model import Evidence, FilePlan, JobState, Part
from ppcli.target import Store, Target
from ppcli.targets import SCHEMES

CHUNK = 4096
URLS = {"pads": "pads:", "file": "file://{root}/store"}
STEPS = ["find", "open", "reserve", "upload", "confirm", "complete"]


class Stop:
    """Halts the run at the `nth` matching call, as if the process had been killed around it."""

    def __init__(self, step: str, nth: int) -> None:
        self.step, self.left = step, nth

    def __call__(self, step: str, name: str, chunk: int | None) -> None:
        if step == self.step:
            self.left -= 1
            if self.left == 0:
                raise Local("stopped by the test", reason="test")


def calm(step: str, name: str, chunk: int | None) -> None:
    """No fault."""


@pytest.fixture(params=sorted(SCHEMES))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "store").mkdir()
    with quick_retries():
        yield Place(tmp_path, URLS[request.param].format(root=tmp_path), CHUNK)


def content(target: Target, name: str) -> bytes:
    remote = target.find(name)
    assert remote is not None
    assert isinstance(target, Store)
    return b"".join(bytes(piece) for piece in target.read(remote, 0))


def random_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def test_every_scheme_is_under_contract() -> None:
    assert set(URLS) == set(SCHEMES)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 7])
def test_fresh(place: Place, size: int) -> None:
    data = random_bytes(size)
    job = place.job([place.source("a.bin", data)])
    target = place.connect()
    assert run(job, target) is None
    assert content(target, "a.bin") == data
    entry = place.store.peek(job.id).files[0]
    assert entry.state is JobState.COMPLETED
    assert all(chunk.evidence is target.limits(size).evidence for chunk in entry.chunks)
    assert entry.location == target.find("a.bin").location  # type: ignore[union-attr]


@pytest.mark.parametrize("lost", ["", "lost:"])
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("step", STEPS)
def test_resume_from_every_state(place: Place, step: str, nth: int, lost: str) -> None:
    data = random_bytes(3 * CHUNK + 100)
    job = place.job([place.source("a.bin", data)], jobs=1)
    first = Faulty(place.connect(), Stop(lost + step, nth))
    run(job, first)
    known = {c.index for c in place.store.peek(job.id).files[0].chunks if c.state == "confirmed"}
    second = Faulty(place.connect(), calm)
    assert run(place.store.open(job.id), second) is None
    assert content(second._target, "a.bin") == data
    assert not known & {chunk for _, chunk, _ in second.received}, "a confirmed chunk was sent again"
    assert sum(size for _, _, size in first.received + second.received) <= len(data) + CHUNK
    assert list(second._target.incomplete()) == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("step", ["open", "reserve", "upload", "complete"])
def test_a_lost_reply_is_resolved(place: Place, step: str) -> None:
    once = iter([None])

    def lose(at: str, name: str, chunk: int | None) -> None:
        if at == f"lost:{step}" and next(once, "over") is None:
            raise Doubt("the reply was lost")

    data = random_bytes(2 * CHUNK + 5)
    job = place.job([place.source("a.bin", data)])
    target = Faulty(place.connect(), lose)
    assert run(job, target) is None
    assert content(target._target, "a.bin") == data
    assert list(target._target.incomplete()) == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("times", [1, 99])
def test_wrong_data_is_found_and_sent_again(place: Place, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reaches the disk is not what was sent: one bit of the first chunk is flipped on its way."""
    from ppcli import disk

    real, left = disk.write_all, [times]
    data = random_bytes(2 * CHUNK)

    def flipping(fd: int, piece: bytes | memoryview, offset: int | None = None) -> None:
        raw = bytes(piece)
        if raw == data[:CHUNK] and left[0]:
            left[0] -= 1
            raw = bytes([raw[0] ^ 1]) + raw[1:]
        real(fd, raw, offset)

    monkeypatch.setattr(disk, "write_all", flipping)
    job = place.job([place.source("a.bin", data)])
    target = place.connect()
    run(job, target)
    entry = place.store.peek(job.id).files[0]
    assert left[0] < times, "the fault never happened"
    if times == 1:
        assert content(target, "a.bin") == data
    else:
        assert entry.state is JobState.FAILED
        assert entry.failure is not None and entry.failure.kind == "integrity"
        assert target.find("a.bin") is None


def test_abort_frees_everything(place: Place) -> None:
    data = random_bytes(4 * CHUNK)
    job = place.job([place.source("a.bin", data)], jobs=1)
    run(job, Faulty(place.connect(), Stop("upload", 3)))
    target = place.connect()
    assert isinstance(target, Store)
    assert [upload.job for upload in target.incomplete()] == [job.id]
    entry = place.store.peek(job.id).files[0]
    file = FilePlan(job.id, 0, entry.name, entry.size, 0.0, CHUNK, len(entry.chunks))
    target.abort(entry.session, file)
    target.abort(entry.session, file)
    assert list(target.incomplete()) == []
    assert target.find("a.bin") is None


def test_the_old_version_is_there_until_the_new_one_is_complete(place: Place) -> None:
    old, new = random_bytes(3 * CHUNK, 1), random_bytes(3 * CHUNK, 2)
    target = place.connect()
    assert run(place.job([place.source("a.bin", old)]), target) is None
    job = place.job([place.source("a.bin", new)], jobs=1)
    run(job, Faulty(place.connect(), Stop("complete", 1)))
    assert content(place.connect(), "a.bin") == old
    assert run(place.store.open(job.id), target) is None
    assert content(place.connect(), "a.bin") == new


def test_only_changed_chunks_go_when_the_source_changed_between_runs(place: Place) -> None:
    data = bytearray(random_bytes(4 * CHUNK))
    path = place.source("a.bin", bytes(data))
    job = place.job([path], jobs=1)
    run(job, Faulty(place.connect(), Stop("complete", 1)))
    data[CHUNK + 5] ^= 1
    data += b"tail"
    path.write_bytes(bytes(data))
    target = Faulty(place.connect(), calm)
    assert run(place.store.open(job.id), target) is None
    assert content(target._target, "a.bin") == bytes(data)
    assert sorted(chunk for _, chunk, _ in target.received) == [1, 4]


def test_list_read_from_the_middle_and_remove(place: Place) -> None:
    data = random_bytes(2 * CHUNK + 9)
    target = place.connect()
    assert isinstance(target, Store)
    assert run(place.job([place.source(n, data) for n in ("a.bin", "b.bin")]), target) is None
    assert [remote.name for remote in target.list("")] == ["a.bin", "b.bin"]
    assert [remote.name for remote in target.list("b")] == ["b.bin"]
    remote = target.find("a.bin")
    assert remote is not None and target.locate(remote.location) == "a.bin"
    assert b"".join(bytes(piece) for piece in target.read(remote, CHUNK + 3)) == data[CHUNK + 3 :]
    assert target.digest(remote) == target.digest(remote, fresh=True)
    assert target.remove(["a.bin", "nothing"]) == ["a.bin"]
    assert target.find("a.bin") is None
    assert content(target, "b.bin") == data


def test_immutable_never_replaces_other_content(place: Place) -> None:
    target = place.connect()
    assert run(place.job([place.source("a.bin", b"old")]), target) is None
    job = place.job([place.source("a.bin", b"new")], immutable=True)
    run(job, target)
    failure = place.store.peek(job.id).files[0].failure
    assert failure is not None and (failure.kind, failure.reason) == ("rejected", "exists")
    assert content(target, "a.bin") == b"old"


def test_five_gibibytes_are_planned(place: Place) -> None:
    path = place.sources / "sparse"
    with path.open("wb") as file:
        file.truncate(5 << 30)
    target = place.connect()
    limits = target.limits(5 << 30)
    size = planner.chunk_size(5 << 30, limits)
    assert limits.chunk_min <= size <= limits.chunk_max
    assert sum(chunk.size for chunk in planner.plan_chunks(5 << 30, size)) == 5 << 30
    assert list(target.list("")) == []  # type: ignore[attr-defined]


def test_evidence_is_only_given_for_what_is_there(place: Place) -> None:
    """Confirm reads back: a receipt for other bytes is refused."""
    from dataclasses import replace

    from ppcli.errors import Damaged
    from ppcli.source import Source

    data = random_bytes(CHUNK)
    path, target = place.source("a.bin", data), place.connect()
    file = FilePlan("job", 0, "a.bin", CHUNK, 0.0, CHUNK, 1)
    session = target.open(file, None, None)
    (slot,) = target.reserve(session, file, [Part(0, 0, CHUNK)])
    with Source(path) as source:
        receipt = target.upload(session, file, Part(0, 0, CHUNK), slot, source.body(Part(0, 0, CHUNK)))
    assert target.confirm(session, file, receipt).evidence is Evidence.CONTENT
    with pytest.raises(Damaged):
        target.confirm(session, file, replace(receipt, checksum="0" * 32))


def test_errors_are_classified(place: Place) -> None:
    """Whatever a target raises in the suite is one of ours: here, a disk that fails."""
    import errno

    from ppcli import disk

    def failing(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    job = place.job([place.source("a.bin", b"x")])
    target = place.connect()
    file = FilePlan(job.id, 0, "a.bin", 1, 0.0, CHUNK, 1)
    session = target.open(file, None, None)
    (slot,) = target.reserve(session, file, [Part(0, 0, 1)])
    job.close()
    real, disk.fsync = disk.fsync, failing
    try:
        from ppcli.source import Source

        with Source(Path(job.manifest.files[0].path)) as source, pytest.raises(PpcliError) as caught:
            target.upload(session, file, Part(0, 0, 1), slot, source.body(Part(0, 0, 1)))
    finally:
        disk.fsync = real
    assert caught.value.exit_code == 11
