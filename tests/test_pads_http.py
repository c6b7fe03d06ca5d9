"""Pads behind a real `ppcli serve`, by the command: what is asked before, kills, lost replies, other computers, and the
user key alone."""

from __future__ import annotations

import contextlib
import filecmp
import itertools
import json
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cli_kit import Cli, Ran
from harness import quick_retries
from pads_kit import Upload, audit, behind, behind_root, content, get, index, target
from recording_proxy import Exchange, Proxy, Rule
from server_kit import ServerProcess, running_server

from ppcli.cli import boundary
from ppcli.errors import Credentials, Rejected, Transient
from ppcli.model import Remote
from ppcli.pads import remote
from ppcli.pads.index import State
from ppcli.target import Accounts, Ranged
from ppcli.targets import pads_http

CHUNK = 4096


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def box(root: Path, server: ServerProcess) -> Cli:
    return make_box(root, server)


def make_box(root: Path, server: ServerProcess, address: str = "") -> Cli:
    """A machine with a user key of its own."""
    cli = Cli(root, f"pads+http://{address or f'127.0.0.1:{server.port}'}")
    cli.env["PPCLI_TOKEN"] = server.token
    return cli


def write(cli: Cli, name: str, data: bytes) -> bytes:
    (cli.root / name).write_bytes(data)
    return data


def put(cli: Cli, *words: str) -> Ran:
    ran = cli.json("put", "--chunk-size", str(CHUNK), "--yes", *words)
    assert ran.code == 0, ran.result
    return ran


def state_of(cli: Cli) -> State:
    """The index as it is on disk, which must be sound."""
    state = index(cli.root, behind_root(cli.data))
    audit(state)
    return state


def held_by(server: ServerProcess) -> int:
    """Pads that are reserved there, of all stores."""
    with database_of(server) as database:
        return int(database.execute("SELECT count(*) FROM pads").fetchone()[0])


# --- Reserving costs -------------------------------------------------------------------------------------------------


def test_where_nobody_can_be_asked_the_flag_is_named_and_nothing_changes(box: Cli, server: ServerProcess) -> None:
    write(box, "a.bin", content("a", 3 * CHUNK))
    before = held_by(server)
    told = box.refuses(2, "usage", "confirmation", "put", "a.bin", "--chunk-size", str(CHUNK))
    assert "up to 4 new pads (16.0 KiB)" in told and "--yes" in told
    assert held_by(server) == before
    assert box.json("status", "--all").of("job") == [] == box.json("ls").of("object")
    assert not (box.data / "pads-http").exists()


def test_what_is_wrong_with_the_server_is_told_before_anybody_is_asked(box: Cli) -> None:
    write(box, "a.bin", b"x")
    put(box, "a.bin")
    write(box, "a.bin", b"y")
    box.env["PPCLI_TOKEN"] = "wrong"
    ran = box.json("put", "a.bin")
    assert (ran.code, ran.result["error"]["kind"]) == (3, "credentials")


def test_yes_and_the_variable_answer(box: Cli) -> None:
    data = write(box, "a.bin", content("a", 3 * CHUNK))
    ran = box.json("put", "a.bin", "--chunk-size", str(CHUNK), "--yes")
    assert ran.code == 0
    (planned,) = ran.of("reservation_planned")
    wanted = {
        "pads_new": 4,
        "pads_reused": 0,
        "pads_records": 1,
        "pad_size": CHUNK,
        "bytes_new": 4 * CHUNK,
        "bytes_reused": 0,
    }
    assert {key: planned[key] for key in wanted} == wanted
    assert state_of(box).next == 4
    write(box, "b.bin", content("b", CHUNK))
    assert box("put", "b.bin").code == 2
    assert box("put", "b.bin", env={"PPCLI_YES": "1"}).code == 0
    box.holds("a.bin", data)


def test_what_reserves_nothing_new_asks_nothing(box: Cli) -> None:
    data = write(box, "a.bin", content("a", 5 * CHUNK))
    put(box, "a.bin")
    assert box.json("put", "a.bin").result["files_unchanged"] == 1
    assert box("rm", "a.bin").code == 0
    ran = box.json("put", "a.bin")
    assert ran.code == 0
    assert [(one["pads_new"], one["pads_reused"]) for one in ran.of("reservation_planned")] == [(0, 6)]
    box.holds("a.bin", data)
    assert state_of(box).next == 6


