"""ppcli against a real tus server, as processes: kills, cut connections, restarts, in both ways to send a file.

With PPCLI_TEST_TUS_URL (`tus+http://host/files/`) what needs no hand on the server runs against that one; it must give
uploads back to GET, or its answers are all that is looked at.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cli_kit import Cli, Ran, finish, until
from harness import quick_retries
from recording_proxy import Exchange, Proxy, Rule
from tus_kit import TusServer, running_tus

from ppcli.halt import Halt
from ppcli.jobs import JobStore
from ppcli.model import ChunkState

ELSEWHERE = os.environ.get("PPCLI_TEST_TUS_URL")
PIECE = 256 << 10
SLEEP = Halt.sleep


@pytest.fixture(scope="module")
def ordered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TusServer]:
    with running_tus(tmp_path_factory.mktemp("ordered"), "concatenation") as server:
        yield server


@pytest.fixture(scope="module")
def concatenating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TusServer]:
    with running_tus(tmp_path_factory.mktemp("concatenating")) as server:
        yield server


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    with quick_retries():
        yield


@contextlib.contextmanager
def patient() -> Iterator[None]:
    """With the waiting between attempts that a server needs: to start, or to notice that a connection was cut."""
    quick, Halt.sleep = Halt.sleep, SLEEP  # type: ignore[method-assign]
    try:
        yield
    finally:
        Halt.sleep = quick  # type: ignore[method-assign]


class Bench:
    """A command line, a proxy, and the server behind it (None: one that we have no hand on)."""

    def __init__(self, root: Path, server: TusServer | None, port: int, path: str) -> None:
        self.server = server
        self.wire = Proxy(port)
        self.cli = Cli(root, f"tus+http://{self.wire.address}{path}")
        self.cli.env["HTTP_PROXY"] = ""

    def put(self, name: str, *words: str) -> Ran:
        return self.cli("put", name, "--chunk-size", str(PIECE), "--json", *words)

    def start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        return self.cli.start("put", name, "--chunk-size", str(PIECE), "--json", *words)

    def holds(self, ran: Ran, data: bytes) -> None:
        """The command succeeded, and the file is where it says."""
        assert ran.code == 0, ran.stdout.decode() + ran.err
        (done,) = ran.of("file_completed")
        if self.server:
            assert hashlib.sha256(self.server.at(done["location"])).digest() == hashlib.sha256(data).digest()
            self.left_nothing(done["name"])
        else:
            straight = done["location"].replace(self.wire.address, "{}:{}".format(*self.wire.upstream))
            got = httpx.get(straight, trust_env=False, timeout=60)
            assert got.status_code in (404, 405, 501) or got.content == data

    def left_nothing(self, name: str) -> None:
        """An upload that was created in the instant before a kill is known to nobody: it is empty, and expires."""
        assert self.server is None or not any(one["offset"] for one in self.server.unfinished(name))

    def sent(self) -> int:
        return sum(seen.passed for seen in self.wire.seen if seen.method == "PATCH")

    def settled(self) -> None:
        """The client is gone, and the server has noticed."""
        until(lambda: self.wire.open == 0)
        if self.server:
            until(lambda: all(one["offset"] == one["held"] for one in self.server.uploads()))


@pytest.fixture(params=["ordered", "concatenating"])
def bench(request: pytest.FixtureRequest, root: Path) -> Iterator[Bench]:
    if ELSEWHERE:
        place = httpx.URL(ELSEWHERE.removeprefix("tus+"))
        if request.param == "ordered":
            pytest.skip("one server, one way")
        made = Bench(root, None, place.port or 80, place.path)
    else:
        server = request.getfixturevalue(request.param)
        made = Bench(root, server, server.port, "/files/")
    yield made
    made.wire.close()


@pytest.fixture
def in_order(request: pytest.FixtureRequest, root: Path) -> Iterator[Bench]:
    server = request.getfixturevalue("ordered")
    made = Bench(root, server, server.port, "/files/")
    yield made
    made.wire.close()


def confirmed(process: subprocess.Popen[bytes], count: int) -> None:
    """Wait until so many chunks are said to be confirmed."""
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        assert event["event"] != "result", event
        count -= event["event"] == "chunk_confirmed"
        if count <= 0:
            return


def known(cli: Cli) -> int:
    """Bytes that the journals have as confirmed."""
    store = JobStore(cli.data)
    files = [file for job in store.ids() for file in store.peek(job).files]
    return sum(c.size for file in files for c in file.chunks if c.state is ChunkState.CONFIRMED)


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, 5 * PIECE + 7])
def test_a_file_arrives(bench: Bench, size: int) -> None:
    data = bench.cli.source(f"fresh-{size}.bin", size)
    ran = bench.put(f"fresh-{size}.bin")
    bench.holds(ran, data)
    assert bench.sent() == ran.result["bytes_sent"] == size
    chunks = bench.cli("status", "--all", "--json").of("job")[0]
    assert (chunks["chunks"]["confirmed"], chunks["evidence"]) == (max(1, -(-size // PIECE)), "offset")


def test_many_files_at_once(bench: Bench) -> None:
    names = {f"tree/{number}.bin": bench.cli.source(f"tree/{number}.bin", number * 9000) for number in range(30)}
    ran = bench.cli("put", "-r", "tree", "--chunk-size", str(PIECE), "--json")
    assert ran.code == 0 and len(ran.of("file_completed")) == len(names)
    if bench.server:
        for done in ran.of("file_completed"):
            assert bench.server.at(done["location"]) == names[f"tree/{done['name']}"]


@pytest.mark.parametrize(
    "size", [6 << 20, pytest.param(300 << 20, marks=[pytest.mark.sweep, pytest.mark.timeout(600)])]
)
def test_killed_and_resumed(bench: Bench, size: int) -> None:
    """SIGKILL, three times: what is confirmed does not go again, and of the rest only what the server lacks."""
    name, rng, step = f"killed-{size}.bin", random.Random(size), size // (5 * PIECE)
    data = b"".join(rng.randbytes(1 << 20) for _ in range(size >> 20))
    (bench.cli.root / name).write_bytes(data)
    for turn in range(3):
        before, start = known(bench.cli), bench.sent()
        process = bench.start(name, "--jobs", "4", "--limit-rate", str(size // 2))
        confirmed(process, rng.randint(1, step) + (turn > 0))
        process.kill()
        process.communicate()
        assert bench.sent() - start <= size - before, "a confirmed chunk went again"
    bench.settled()
    start = bench.sent()
    there = sum(one["offset"] for one in bench.server.unfinished(name)) if bench.server else known(bench.cli)
    ran = bench.put(name)
    bench.holds(ran, data)
    if bench.server:
        assert bench.sent() - start == ran.result["bytes_sent"] == size - there, "only what the server lacked"
    (done,) = ran.of("file_completed")
    assert (done["action"], done["digest"]) == ("resumed", f"sha256:{hashlib.sha256(data).hexdigest()}")


@pytest.mark.parametrize(
    ("method", "nth"), [("OPTIONS", 1), ("POST", 1), ("POST", 2), ("PATCH", 1), ("PATCH", 5), ("HEAD", 1)]
)
def test_a_lost_reply(bench: Bench, method: str, nth: int) -> None:
    """Every kind of request, its reply cut off. Bytes that arrived do not go again."""
    data = bench.cli.source(f"lost-{method}-{nth}.bin", 4 * PIECE + 3)
    seen = iter(range(1, 1000))
    cut = Rule(lambda e: e.method == method and next(seen) == nth, cut=True)
    bench.wire.at(cut)
    if method == "HEAD":  # only a doubt asks
        bench.wire.at(Rule(lambda e: e.method == "PATCH", cut=True, times=2))
    ran = bench.put(f"lost-{method}-{nth}.bin", "--jobs", "2")
    assert ran.code == 0
    (done,) = ran.of("file_completed")
    if bench.server:
        assert bench.server.at(done["location"]) == data
        bench.left_nothing(done["name"])
        assert len(bench.server.unfinished(done["name"])) == (method == "POST" and not cut.times)
    assert bench.sent() == len(data)


def test_the_reply_that_names_what_was_put_together_is_lost(root: Path, concatenating: TusServer) -> None:
    """The server has dropped the parts by then, and nothing tells where the whole is: it is sent again, and said so."""
    if ELSEWHERE:
        pytest.skip("it is about this server's way")
    bench = Bench(root, concatenating, concatenating.port, "/files/")
    data = bench.cli.source("final.bin", 2 * PIECE)
    posts = iter(range(1, 1000))
    bench.wire.at(Rule(lambda e: e.method == "POST" and next(posts) == 3, cut=True))
    ran = bench.put("final.bin")
    bench.wire.close()
    bench.holds(ran, data)
    assert [warned["code"] for warned in ran.of("warning")] == ["session_lost"]
    assert bench.sent() == 2 * len(data)


@pytest.mark.parametrize("cut", [1, PIECE // 2, PIECE - 1])
def test_a_connection_cut_in_the_middle_of_a_chunk(in_order: Bench, cut: int) -> None:
    """What arrived before the cut stays, the rest goes, and the chunk's checksum is right."""
    bench, name = in_order, f"cut-{cut}.bin"
    data = bench.cli.source(name, 3 * PIECE)
    bench.wire.at(Rule(lambda e: e.method == "PATCH", before=lambda e: setattr(e, "limit", cut)))
    with patient():
        ran = bench.put(name)
    bench.holds(ran, data)
    assert len(data) <= bench.sent() <= len(data) + cut, "nothing went twice that the server kept"


