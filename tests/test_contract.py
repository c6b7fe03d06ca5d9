"""What every target must do, through the pipeline and on its own. A new target joins by a line in `peer`; a protocol
without one fails the first test."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from graphwiz_kit import running_graphwiz
from harness import Faulty, Place, quick_retries, run
from peers import Bucket, Disk, Padded, Peer, Rufh, Served, Storage, Tus, Upstream
from rufh_kit import RufhServer, running_rufh
from server_kit import ServerProcess, running_server
from tus_kit import TusServer, running_tus

from ppcli import planner
from ppcli.errors import Damaged, Doubt, Local, PpcliError, Transient
from ppcli.model import FilePlan, JobState, Part
from ppcli.source import Source
from ppcli.target import Ranged, Store
from ppcli.targets import SCHEMES

CHUNK = 4096
LIMITS = {"max_model": "1GiB", "sessions_per_user": 1000, "asset_chunk_min": 1, "uploads_per_hour": 100_000}
TESTS = itertools.count()
MARKING = "graphwiz+http like the real one"
"""A server that marks chunks and compares none: that what is stored is not what was sent is beyond it."""
UNDER_CONTRACT = ["pads", "pads+http", "file", "putplace+http", "graphwiz+http", MARKING]
UNDER_CONTRACT += ["tus+http", "rufh+http", "s3"]
COUNTING = ["tus+http", "rufh+http"]
"""Protocols without names, whose servers count bytes and compare none: a few promises are beyond them."""
NAMING = [scheme for scheme in UNDER_CONTRACT if scheme not in COUNTING]
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


def unknown_to_all(target: Faulty, lost: str) -> int:
    """Sessions whose id was in a lost reply: they may be on the server until they expire."""
    return int(lost == "lost:open" and target.limits(2 * CHUNK).open_leaves_trace)


def calm(step: str, name: str, chunk: int | None) -> None:
    """No fault."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("server"), LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def tus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TusServer]:
    with running_tus(tmp_path_factory.mktemp("tus"), "concatenation") as running:
        yield running


@pytest.fixture(scope="module")
def rufh() -> Iterator[RufhServer]:
    with running_rufh() as running:
        yield running


@pytest.fixture(params=UNDER_CONTRACT)
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Peer]:
    (tmp_path / "store").mkdir()
    match request.param:
        case "pads":
            yield Disk("pads:")
        case "file":
            yield Disk(f"file://{tmp_path}/store")
        case "pads+http":
            padded = Padded(request.getfixturevalue("server"))
            yield padded
            padded.close()
        case "graphwiz+http":
            storage = Storage(request.getfixturevalue("server"))
            yield storage
            storage.close()
        case scheme if scheme == MARKING:
            with running_graphwiz() as server:
                server.chunk_bounds = (1, 20 << 20)
                upstream = Upstream(server)
                yield upstream
                upstream.close()
        case "tus+http":
            tus = Tus(request.getfixturevalue("tus"))
            yield tus
            tus.close()
        case "rufh+http":
            rufh = Rufh(request.getfixturevalue("rufh"))
            yield rufh
            rufh.close()
        case "s3":
            bucket = Bucket(request.getfixturevalue("s3"))
            yield bucket
            bucket.close()
        case scheme:
            served = Served(scheme, request.getfixturevalue("server"))
            yield served
            served.close()


@pytest.fixture
def place(peer: Peer, tmp_path: Path) -> Iterator[Place]:
    with quick_retries():
        yield Place(tmp_path, peer.url, CHUNK, peer.http)


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def random_bytes(size: int, seed: int = 1) -> bytes:
    """Content that no other test has: a server that knows it already is sent nothing."""
    return random.Random(f"{next(TESTS)} {seed}").randbytes(size)


def test_every_protocol_is_under_contract() -> None:
    assert {SCHEMES[scheme.split()[0]] for scheme in UNDER_CONTRACT} == set(SCHEMES.values())


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 7])
def test_fresh(place: Place, peer: Peer, size: int) -> None:
    data = random_bytes(size)
    job = place.job([place.source("a.bin", data)])
    target = place.connect()
    assert run(job, target) is None
    assert peer.content(target, "a.bin") == data
    entry = place.store.peek(job.id).files[0]
    assert entry.state is JobState.COMPLETED
    assert all(chunk.evidence is target.limits(size).evidence for chunk in entry.chunks)
    remote = target.find("a.bin")
    assert entry.location and (remote is None or entry.location == remote.location)