def test_what_is_unchanged_is_not_counted(box: Cli) -> None:
    data = bytearray(write(box, "a.bin", content("a", 20 * CHUNK)))
    put(box, "a.bin")
    data[5 * CHUNK] ^= 1
    write(box, "a.bin", bytes(data) + b"tail")
    told = box.refuses(2, "usage", "confirmation", "put", "a.bin")
    assert "up to 3 new pads" in told, "the changed chunk, the one at the end, and the record"
    (planned,) = box.json("put", "a.bin", "--dry-run").of("reservation_planned")
    assert (planned["pads_new"], planned["pads_kept"], planned["bytes_kept"]) == (3, 19, 19 * CHUNK)
    assert put(box, "a.bin").result["chunks_sent"] == 2
    assert state_of(box).next == 21 + 3


def test_a_dry_run_says_it_and_asks_nothing(box: Cli, server: ServerProcess) -> None:
    write(box, "a.bin", content("a", 5 * CHUNK))
    before = held_by(server)
    ran = box.json("put", "a.bin", "--dry-run", "--chunk-size", str(CHUNK))
    assert (ran.code, ran.of("reservation_planned")[0]["pads_new"], len(ran.of("file_planned"))) == (0, 6, 1)
    assert held_by(server) == before


@pytest.mark.parametrize(("answer", "code"), [(True, 0), (False, 2)])
def test_a_person_is_asked(box: Cli, monkeypatch: pytest.MonkeyPatch, answer: bool, code: int) -> None:
    asked = []

    def make_ask(_options: object) -> Callable[[str], bool]:
        return lambda question: bool(asked.append(question)) or answer

    monkeypatch.setattr(boundary, "make_ask", make_ask)
    write(box, "a.bin", content("a", 3 * CHUNK))
    ran = box("put", "a.bin", "--chunk-size", str(CHUNK))
    assert (ran.code, asked) == (code, [f"Reserve up to 4 new pads (16.0 KiB) at {box.to}, 1 of them for its record?"])
    assert (box("get", "a.bin", "-").code == 0) is answer
    if not answer:
        assert box.json("status", "--all").of("job") == []


def test_fresh_asks_before_it_cancels(box: Cli) -> None:
    write(box, "a.bin", content("a", 40 * CHUNK))
    job = stopped(box, "a.bin", confirmed=3)
    assert box("put", "a.bin", "--fresh").code == 2
    assert box.json("status", job).of("job")[0]["state"] == "paused"
    assert box("put", "a.bin", "--fresh", "--yes").code == 0
    assert box.json("status", job).of("job")[0]["state"] == "cancelled"


def stopped(cli: Cli, name: str, confirmed: int) -> str:
    """Kill a put after so many confirmations; gives its job."""
    process = cli.start(
        "put", name, "--json", "--yes", "--chunk-size", str(CHUNK), "--limit-rate", "400K", "--jobs", "2"
    )
    seen = until_confirmed(process, confirmed)
    process.kill()
    process.communicate()
    return str(seen[-1]["job"])


def until_confirmed(process: subprocess.Popen[bytes], count: int) -> list[dict[str, Any]]:
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(json.loads(line))
        count -= seen[-1]["event"] == "chunk_confirmed"
        if count <= 0 or seen[-1]["event"] == "result":
            break
    return seen


def test_resume_does_not_ask_again_and_status_agrees_with_the_store(box: Cli) -> None:
    data = write(box, "a.bin", content("a", 40 * CHUNK))
    job = stopped(box, "a.bin", confirmed=5)
    (shown,) = box.json("status", job).of("job")
    chunks = shown["chunks"]
    (owner,) = state_of(box).owners.values()
    assert chunks["confirmed"] >= 5
    assert chunks["reserved"] + chunks["uploaded"] + chunks["confirmed"] <= len(owner.pads) <= chunks["total"] == 40
    ran = box.json("resume", job)
    assert ran.code == 0
    assert ran.result["bytes_sent"] == len(data) - chunks["confirmed"] * CHUNK or chunks["uploaded"]
    (shown,) = box.json("status", job).of("job")
    version = state_of(box).names["a.bin"]
    assert (shown["chunks"]["confirmed"], shown["bytes"]["confirmed"]) == (len(version.pads), version.size)
    box.holds("a.bin", data)


