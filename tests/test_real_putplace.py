"""Our client against the real PutPlace server. The judges are its disk, its database, and what passed the wire."""

from __future__ import annotations

import hashlib
import itertools
import queue
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_kit import Cli, Ran, finish, until
from putplace_kit import PutPlace
from pymongo.errors import OperationFailure
from recording_proxy import Exchange, Rule

CHUNK = 64 << 10
CHUNKS = 12
SIZE = (CHUNKS - 1) * CHUNK + 11
HOSTS = itertools.count(1)
Match = Callable[[Exchange], bool]


class Box:
    """A machine of its own (hostname, data dir, contents nobody else has) that uploads to the server."""

    def __init__(self, root: Path, server: PutPlace) -> None:
        self.host = f"box{next(HOSTS)}"
        self.server, self.wire = server, server.proxy
        self.wire.fresh()
        self.cli = Cli(root, f"putplace+http://{self.wire.address}?hostname={self.host}")
        self.cli.env["PPCLI_TOKEN"] = server.token

    def source(self, name: str, size: int = SIZE) -> bytes:
        path, data = self.cli.root / name, random.Random(self.host + name).randbytes(size)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return data

    def put(self, name: str = "big.bin", *words: str, env: dict[str, str] | None = None) -> Ran:
        return self.cli("put", name, "--chunk-size", str(CHUNK), "--jobs", "4", "--json", *words, env=env)

    def forget(self) -> None:
        """Lose the data dir, as a CI machine does."""
        self.cli.env["PPCLI_DATA_DIR"] = str(self.cli.root / f"data{next(HOSTS)}")

    def sessions(self) -> list[dict[str, Any]]:
        return self.server.sessions(hostname=self.host)

    def states(self) -> list[str]:
        return [session["status"] for session in self.sessions()]

    def holds(self, name: str, data: bytes) -> None:
        """The server has one entry of that name, and those bytes."""
        (entry,) = self.server.entries(hostname=self.host, filepath=name)
        assert (entry["sha256"], entry["file_size"]) == (sha256(data), len(data))
        assert self.server.content(sha256(data)) == data

    def silent(self) -> None:
        """No content was sent, and no session opened for any."""
        assert self.wire.attempted() == []
        assert self.wire.calls("POST", "/initiate") == []

    def killed(self, match: Match) -> Ran:
        """A put that is killed when the request comes that `match` is about. Gives what it had said by then.

        Waits until nothing is in flight any more: a chunk that is sent again before that poisons the session.
        """
        victim: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self.wire.at(Rule(match, before=lambda exchange: victim.get(timeout=20).kill()))
        words = ("put", "big.bin", "--chunk-size", str(CHUNK), "--jobs", "4", "--json")
        process = self.cli.start(*words)
        victim.put(process)
        ran = finish(process)
        assert ran.code == -9, "it was over before"
        until(lambda: self.wire.open == 0)
        return Ran(ran.code, ran.stdout[: ran.stdout.rfind(b"\n") + 1], ran.err)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def nth_put(number: int) -> Match:
    counter = itertools.count(1)
    return lambda exchange: exchange.chunk is not None and next(counter) == number


def completing(exchange: Exchange) -> bool:
    return exchange.method == "POST" and exchange.path.endswith("/complete")


def upload_of(exchange: Exchange) -> str:
    return exchange.path.split("/api/uploads/")[1].split("/")[0]


@pytest.fixture
def box(root: Path, putplace: PutPlace) -> Box:
    putplace.forget_files()
    return Box(root, putplace)