@pytest.mark.parametrize("lost", ["", "lost:"])
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("step", STEPS)
def test_resume_from_every_state(place: Place, peer: Peer, step: str, nth: int, lost: str) -> None:
    data = random_bytes(3 * CHUNK + 100)
    job = place.job([place.source("a.bin", data)], jobs=1)
    first = Faulty(place.connect(), Stop(lost + step, nth))
    run(job, first)
    known = {c.index for c in place.store.peek(job.id).files[0].chunks if c.state == "confirmed"}
    second = Faulty(place.connect(), calm)
    assert run(place.store.open(job.id), second) is None
    assert peer.content(second._target, "a.bin") == data
    assert not known & {chunk for _, chunk, _ in second.received}, "a confirmed chunk was sent again"
    assert sum(size for _, _, size in first.received + second.received) <= len(data) + CHUNK
    assert peer.unfinished(second._target) <= (unknown_to_all(first, lost + step) if nth == 1 else 0)


@pytest.mark.parametrize("step", ["open", "reserve", "upload", "complete"])
def test_a_lost_reply_is_resolved(place: Place, peer: Peer, step: str) -> None:
    once = iter([None])

    def lose(at: str, name: str, chunk: int | None) -> None:
        if at == f"lost:{step}" and next(once, "over") is None:
            raise Doubt("the reply was lost")

    data = random_bytes(2 * CHUNK + 5)
    job = place.job([place.source("a.bin", data)])
    target = Faulty(place.connect(), lose)
    assert run(job, target) is None
    assert peer.content(target._target, "a.bin") == data
    assert peer.unfinished(target._target) <= unknown_to_all(target, f"lost:{step}")


@pytest.mark.parametrize("peer", [scheme for scheme in NAMING if scheme != MARKING], indirect=True)
@pytest.mark.parametrize("times", [1, 99])
def test_wrong_data_is_found_and_sent_again(place: Place, peer: Peer, times: int) -> None:
    """What is stored is not what was sent: one bit of the first chunk is flipped on its way."""
    data = random_bytes(2 * CHUNK)
    job = place.job([place.source("a.bin", data)])
    target = place.connect()
    with peer.flip(data[:CHUNK], times) as left:
        run(job, target)
    entry = place.store.peek(job.id).files[0]
    assert left[0] < times, "the fault never happened"
    if times == 1:
        assert peer.content(target, "a.bin") == data
    else:
        assert entry.state is JobState.FAILED
        assert entry.failure is not None and entry.failure.kind == "integrity"
        assert target.find("a.bin") is None


def test_what_somebody_else_finished_meanwhile_is_not_sent_again(place: Place, peer: Peer) -> None:
    """Of two that were not begun, one is there by now, and under the other name is other content of the same size."""
    data = [random_bytes(3 * CHUNK, seed) for seed in range(3)]
    paths = [place.source(f"{name}.bin", one) for name, one in zip("abc", data, strict=True)]
    job = place.job(paths, jobs=1)
    run(job, Faulty(place.connect(), Stop("open", 2)))
    target = place.connect()
    assert run(place.job(paths[:2]), target) is None
    if target.find("a.bin", sha256(data[0])) is None:
        return  # it cannot be asked for names
    other = place.job([place.source("other", random_bytes(3 * CHUNK, 9))])
    other.manifest.files[0].name = "c.bin"
    assert run(other, target) is None
    counted = Faulty(place.connect(), lambda step, name, chunk: None)
    assert run(place.store.open(job.id), counted, resumed=True) is None
    sent = {name for name, _, _ in counted.received}
    assert "b.bin" not in sent and "c.bin" in sent
    assert [peer.content(target, f"{name}.bin") for name in "ab"] == data[:2]


def test_abort_frees_everything(place: Place, peer: Peer) -> None:
    data = random_bytes(4 * CHUNK)
    job = place.job([place.source("a.bin", data)], jobs=1)
    run(job, Faulty(place.connect(), Stop("upload", 3)))
    target = place.connect()
    assert peer.unfinished(target) == 1
    entry = place.store.peek(job.id).files[0]
    file = FilePlan(job.id, 0, entry.name, entry.size, 0.0, CHUNK, len(entry.chunks))
    target.abort(entry.session, file)
    target.abort(entry.session, file)
    assert peer.unfinished(target) == 0
    assert target.find("a.bin") is None


@pytest.mark.parametrize("peer", NAMING, indirect=True)
def test_the_old_version_is_there_until_the_new_one_is_complete(place: Place, peer: Peer) -> None:
    old, new = random_bytes(3 * CHUNK, 1), random_bytes(3 * CHUNK, 2)
    target = place.connect()
    assert run(place.job([place.source("a.bin", old)]), target) is None
    job = place.job([place.source("a.bin", new)], jobs=1)
    run(job, Faulty(place.connect(), Stop("complete", 1)))
    assert peer.content(place.connect(), "a.bin") == old
    assert run(place.store.open(job.id), target) is None
    assert peer.content(place.connect(), "a.bin") == new