# --- A life of versions ----------------------------------------------------------------------------------------------


def test_versions_keep_unchanged_pads_and_buy_new_ones_only_when_none_is_free(box: Cli, server: ServerProcess) -> None:
    start = held_by(server)
    v1 = write(box, "a.bin", content("v1", 50 * CHUNK))
    put(box, "a.bin")
    first = state_of(box).names["a.bin"]
    assert held_by(server) - start == state_of(box).next == 51
    changed = bytearray(v1)
    for chunk in range(0, 50, 10):
        changed[chunk * CHUNK] ^= 1
    v2 = write(box, "a.bin", bytes(changed))
    ran = put(box, "a.bin")
    assert (ran.result["bytes_sent"], ran.result["bytes_copied"]) == (5 * CHUNK, 45 * CHUNK)
    state = state_of(box)
    second = state.names["a.bin"]
    same = [one == two for one, two in zip(first.pads, second.pads, strict=True)]
    assert [place for place, kept in enumerate(same) if not kept] == [0, 10, 20, 30, 40], "pads and counters"
    assert held_by(server) - start == state.next == 57
    (told,) = [one for one in box.json("status", "--all").of("job") if one["job"] == ran.of("job_started")[0]["job"]]
    assert (told["chunks"]["confirmed"], told["chunks"]["total"]) == (len(second.pads), len(second.pads))
    assert told["bytes"] == {"confirmed": second.size, "total": second.size}
    assert told["bytes_copied"] == sum(same) * CHUNK
    box.holds("a.bin", v2)
    assert box("rm", "a.bin").code == 0
    state = state_of(box)
    assert len(state.free) == state.next == 57, "all of them are free again"
    v3 = write(box, "a.bin", content("v3", 56 * CHUNK))
    assert box("put", "a.bin").code == 0, "the free ones are enough"
    assert held_by(server) - start == 57
    put(box, "a.bin", "--name", "copy")
    assert held_by(server) - start == state_of(box).next == 2 * 57
    box.holds("a.bin", v3)


def test_v1_is_readable_until_v2_is_there(box: Cli) -> None:
    v1 = write(box, "a.bin", content("v1", 40 * CHUNK))
    put(box, "a.bin")
    write(box, "a.bin", content("v2", 40 * CHUNK))
    job = stopped(box, "a.bin", confirmed=10)
    box.holds("a.bin", v1)
    assert box("cancel", job, "--yes").code == 0
    box.holds("a.bin", v1)
    assert box.json("ls", "--incomplete").of("incomplete") == []
    state = state_of(box)
    assert not state.owners and len(state.free) + len(state.stale) == state.next - 41


def test_incomplete_uploads_are_listed_and_freed(box: Cli) -> None:
    write(box, "a.bin", content("a", 40 * CHUNK))
    job = stopped(box, "a.bin", confirmed=3)
    (listed,) = box.json("ls", "--incomplete").of("incomplete")
    assert (listed["name"], listed["job"]) == ("a.bin", job)
    assert box("cancel", "--incomplete", "--yes").code == 0
    assert box.json("ls", "--incomplete").of("incomplete") == []
    assert not state_of(box).owners


def test_locations_and_trees(box: Cli) -> None:
    (box.root / "tree").mkdir()
    for name in ("x", "y z"):
        write(box, f"tree/{name}", content(name, 100))
    ran = box("put", "-r", "tree", "--name", "in/", "--yes")
    assert sorted(ran.stdout.decode().split()) == [f"{box.to}#in/x", f"{box.to}#in/y%20z"]
    assert box("get", f"{box.to}#in/y%20z", "-").stdout == content("y z", 100)
    assert box("rm", "-r", "in").code == 0
    assert box.json("ls").of("object") == []


# --- The network -----------------------------------------------------------------------------------------------------


@pytest.fixture
def wire(server: ServerProcess) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