def test_the_server_is_killed_and_started_again(bench: Bench) -> None:
    if bench.server is None:
        pytest.skip("no hand on the server")
    server = bench.server
    data = bench.cli.source("restart.bin", 8 * PIECE)

    def restart(_: Exchange) -> None:
        server.kill()
        server.start()

    patches = iter(range(1, 1000))
    bench.wire.at(Rule(lambda e: e.method == "PATCH" and next(patches) in (3, 6), before=restart, times=2))
    with patient():
        ran = bench.put("restart.bin", "--jobs", "1")
    bench.holds(ran, data)
    assert len(bench.wire.calls("PATCH", "")) >= 8


def test_cancel_leaves_nothing(bench: Bench) -> None:
    bench.cli.source("cancelled.bin", 8 * PIECE)
    process = bench.start("cancelled.bin", "--jobs", "2", "--limit-rate", str(PIECE))
    confirmed(process, 1)
    process.kill()
    process.communicate()
    bench.settled()
    bench.wire.at(Rule(lambda e: e.method == "DELETE", cut=True))
    (job,) = JobStore(bench.cli.data).ids()
    ran = bench.cli("cancel", job, "--yes")
    assert ran.code == 0, ran.err
    bench.left_nothing("cancelled.bin")


def stopped(bench: Bench, name: str) -> None:
    """Begin to send a file, and be killed within it."""
    process = bench.start(name, "--jobs", "1", "--limit-rate", str(2 * PIECE))
    confirmed(process, 2)
    process.kill()
    process.communicate()
    bench.settled()