# --- A put ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, SIZE])
def test_what_arrives_is_what_was_sent(box: Box, size: int) -> None:
    data = box.source("big.bin", size)
    ran = box.put("big.bin", "--jobs", "8")
    assert ran.code == 0, ran.result
    chunks = max(1, -(-size // CHUNK))
    assert sorted(box.wire.stored()) == list(range(chunks))
    assert (ran.result["chunks_sent"], ran.result["bytes_sent"], ran.result["state"]) == (chunks, size, "completed")
    (done,) = ran.of("file_completed")
    assert (done["action"], done["digest"], done["evidence"]) == ("sent", f"sha256:{sha256(data)}", "content")
    assert done["location"] == f"{box.cli.to}#big.bin"
    assert box.states() == ["completed"]
    box.holds("big.bin", data)


def test_a_person_gets_the_location(box: Box) -> None:
    box.source("a b.bin")
    ran = box.cli("put", "a b.bin")
    assert (ran.code, ran.stdout.decode()) == (0, f"{box.cli.to}#a%20b.bin\n"), ran.err


def test_a_second_put_sends_nothing(box: Box) -> None:
    data = box.source("big.bin")
    assert box.put().code == 0
    box.wire.fresh()
    again = box.put()
    assert (again.code, again.result["files_unchanged"], again.result["bytes_sent"]) == (0, 1, 0)
    box.silent()
    box.holds("big.bin", data)


def test_a_machine_without_memory_sends_nothing_that_is_there(box: Box) -> None:
    data = box.source("big.bin")
    assert box.put().code == 0
    box.wire.fresh()
    box.forget()
    again = box.put()
    assert (again.code, again.result["files_unchanged"]) == (0, 1), again.result
    box.silent()
    box.holds("big.bin", data)


def test_the_same_content_under_another_name_has_both_names(box: Box) -> None:
    data = box.source("big.bin")
    (box.cli.root / "twin.bin").write_bytes(data)
    assert (box.put().code, box.put("twin.bin").code) == (0, 0)
    box.holds("big.bin", data)
    box.holds("twin.bin", data)
    box.wire.fresh()
    box.forget()
    assert [box.put(name).result["files_unchanged"] for name in ("big.bin", "twin.bin")] == [1, 1]
    box.silent()


def test_what_another_machine_has_is_not_ours(box: Box, root: Path, putplace: PutPlace) -> None:
    data = box.source("big.bin")
    assert box.put().code == 0
    (root / "other").mkdir()
    other = Box(root / "other", putplace)
    (other.cli.root / "big.bin").write_bytes(data)
    assert other.put().code == 0
    other.holds("big.bin", data)


def test_content_that_was_replaced_comes_back(box: Box) -> None:
    data = box.source("big.bin")
    for content in (data, data[::-1], data):
        (box.cli.root / "big.bin").write_bytes(content)
        assert box.put().code == 0
        (listed,) = box.cli.json("ls").of("object")
        assert listed["digest"] == f"sha256:{sha256(content)}"


def test_new_content_of_a_name(box: Box) -> None:
    box.source("big.bin")
    assert box.put().code == 0
    data = b"new" + box.source("other", 3 * CHUNK)
    (box.cli.root / "big.bin").write_bytes(data)
    assert box.put().code == 0
    assert box.server.content(sha256(data)) == data
    (shown,) = box.cli.json("ls").of("object")
    assert (shown["name"], shown["digest"]) == ("big.bin", f"sha256:{sha256(data)}")


def test_a_tree(box: Box) -> None:
    files = {f"d{n % 4}/f{n}": box.source(f"tree/d{n % 4}/f{n}", 700 * n) for n in range(30)}
    ran = box.put("tree", "-r")
    assert (ran.code, ran.result["files_completed"], ran.result["files_total"]) == (0, 30, 30), ran.result
    for name, data in files.items():
        box.holds(name, data)
    assert {shown["name"] for shown in box.cli.json("ls").of("object")} == set(files)
    box.wire.fresh()
    assert box.put("tree", "-r").result["files_unchanged"] == 30
    box.silent()


# --- Killed, cancelled, removed -------------------------------------------------------------------------------------


def test_killed_and_resumed_it_sends_only_what_is_missing(box: Box) -> None:
    data = box.source("big.bin")
    told = [event["chunk"] for event in box.killed(nth_put(7)).of("chunk_confirmed")]
    before = set(box.wire.stored())
    assert set(told) <= before
    box.wire.fresh()
    ran = box.cli.json("resume")
    assert ran.code == 0, ran.result
    again = box.wire.attempted()
    assert not set(again) & set(told), "a chunk that was confirmed went again"
    assert len(set(again) & before) <= 4, "more than what was in flight went again"
    assert set(again) | before == set(range(CHUNKS))
    assert box.wire.calls("POST", "/initiate") == []
    assert ran.result["bytes_sent"] + ran.result["bytes_skipped"] == SIZE
    assert box.states() == ["completed"]
    box.holds("big.bin", data)


@pytest.mark.parametrize("match", [lambda seen: seen.path.endswith("/initiate"), completing], ids=["open", "complete"])
def test_killed_at_its_first_or_last_request_put_can_be_repeated(box: Box, match: Match) -> None:
    data = box.source("big.bin")
    box.killed(match)
    assert box.put().code == 0
    box.holds("big.bin", data)
    assert box.cli.json("status").of("job") == []


def test_cancel_aborts_the_session(box: Box) -> None:
    box.source("big.bin")
    box.killed(nth_put(6))
    (job,) = box.cli.json("status").of("job")
    assert job["state"] == "paused" and job["chunks"]["total"] == CHUNKS
    assert box.cli.json("cancel", job["job"], "--yes").code == 0
    assert box.states() == ["aborted"]
    assert box.server.entries(hostname=box.host) == []
    assert box.cli("status", job["job"], "--exit-code").code == 9


def test_fresh_aborts_the_old_session(box: Box) -> None:
    data = box.source("big.bin")
    box.killed(nth_put(6))
    box.wire.fresh()
    assert box.put("big.bin", "--fresh").code == 0
    assert sorted(box.wire.stored()) == list(range(CHUNKS))
    assert box.states() == ["aborted", "completed"]
    box.holds("big.bin", data)


def test_rm_is_the_deletion_notice(box: Box) -> None:
    data = box.source("big.bin")
    assert box.put().code == 0
    assert box.cli.json("rm", "big.bin").code == 0
    (entry,) = box.server.entries(hostname=box.host)
    assert entry["status"] == "deleted"
    assert box.server.content(sha256(data)) == data, "the server keeps the content"
    assert box.cli.json("rm", "never-there").code == 9


def test_what_was_removed_is_gone_and_can_be_put_again(box: Box) -> None:
    """The server tells nobody that a file is deleted; who removed it must know."""
    box.source("big.bin")
    assert box.put().code == 0
    assert box.cli.json("rm", "big.bin").code == 0
    assert box.cli.json("ls").of("object") == []
    assert box.cli.json("rm", "big.bin").code == 9
    assert box.put().code == 0
    alive = [entry for entry in box.server.entries(hostname=box.host) if entry.get("status") != "deleted"]
    assert len(alive) == 1, "it is said to be there, and it is not"
    assert [shown["name"] for shown in box.cli.json("ls").of("object")] == ["big.bin"]


def test_an_rm_that_was_refused_can_be_repeated(box: Box) -> None:
    box.source("big.bin")
    assert box.put().code == 0
    old = box.server.login()
    box.wire.at(Rule(lambda exchange: exchange.method == "DELETE", before=lambda exchange: box.server.revoke(old)))
    assert box.cli("rm", "big.bin", env={"PPCLI_TOKEN": old}).code == 3
    assert box.cli.json("rm", "big.bin").code == 0
    assert [entry["status"] for entry in box.server.entries(hostname=box.host)] == ["deleted"]


def test_after_rm_a_lost_answer_to_complete_is_a_success_once(box: Box) -> None:
    box.source("big.bin")
    assert box.put().code == 0
    assert box.cli.json("rm", "big.bin").code == 0
    box.wire.fresh()
    box.wire.at(Rule(completing, cut=True))
    assert box.put().code == 0
    assert sorted(box.wire.stored()) == list(range(CHUNKS))
    alive = [entry for entry in box.server.entries(hostname=box.host) if entry.get("status") != "deleted"]
    assert len(alive) == 1


def test_ls_and_what_this_server_cannot_do(box: Box) -> None:
    data = box.source("big.bin")
    assert box.put().code == 0
    (shown,) = box.cli.json("ls", "big").of("object")
    assert (shown["name"], shown["size"], shown["digest"]) == ("big.bin", SIZE, f"sha256:{sha256(data)}")
    assert box.cli.json("ls", "nothing").of("object") == []
    ran = box.cli.json("get", "big.bin", "copy")
    assert (ran.code, ran.result["error"]["reason"]) == (5, "unsupported")
    assert not (box.cli.root / "copy").exists()


# --- Sessions and tokens that end -----------------------------------------------------------------------------------


def test_a_session_that_expires_is_replaced(box: Box) -> None:
    data = box.source("big.bin")
    box.wire.at(Rule(nth_put(5), before=lambda exchange: box.server.expire(upload_of(exchange))))
    ran = box.put()
    assert ran.code == 0, ran.result
    assert len(box.sessions()) == 2
    assert box.states()[1] == "completed"
    box.holds("big.bin", data)


def test_a_session_that_expired_while_nobody_looked(box: Box) -> None:
    data = box.source("big.bin")
    box.killed(nth_put(6))
    box.server.expire(box.sessions()[0]["upload_id"])
    ran = box.cli.json("resume")
    assert ran.code == 0, ran.result
    assert len(box.sessions()) == 2
    box.holds("big.bin", data)


def test_sessions_that_are_too_short_end_it(box: Box) -> None:
    box.source("big.bin")

    def last(exchange: Exchange) -> bool:
        return exchange.chunk is not None and len(box.wire.attempted()) % 5 == 0

    box.wire.at(Rule(last, before=lambda exchange: box.server.expire(upload_of(exchange)), times=99))
    ran = box.put()
    assert (ran.code, ran.result["error"]["reason"]) == (5, "session_too_short")
    assert "/s" in ran.result["error"]["message"] + ran.result["error"]["hint"], "the rate it takes is not named"
    assert box.server.entries(hostname=box.host) == []


def test_with_a_token_file_that_is_renewed_it_goes_on(box: Box) -> None:
    data = box.source("big.bin")
    old, file = box.server.login(), box.cli.root / "token"
    file.write_text(old)

    def renew(exchange: Exchange) -> None:
        file.write_text(box.server.token)
        box.server.revoke(old)

    box.wire.at(Rule(nth_put(5), before=renew))
    box.cli.env.pop("PPCLI_TOKEN")
    ran = box.put("big.bin", env={"PPCLI_TOKEN_FILE": str(file)})
    assert ran.code == 0, ran.result
    assert 401 in [seen.status for seen in box.wire.seen]
    assert box.states() == ["completed"]
    box.holds("big.bin", data)


def test_without_another_token_it_stops_and_goes_on_later(box: Box) -> None:
    data = box.source("big.bin")
    old = box.server.login()
    box.wire.at(Rule(nth_put(5), before=lambda exchange: box.server.revoke(old)))
    ran = box.put("big.bin", env={"PPCLI_TOKEN": old})
    assert (ran.code, ran.result["error"]["kind"], ran.result["state"]) == (3, "credentials", "paused")
    assert box.states() == ["uploading"], "the session is alive"
    stored = box.wire.stored()
    box.wire.fresh()
    again = box.cli.json("resume")
    assert again.code == 0, again.result
    assert sorted(stored + box.wire.stored()) == list(range(CHUNKS)), "only the rest is sent"
    assert box.states() == ["completed"]
    box.holds("big.bin", data)


@pytest.mark.parametrize("kind", ["wrong", "expired", "none"])
def test_who_is_not_let_in(box: Box, kind: str) -> None:
    box.source("big.bin")
    token = {"wrong": "wrong-token", "expired": box.server.aged(-60), "none": ""}[kind]
    box.cli.env.pop("PPCLI_TOKEN")
    ran = box.put(env={"PPCLI_TOKEN": token} if token else None)
    assert (ran.code, ran.result["error"]["kind"]) == (3, "credentials"), ran.result
    assert box.sessions() == []
    if token:
        assert token.encode() not in ran.stdout
        assert not [path for path in box.cli.data.rglob("*") if path.is_file() and token.encode() in path.read_bytes()]
    assert box.put(env={"PPCLI_TOKEN": box.server.token}).code == 0


# --- A server that has a bad day ------------------------------------------------------------------------------------


def test_wrong_bytes_in_the_session_are_found_and_it_starts_anew(box: Box) -> None:
    """Somebody has put other bytes under a number of ours; the server will never take the right ones."""
    data = box.source("big.bin")

    def poison(exchange: Exchange) -> None:
        assert exchange.chunk is not None
        assert box.server.put(upload_of(exchange), exchange.chunk, b"wrong").json()["received_bytes"] == 5

    box.wire.at(Rule(nth_put(4), before=poison))
    ran = box.put()
    assert ran.code == 0, ran.result
    assert box.states() == ["aborted", "completed"]
    assert len(box.wire.calls("POST", "/complete")) == 1, "it was found at the chunk, not at the end"
    assert ran.of("chunk_confirmed")[-1]["confirmed"] == CHUNKS
    box.holds("big.bin", data)


def test_chunks_are_told_again_only_after_a_warning_that_their_session_was_lost(box: Box) -> None:
    box.source("big.bin")
    box.wire.at(Rule(nth_put(8), before=lambda exchange: box.server.expire(upload_of(exchange))))
    events = box.put().events
    lost = next(n for n, event in enumerate(events) if event.get("code") == "session_lost")
    for part in (events[:lost], events[lost:]):
        told = [event["chunk"] for event in part if event["event"] == "chunk_confirmed"]
        assert len(told) == len(set(told))
    assert sorted(told) == list(range(CHUNKS))


def test_a_session_with_a_chunk_entered_twice_starts_anew(box: Box) -> None:
    data = box.source("big.bin")
    box.wire.at(Rule(completing, before=lambda exchange: box.server.double(upload_of(exchange))))
    ran = box.put()
    assert ran.code == 0, ran.result
    assert box.states() == ["aborted", "completed"]
    box.holds("big.bin", data)


def test_a_session_that_lost_a_chunk(box: Box) -> None:
    data = box.source("big.bin")
    box.wire.at(Rule(completing, before=lambda exchange: box.server.drop_chunk(upload_of(exchange))))
    ran = box.put()
    assert ran.code == 0, ran.result
    box.holds("big.bin", data)


def test_a_complete_that_breaks_in_the_middle_is_no_dead_end(box: Box) -> None:
    """The server has thrown the chunks away and not entered the file: only another session helps."""
    data, failures = box.source("big.bin"), iter([OperationFailure("not now")])

    def fail(command: dict[str, Any]) -> None:
        if command.get("insert") == "file_metadata" and (failure := next(failures, None)):
            raise failure

    with box.server.commands(before=fail):
        ran = box.put("big.bin", "--retries", "2")
    assert ran.code == 0, ran.result
    box.holds("big.bin", data)


def test_a_lost_answer_to_complete_is_a_success_once(box: Box) -> None:
    data = box.source("big.bin")
    box.wire.at(Rule(completing, cut=True))
    ran = box.put()
    assert ran.code == 0, ran.result
    assert sorted(box.wire.stored()) == list(range(CHUNKS)), "nothing is sent again for it"
    assert len(box.wire.calls("POST", "/complete")) == 1, "the server is asked, not told again"
    assert box.states() == ["completed"]
    box.holds("big.bin", data)


def test_a_lost_answer_to_a_chunk_costs_that_chunk(box: Box) -> None:
    data = box.source("big.bin")
    box.wire.at(Rule(nth_put(3), cut=True))
    ran = box.put()
    assert ran.code == 0, ran.result
    assert len(box.wire.attempted()) == CHUNKS + 1
    assert box.states() == ["completed"]
    box.holds("big.bin", data)


def test_a_lost_answer_to_initiate_costs_an_empty_session(box: Box) -> None:
    data = box.source("big.bin")
    box.wire.at(Rule(lambda exchange: exchange.path.endswith("/initiate"), cut=True))
    ran = box.put()
    assert ran.code == 0, ran.result
    assert box.states() == ["initiated", "completed"]
    box.holds("big.bin", data)


def test_the_server_is_killed_and_comes_back(box: Box) -> None:
    data = box.source("big.bin")

    def crash(exchange: Exchange) -> None:
        box.server.kill()
        box.server.start()

    box.wire.at(Rule(nth_put(5), before=crash))
    ran = box.put()
    assert ran.code == 0, ran.result
    assert ran.of("retrying")
    assert len(box.sessions()) == 1
    box.holds("big.bin", data)