def is_call(method: str, end: str) -> Callable[[Exchange], bool]:
    return lambda seen: seen.method == method and (seen.path.endswith(end) if end else seen.path.count("/") == 3)


CALLS = [
    ("GET", ""), ("PUT", ""), ("POST", "/index"), ("POST", "/reserve"), ("POST", "/erase"), ("POST", "/heads"),
    ("POST", "/confirm"), ("GET", "/content"), ("PUT", "/content"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "end"), CALLS)
def test_lost_replies_are_resolved(root: Path, server: ServerProcess, wire: Proxy, method: str, end: str) -> None:
    """Of every call there is, the first time and the third, in a life with all of them. Nothing is lost, and nothing is
    bought twice."""
    box = make_box(root, server, wire.address)
    start, seen = held_by(server), itertools.count(1)
    rule = Rule(lambda call: is_call(method, end)(call) and next(seen) in (1, 3), cut=True, times=2)
    wire.at(rule)
    v1 = content("v1", 6 * CHUNK)
    with quick_retries():
        write(box, "a.bin", v1)
        put(box, "a.bin", "--jobs", "2")
        v2 = write(box, "a.bin", v1[:CHUNK] + content("v2", CHUNK) + v1[2 * CHUNK :])
        assert put(box, "a.bin", "--jobs", "2").result["bytes_copied"] == 5 * CHUNK
        shutil.rmtree(box.data)
        box.holds("a.bin", v2)
        assert box("rm", "a.bin").code == 0
        shutil.rmtree(box.data)
        put(box, "a.bin", "--jobs", "2")
        assert box("rm", "a.bin").code == 0
    assert rule.times < 2, "it never happened"
    state = state_of(box)
    assert held_by(server) - start == state.next == 9
    assert len(state.free) == 9 and not state.owners