def test_a_source_that_was_only_touched_goes_on_where_it_was(bench: Bench) -> None:
    data = bench.cli.source("touched.bin", 6 * PIECE)
    stopped(bench, "touched.bin")
    os.utime(bench.cli.root / "touched.bin", (1, 1))
    ran = bench.put("touched.bin")
    bench.holds(ran, data)
    assert bench.sent() <= len(data) + PIECE and ran.result["bytes_skipped"] >= 2 * PIECE


def test_a_source_that_changed_within_the_chunk_that_was_cut_starts_over(bench: Bench) -> None:
    """Nothing that was confirmed changed, but the server may have the start of the chunk that was on its way."""
    path = bench.cli.root / "changed.bin"
    data = bytearray(bench.cli.source("changed.bin", 6 * PIECE))
    stopped(bench, "changed.bin")
    begun = known(bench.cli)
    data[begun] ^= 1
    path.write_bytes(data)
    bench.holds(bench.put("changed.bin"), bytes(data))


def test_a_server_that_lost_what_it_had_acknowledged(in_order: Bench) -> None:
    """Behind by a chunk and a half, noticed by a resume, and in the middle of a run."""
    bench, server = in_order, in_order.server
    assert server
    data = bench.cli.source("behind.bin", 6 * PIECE)

    def fall_back(_: object = None) -> None:
        (one,) = server.unfinished("behind.bin")
        uid, _ = one.pop("uid"), one.pop("held")
        left = max(0, one["offset"] - 3 * PIECE // 2)
        (server.files / f"{uid}.info").write_text(json.dumps(one | {"offset": left}))
        os.truncate(server.files / uid, left)

    stopped(bench, "behind.bin")
    fall_back()
    patches = iter(range(1, 1000))
    bench.wire.at(Rule(lambda e: e.method == "PATCH" and next(patches) == 4, before=fall_back))
    ran = bench.put("behind.bin")
    bench.holds(ran, data)
    assert [warned["code"] for warned in ran.of("warning")] == ["chunks_reset", "session_behind", "chunks_reset"]


def test_what_cannot_be_done_is_said(bench: Bench) -> None:
    for words in (["ls"], ["get", "x"], ["rm", "x"], ["cancel", "--incomplete"]):
        bench.cli.refuses(5, "rejected", "unsupported", *words)


def test_no_upload_url_is_told_before_the_file_is_there(in_order: Bench) -> None:
    bench = in_order
    bench.cli.source("secret.bin", 4 * PIECE)
    process = bench.start("secret.bin", "--limit-rate", str(PIECE), "-v")
    confirmed(process, 1)
    process.terminate()
    ran = finish(process)
    (one,) = (bench.server or pytest.fail()).unfinished("secret.bin")
    assert one["uid"] not in ran.stdout.decode() + ran.err
    assert bench.cli.json("resume").of("file_completed")[0]["location"].endswith(one["uid"])
    for log in bench.cli.data.glob("jobs/*/log"):
        assert one["uid"] not in log.read_text()