def test_only_changed_chunks_go_when_the_source_changed_between_runs(place: Place, peer: Peer) -> None:
    data = bytearray(random_bytes(4 * CHUNK))
    path = place.source("a.bin", bytes(data))
    job = place.job([path], jobs=1)
    run(job, Faulty(place.connect(), Stop("complete", 1)))
    data[CHUNK + 5] ^= 1
    data += b"tail"
    path.write_bytes(bytes(data))
    target = Faulty(place.connect(), calm)
    assert run(place.store.open(job.id), target) is None
    assert peer.content(target._target, "a.bin") == bytes(data)
    changed = [1, 4] if target.limits(0).replan else [0, 1, 2, 3, 4]
    assert sorted(chunk for _, chunk, _ in target.received) == changed


@pytest.mark.parametrize("peer", NAMING, indirect=True)
def test_list_read_from_the_middle_and_remove(place: Place, peer: Peer) -> None:
    data = random_bytes(2 * CHUNK + 9)
    target = place.connect()
    assert isinstance(target, Store)
    assert run(place.job([place.source(n, data) for n in ("a.bin", "b.bin")]), target) is None
    assert [remote.name for remote in target.list("")] == ["a.bin", "b.bin"]
    assert [remote.name for remote in target.list("b")] == ["b.bin"]
    remote = target.find("a.bin")
    assert remote is not None and target.locate(remote.location) == "a.bin"
    assert b"".join(bytes(piece) for piece in target.read(remote, CHUNK + 3)) == data[CHUNK + 3 :]
    if isinstance(target, Ranged):
        spans = [(0, 1), (CHUNK - 3, CHUNK + 5), (CHUNK, CHUNK), (2 * CHUNK, 9)]
        ranges = [b"".join(bytes(piece) for piece in target.read_range(remote, *span)) for span in spans]
        assert ranges == [data[start : start + size] for start, size in spans]
    assert target.digest(remote) == target.digest(remote, fresh=True)
    assert target.remove(["a.bin", "nothing"]) == ["a.bin"]
    assert target.find("a.bin") is None
    assert peer.content(target, "b.bin") == data


@pytest.mark.parametrize("peer", NAMING, indirect=True)
def test_immutable_never_replaces_other_content(place: Place, peer: Peer) -> None:
    target = place.connect()
    assert run(place.job([place.source("a.bin", b"old")]), target) is None
    job = place.job([place.source("a.bin", b"new")], immutable=True)
    run(job, target)
    failure = place.store.peek(job.id).files[0].failure
    assert failure is not None and (failure.kind, failure.reason) == ("rejected", "exists")
    assert peer.content(target, "a.bin") == b"old"


def test_five_gibibytes_are_planned(place: Place) -> None:
    path = place.sources / "sparse"
    with path.open("wb") as file:
        file.truncate(5 << 30)
    target = place.connect()
    limits = target.limits(5 << 30)
    size = planner.chunk_size(5 << 30, limits)
    assert limits.chunk_min <= size <= limits.chunk_max
    assert sum(chunk.size for chunk in planner.plan_chunks(5 << 30, size)) == 5 << 30
    assert not isinstance(target, Store) or list(target.list("")) == []


def test_evidence_is_only_given_for_what_is_there(place: Place) -> None:
    """Confirm reads back, or the reply was the proof: a receipt for other bytes is refused."""
    data = random_bytes(CHUNK)
    path, target = place.source("a.bin", data), place.connect()
    file = FilePlan("job", 0, "a.bin", CHUNK, 0.0, CHUNK, 1, digest=sha256(data))
    session = target.open(file, None, None)
    (slot,) = target.reserve(session, file, [Part(0, 0, CHUNK)])
    with Source(path) as source:
        receipt = target.upload(session, file, Part(0, 0, CHUNK), slot, source.body(Part(0, 0, CHUNK)))
    assert target.confirm(session, file, receipt).evidence is target.limits(CHUNK).evidence
    with pytest.raises(Damaged):
        target.confirm(session, file, replace(receipt, checksum="0" * 32, etag=None, evidence=None))


def test_errors_are_classified(place: Place, peer: Peer) -> None:
    """Whatever a target raises in the suite is one of ours: here, a disk that fails, or a network."""
    job = place.job([place.source("a.bin", b"x")])
    target = place.connect()
    file = FilePlan(job.id, 0, "a.bin", 1, 0.0, CHUNK, 1, digest=sha256(b"x"))
    session = target.open(file, None, None)
    (slot,) = target.reserve(session, file, [Part(0, 0, 1)])
    job.close()
    ours = pytest.raises((PpcliError, Transient))
    with peer.fail(), Source(Path(job.manifest.files[0].path)) as source, ours as caught:
        target.upload(session, file, Part(0, 0, 1), slot, source.body(Part(0, 0, 1)))
    assert isinstance(caught.value, Transient) or caught.value.exit_code == 11