def test_ranges_are_read_side_by_side_and_each_pad_once(
    root: Path, server: ServerProcess, wire: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What breaks off is asked for again."""
    box = make_box(root, server, wire.address)
    data = write(box, "a.bin", content("a", 7 * CHUNK + 5))
    put(box, "a.bin")
    monkeypatch.setattr(pads_http, "RANGE", 2 * CHUNK)
    wire.fresh()
    contents = itertools.count()
    wire.at(Rule(lambda seen: is_call("GET", "/content")(seen) and next(contents) == 3, cut=True))
    with quick_retries():
        assert box("get", "a.bin", "copy").code == 0
    assert (box.root / "copy").read_bytes() == data
    assert len(wire.calls("POST", "/heads")) >= 4 and len(wire.calls("GET", "/content")) == 8 + 1


@pytest.mark.parametrize(("pad", "size"), [(64, 4 << 20), (3 << 20, 3 << 20), (9 << 20, 9 << 20), (17 << 20, None)])
def test_a_range_is_of_whole_pads_and_fits_into_memory(
    tmp_path: Path, server: ServerProcess, pad: int, size: int | None
) -> None:
    with behind(server):
        pads = target(tmp_path)
        assert isinstance(pads, Ranged)
        assert pads.range_size(Remote("a", "a", 1 << 30, chunk_size=pad)) == size


def test_the_server_restarts_in_the_middle(root: Path) -> None:
    with running_server(root) as server, contextlib.closing(Proxy(server.port)) as wire:
        box = make_box(root, server, wire.address)

        def restart(_seen: Exchange) -> None:
            server.kill()
            server.start()

        for end, skipped in (("/content", 3), ("/content", 9), ("/confirm", 12), ("/heads", 1)):
            method, left = "PUT" if end == "/content" else "POST", iter(range(skipped))
            matches = is_call(method, end)
            wire.at(Rule(lambda seen, m=matches, i=left: m(seen) and next(i, None) is None, before=restart))  # type: ignore[misc]
        data = write(box, "a.bin", content("a", 30 * CHUNK))
        ran = put(box, "a.bin", "--jobs", "3")
        assert ran.of("retrying")
        box.holds("a.bin", data)
        assert state_of(box).next == held_by(server) == 31


@dataclass(frozen=True)
class Size:
    """The file, its pads, and how often client and server are killed."""

    file: int
    pad: int
    kills: int


SMALL = Size(6 << 20, 64 << 10, 3)
LARGE = Size(60 << 20, 256 << 10, 6)


@pytest.mark.parametrize("size", [SMALL, pytest.param(LARGE, marks=[pytest.mark.sweep, pytest.mark.timeout(600)])])
def test_client_and_server_killed_in_turns(tmp_path: Path, size: Size) -> None:
    with running_server(tmp_path) as server:
        box = make_box(tmp_path, server)
        rng, jobs = random.Random(size.file), 4
        with (box.root / "big.bin").open("wb") as file:
            for _ in range(size.file // size.pad):
                file.write(rng.randbytes(size.pad))
        told: list[int] = []
        words = ["put", "big.bin", "--json", "--yes", "--chunk-size", str(size.pad), "--jobs", str(jobs)]
        step = size.file // size.pad // (size.kills + 1) - jobs
        for number in range(size.kills):
            process = box.start(*words)
            seen = until_confirmed(process, rng.randint(1, step))
            if number % 2:
                server.kill()
                server.start()
            process.kill()
            out, _ = process.communicate()
            seen += [json.loads(line) for line in out.splitlines(keepends=True) if line.endswith(b"\n")]
            assert seen[-1]["event"] != "result", "it ended before it was killed"
            told += [event["chunk"] for event in seen if event["event"] == "chunk_confirmed"]
        ran = box.process("resume", "--json")
        assert ran.code == 0, ran.result
        told += [event["chunk"] for event in ran.of("chunk_confirmed")]
        assert len(told) == len(set(told)), "a confirmed chunk was sent again"
        result = ran.result
        assert result["bytes_sent"] + result["bytes_skipped"] == size.file
        assert box.process("get", "big.bin", "copy").code == 0
        assert filecmp.cmp(box.root / "big.bin", box.root / "copy", shallow=False)
        state = state_of(box)
        assert held_by(server) == state.next, "no pad is lost, and none is bought that the index does not know"
        assert state.next <= size.file // size.pad + 1 + size.kills * 2 * 64


def test_twenty_uploads_at_once_lose_no_update(tmp_path: Path, server: ServerProcess) -> None:
    """Each as of a process of its own, on one data dir that is empty at first; ten names, so that two write each."""
    with behind(server):
        opened = [target(tmp_path, chunk_size=CHUNK) for _ in range(20)]

        def put_one(number: int) -> None:
            pads, data = opened[number], content(number, 3 * CHUNK)
            Upload(pads, f"name {number % 10}", data, f"job-{number}", chunk_size=CHUNK).put()

        with ThreadPoolExecutor(20) as pool:
            list(pool.map(put_one, range(20)))
        pads = target(tmp_path, chunk_size=CHUNK)
        for name in range(10):
            assert get(pads, f"name {name}") in (content(name, 3 * CHUNK), content(name + 10, 3 * CHUNK))
        state = index(tmp_path)
        audit(state)
        assert not state.owners
        assert not any(one.notices() for one in opened), "one of them made the index, and no other made it again"


def test_a_clock_that_was_set_back_stops_nothing(
    tmp_path: Path, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A counter has to rise: the server tells the one it has, and the next attempt goes above it."""
    with behind(server):
        pads = target(tmp_path, chunk_size=CHUNK)
        Upload(pads, "a", content("a", 2 * CHUNK), chunk_size=CHUNK).put()
        pads.remove(["a"])
        monkeypatch.setattr(remote.time, "time_ns", lambda: 1_000)
        upload = Upload(pads, "b", content("b", 2 * CHUNK), chunk_size=CHUNK).open()
        for _ in range(4):
            with contextlib.suppress(Transient):
                upload.send()
        assert sorted(upload.receipts) == [0, 1]
        with contextlib.suppress(Transient):
            upload.complete()
        upload.complete()
        assert get(pads, "b") == content("b", 2 * CHUNK)
        audit(index(tmp_path))


def test_what_cannot_be_wiped_now_hides_nothing(
    tmp_path: Path, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise Rejected("There is no space left.", hint="", reason="quota")

    with behind(server):
        pads = target(tmp_path, chunk_size=CHUNK)
        for name in ("a", "b"):
            Upload(pads, name, content(name, 2 * CHUNK), chunk_size=CHUNK).put()
        with monkeypatch.context() as now:
            now.setattr(remote.RemotePads, "wipe", full)
            with pytest.raises(Rejected):
                pads.remove(["a"])
            again = target(tmp_path, chunk_size=CHUNK)
            assert get(again, "b") == content("b", 2 * CHUNK)
            assert index(tmp_path).stale
            with pytest.raises(Rejected):
                again.remove(["b"])
        assert get(target(tmp_path, chunk_size=CHUNK), "b") is None
        assert not index(tmp_path).stale


def test_a_login_works_here_too(tmp_path: Path, server: ServerProcess) -> None:
    server.add_user("here@example.org", "a long password")
    with behind(server):
        pads = target(tmp_path)
        assert isinstance(pads, Accounts)
        assert pads.login("here@example.org", "a long password")
        with pytest.raises(Credentials, match="refused") as refused:
            pads.login("here@example.org", "another password")
        assert "another password" not in refused.value.message


# --- Other computers, other servers ----------------------------------------------------------------------------------


def test_the_index_is_made_again_from_the_key_alone(box: Cli, server: ServerProcess) -> None:
    data = {name: write(box, name, content(name, 3 * CHUNK + 7)) for name in ("a.bin", "b.bin")}
    put(box, "a.bin", "b.bin")
    write(box, "a.bin", content("old", CHUNK))
    write(box, "c.bin", content("c", CHUNK))
    put(box, "c.bin")
    assert box("rm", "c.bin").code == 0
    before, held = state_of(box), held_by(server)
    shutil.rmtree(box.data)
    ran = box.json("pads", "recover", box.to)
    assert (ran.code, ran.result["files_total"]) == (0, 2)
    for name, whole in data.items():
        box.holds(name, whole)
    after = state_of(box)
    assert (after.names, after.next) == (before.names, before.next)
    assert box("put", "c.bin").code == 0, "what is free is found again too"
    assert held_by(server) == held
    (box.config / "user.key").rename(box.root / "kept.key")
    assert box.json("pads", "recover", box.to).result["error"]["kind"] == "credentials"


def test_an_old_copy_of_the_data_dir_overwrites_nothing(box: Cli) -> None:
    """As a CI system restores it. What was put since is there, also where the old index has its pads as free."""
    write(box, "a.bin", content("a", 8 * CHUNK))
    put(box, "a.bin")
    assert box("rm", "a.bin").code == 0
    shutil.copytree(box.data, box.root / "copy")
    data = write(box, "b.bin", content("b", 8 * CHUNK))
    put(box, "b.bin")
    shutil.rmtree(box.data)
    shutil.copytree(box.root / "copy", box.data)
    other = write(box, "c.bin", content("c", 8 * CHUNK))
    ran = put(box, "c.bin")
    assert [one["code"] for one in ran.of("warning")][:1] == ["index_rebuilt"]
    box.holds("b.bin", data)
    box.holds("c.bin", other)
    state_of(box)


@pytest.mark.parametrize("damage", [b"[" * 100_000, b"\xff\x00", b'{"index":7}', b""])
def test_a_damaged_note_of_which_index_counts(box: Cli, damage: bytes) -> None:
    """The index is made again from the pads, and nothing is lost."""
    data = write(box, "a.bin", content("a", 3 * CHUNK))
    put(box, "a.bin")
    (note,) = box.data.glob("pads-http/*/held.json")
    note.write_bytes(damage)
    box.holds("a.bin", data)
    assert put(box, "a.bin").result["files_unchanged"] == 1
    state_of(box)


def test_another_data_dir_takes_over_and_the_first_one_stops(box: Cli) -> None:
    """Two computers with one key: the first is told, and goes on when it is run again."""
    data = write(box, "a.bin", content("a", 60 * CHUNK))
    words = ("put", "a.bin", "--json", "--yes", "--chunk-size", str(CHUNK), "--limit-rate", "400K", "--jobs", "2")
    process = box.start(*words)
    until_confirmed(process, 3)
    small = write(box, "b.bin", content("b", 5 * CHUNK))
    elsewhere = {"PPCLI_DATA_DIR": str(box.root / "elsewhere")}
    assert box("put", "b.bin", "--yes", env=elsewhere).code == 0
    out, _ = process.communicate(timeout=30)
    result = json.loads(out.splitlines()[-1])
    assert (result["exit_code"], result["error"]["reason"]) == (75, "superseded")
    ran = box.json("resume")
    assert ran.code == 0, ran.result
    box.holds("a.bin", data)
    box.holds("b.bin", small)
    state_of(box)


def test_a_server_never_learns_secrets_that_are_good_at_another(root: Path, server: ServerProcess) -> None:
    """Not even one that says that its store were the other's."""
    box = make_box(root, server)
    write(box, "a.bin", content("a", 5 * CHUNK))
    put(box, "a.bin")
    name = behind_root(box.data).name
    with running_server(root) as hostile:
        victim = make_box(root, hostile)
        put(victim, "a.bin")
        with database_of(server) as database:
            ids = [row[0] for row in database.execute("SELECT store_id FROM pad_stores")]
        with database_of(hostile) as database:
            database.execute("DELETE FROM pads")
            database.execute("UPDATE pad_stores SET store_id = ?", (ids[-1],))
            database.commit()
        shutil.rmtree(box.data)
        put(victim, "a.bin")
        assert behind_root(box.data).name != name
        assert len(addresses(hostile)) == 6
        assert not addresses(hostile) & addresses(server)


@contextlib.contextmanager
def database_of(server: ServerProcess) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(server.data / "server.sqlite3")) as database:
        yield database


def addresses(server: ServerProcess) -> set[bytes]:
    with database_of(server) as database:
        return {row[0] for row in database.execute("SELECT address FROM pads")}


@pytest.mark.parametrize("words", [("put", "a.bin", "--yes"), ("ls",), ("pads", "recover"), ("login",)])
def test_plain_http_beyond_this_computer_is_refused(box: Cli, words: tuple[str, ...]) -> None:
    write(box, "a.bin", b"x")
    env = {"PPCLI_TARGET": "pads+http://example.org:8765"}
    box.config.mkdir(exist_ok=True)
    table = '[targets.x]\nurl = "pads+http://example.org:8765"\nplain_http_token = true\n'
    (box.config / "config.toml").write_text(table)
    assert "not encrypted" in box.refuses(2, "usage", "plain_http", *words, env=env)


@pytest.mark.parametrize("url", ["pads+http://", "pads+http://h/path", "pads+https://h?x=1", "pads+https://u@h"])
def test_urls_that_are_no_place(box: Cli, url: str) -> None:
    assert box("ls", env={"PPCLI_TARGET": url}).code == 2


def test_a_server_without_pads_is_told_as_such(box: Cli, tmp_path: Path) -> None:
    from tus_kit import running_tus

    write(box, "a.bin", b"x")
    put(box, "a.bin")
    with running_tus(tmp_path / "tus") as tus:
        ran = box.json("ls", "--to", f"pads+http://127.0.0.1:{tus.port}")
        assert (ran.code, ran.result["error"]["reason"]) == (5, "unsupported")


def test_the_pad_size_is_that_of_the_store(box: Cli) -> None:
    write(box, "a.bin", content("a", 3 * CHUNK))
    put(box, "a.bin")
    write(box, "b.bin", content("b", 3 * CHUNK))
    assert box("put", "b.bin", "--yes", "--chunk-size", "8K").code == 2
    assert put(box, "b.bin").result["chunks_sent"] == 3
    assert box("put", "a.bin", "--name", "c", "--yes").code == 0


def test_a_quota_is_told(root: Path) -> None:
    with running_server(root, {"quota": 10 * CHUNK}) as server:
        box = make_box(root, server)
        write(box, "a.bin", content("a", 20 * CHUNK))
        ran = box.json("put", "a.bin", "--yes", "--chunk-size", str(CHUNK))
        assert (ran.code, ran.result["error"]["reason"]) == (5, "quota")
        assert held_by(server) == 0
        assert box("cancel", "--all").code == 0
        write(box, "b.bin", content("b", 2 * CHUNK))
        (planned,) = box.json("put", "b.bin", "--dry-run").of("reservation_planned")
        assert (planned["pads_new"], planned["pads_reused"]) == (3, 0), "what was refused was not bought"
        assert box("put", "b.bin").code == 2
