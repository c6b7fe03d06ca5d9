"""Uploads to a real S3 server by the real command: what is sent, what is not sent again, and what is there afterwards.
A proxy in between keeps what passed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_kit import Cli, finish, until
from recording_proxy import Exchange, Proxy, Rule
from s3_kit import S3, environment

from ppcli.errors import Transient
from ppcli.target import RANGE

MIB = 1 << 20
PART = 5 * MIB
PROBE = 64
"""Bytes that a question whether a server checks has at most, its framing included."""


class Rig:
    """A command whose target is a bucket behind the proxy."""

    def __init__(self, root: Path, s3: S3) -> None:
        self.bucket, self.s3, self.root = s3.bucket(), s3, root
        self.proxy = Proxy(int(s3.endpoint.rpartition(":")[2]))
        self.url = s3.url(self.bucket, endpoint=f"http://{self.proxy.address}")
        self.cli = Cli(root, self.url)
        self.cli.env["PPCLI_JOBS"] = "3"

    def sent(self) -> list[int]:
        """Parts whose bytes went to the server and that it took, in order."""
        taken = [seen for seen in self.proxy.seen if seen.status == 200 and seen.size > PROBE]
        return [seen.part for seen in taken if seen.part is not None]

    def key(self, name: str) -> bytes:
        with self.s3.api(self.bucket).content(name, 0, 1 << 40, None) as pieces:
            return b"".join(bytes(piece) for piece in pieces)

    def killed(self, *words: str, before_part: int) -> subprocess.Popen[bytes]:
        """The command, killed when it begins to send its nth part."""
        seen: list[int] = []
        process: list[subprocess.Popen[bytes]] = []

        def is_due(exchange: Exchange) -> bool:
            if exchange.part is not None and exchange.size > PROBE:
                seen.append(exchange.part)
            return len(seen) == before_part

        def kill(exchange: Exchange) -> None:
            os.kill(process[0].pid, signal.SIGKILL)

        self.proxy.at(Rule(is_due, kill))
        process.append(self.cli.start(*words))
        process[0].communicate(timeout=500)
        assert process[0].returncode == -signal.SIGKILL
        return process[0]


@pytest.fixture
def rig(root: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    made = Rig(root, s3)
    yield made
    made.proxy.close()


def confirmed(cli: Cli) -> set[int]:
    """The part numbers that the job's files on disk know as confirmed."""
    known: set[int] = set()
    for path in (cli.data / "jobs").glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        known |= {c["slot"] for file in manifest["files"] for c in file["chunks"] if c["state"] == "confirmed"}
        for line in path.with_name("journal.jsonl").read_text().splitlines():
            step = json.loads(line)
            if step.get("step") == "confirmed":
                known.add(step["slot"])
    return known


def test_a_killed_upload_goes_on_and_sends_no_confirmed_part_again(rig: Rig) -> None:
    data = rig.cli.source("big.bin", 8 * PART + 77)
    rig.killed("put", "big.bin", "--chunk-size", "5MiB", before_part=6)
    there = confirmed(rig.cli)
    assert there
    rig.proxy.fresh()
    ran = rig.cli.json("put", "big.bin")
    assert ran.result["state"] == "completed"
    assert not there & set(rig.sent())
    assert ran.result["bytes_skipped"] >= sum(min(PART, len(data) - (n - 1) * PART) for n in there)
    assert rig.key("big.bin") == data
    assert rig.cli.json("ls", "--incomplete").of("incomplete") == []


def test_without_its_data_dir_an_upload_is_taken_over(rig: Rig) -> None:
    data = rig.cli.source("big.bin", 8 * PART + 77)
    rig.killed("put", "big.bin", "--chunk-size", "5MiB", before_part=7)
    before = {seen.part for seen in rig.proxy.seen if seen.part and seen.status == 200 and seen.size > PROBE}
    assert len(before) >= 4
    shutil.rmtree(rig.cli.data)
    rig.proxy.fresh()
    ran = rig.cli.json("put", "big.bin", "--chunk-size", "5MiB", "--to", f"{rig.url}&adopt_after=0")
    assert ran.of("file_completed")[0]["action"] == "resumed"
    assert not before & set(rig.sent())
    assert ran.result["bytes_sent"] + ran.result["bytes_skipped"] == len(data)
    assert rig.key("big.bin") == data


@pytest.mark.parametrize("words", [("--to", "adopt_after=300"), ("--fresh", "--to", "adopt_after=0")])
def test_a_young_upload_is_left_alone_and_fresh_takes_none_over(rig: Rig, words: tuple[str, ...]) -> None:
    data = rig.cli.source("big.bin", 3 * PART)
    rig.killed("put", "big.bin", "--chunk-size", "5MiB", "--jobs", "1", before_part=3)  # two are there
    shutil.rmtree(rig.cli.data)
    rig.proxy.fresh()
    option = words[-1]
    ran = rig.cli.json("put", "big.bin", "--chunk-size", "5MiB", *words[:-1], f"{rig.url}&{option}")
    assert ran.result["bytes_sent"] == len(data)
    assert [told["code"] for told in ran.of("warning")] == ([] if "--fresh" in words else ["upload_open"])
    assert rig.key("big.bin") == data
    (left,) = rig.cli.json("ls", "--incomplete").of("incomplete")
    assert left["name"] == "big.bin"
    assert rig.cli("cancel", "--incomplete", "--yes").code == 0
    assert rig.cli.json("ls", "--incomplete").of("incomplete") == []


def test_a_taken_over_part_that_holds_other_bytes_is_sent_again(rig: Rig) -> None:
    data = rig.cli.source("big.bin", 4 * PART)
    rig.killed("put", "big.bin", "--chunk-size", "5MiB", before_part=4)
    before = {seen.part for seen in rig.proxy.seen if seen.part and seen.status == 200 and seen.size > PROBE}
    shutil.rmtree(rig.cli.data)
    rig.proxy.fresh()
    changed = min(before)
    at = (changed - 1) * PART + 9
    data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    (rig.root / "big.bin").write_bytes(data)
    ran = rig.cli.json("put", "big.bin", "--chunk-size", "5MiB", "--to", f"{rig.url}&adopt_after=0")
    assert ran.code == 0
    assert set(rig.sent()) & before == {changed}
    assert rig.key("big.bin") == data


def test_a_changed_file_takes_the_unchanged_parts_of_the_object(rig: Rig) -> None:
    data = bytearray(rig.cli.source("big.bin", 6 * PART + 5))
    assert rig.cli("put", "big.bin", "--chunk-size", "5MiB").code == 0
    rig.proxy.fresh()
    data[2 * PART + 7] ^= 1
    (rig.root / "big.bin").write_bytes(data)
    ran = rig.cli.json("put", "big.bin", "--chunk-size", "5MiB")
    assert rig.sent() == [3]
    assert ran.result["bytes_copied"] == len(data) - PART
    (status,) = rig.cli.json("status", ran.of("job_finished")[0]["job"]).of("job")
    assert (status["bytes_copied"], status["evidence"]) == (len(data) - PART, "content")
    assert rig.key("big.bin") == data


def test_of_an_object_that_somebody_else_replaced_nothing_is_copied(rig: Rig) -> None:
    data = rig.cli.source("big.bin", 3 * PART)
    assert rig.cli("put", "big.bin", "--chunk-size", "5MiB").code == 0
    other = Cli(rig.root / "other", rig.url)
    (rig.root / "other").mkdir()
    (rig.root / "other" / "big.bin").write_bytes(os.urandom(3 * PART))
    assert other("put", "big.bin", "--chunk-size", "5MiB").code == 0
    (rig.root / "big.bin").write_bytes(data + b"!")
    ran = rig.cli.json("put", "big.bin", "--chunk-size", "5MiB")
    assert ran.result["bytes_copied"] == 0
    assert rig.key("big.bin") == data + b"!"


def test_what_is_there_is_not_sent(rig: Rig) -> None:
    rig.cli.source("big.bin", 3 * PART)
    rig.cli.source("small.bin", 100)
    rig.cli.source("empty", 0)
    assert rig.cli("put", "big.bin", "small.bin", "empty", "--chunk-size", "5MiB").code == 0
    shutil.rmtree(rig.cli.data)
    rig.proxy.fresh()
    ran = rig.cli.json("put", "big.bin", "small.bin", "empty")
    assert ran.result["files_unchanged"] == 3
    assert {seen.method for seen in rig.proxy.seen} == {"HEAD"}


def test_cancel_aborts(rig: Rig) -> None:
    rig.cli.source("big.bin", 3 * PART)
    rig.killed("put", "big.bin", "--chunk-size", "5MiB", before_part=3)
    (job,) = (path.parent.name for path in (rig.cli.data / "jobs").glob("*/manifest.json"))
    assert rig.cli("cancel", job, "--yes").code == 0
    assert rig.cli.json("ls", "--incomplete").of("incomplete") == []


def test_what_is_fetched_without_a_digest_is_not_called_verified(rig: Rig) -> None:
    """That of a multipart object takes a question, which may be answered in vain, or with trouble that passes."""
    data = rig.cli.source("big.bin", 2 * PART)
    rig.proxy.fresh()
    assert rig.cli("put", "big.bin", "--chunk-size", "5MiB").code == 0
    shutil.rmtree(rig.cli.data)
    ran = rig.cli.json("get", "big.bin", "proved")
    assert (ran.of("file_completed")[0]["evidence"], ran.of("warning")) == ("content", [])
    asks = lambda seen: seen.method == "HEAD" and "partNumber" in seen.path  # noqa: E731
    rig.proxy.at(Rule(asks, instead=lambda: b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"))
    ran = rig.cli.json("get", "big.bin", "retried")
    assert (ran.of("file_completed")[0]["evidence"], len(ran.of("retrying"))) == ("content", 1)
    rig.proxy.at(Rule(asks, instead=lambda: b"HTTP/1.1 501 No\r\nContent-Length: 0\r\n\r\n", times=9))
    ran = rig.cli.json("get", "big.bin", "counted")
    assert ran.of("file_completed")[0]["evidence"] is None
    assert [one["code"] for one in ran.of("warning")] == ["unverified"]
    assert (rig.root / "counted").read_bytes() == data


def test_headers_of_objects(rig: Rig) -> None:
    rig.cli.source("page.html", 10)
    rig.cli.source("big.mp4", PART + 1)
    options = "&storage_class=REDUCED_REDUNDANCY&cache_control=no-store&meta.build=17"
    assert rig.cli("put", "page.html", "big.mp4", "--chunk-size", "5MiB", "--to", rig.url + options).code == 0
    for name, kind in (("page.html", "text/html"), ("big.mp4", "video/mp4")):
        there = rig.s3.api(rig.bucket).head(name)
        assert there is not None
        assert there.headers["content-type"] == kind
        assert there.headers["x-amz-storage-class"] == "REDUCED_REDUNDANCY"
        assert there.headers["cache-control"] == "no-store"
        assert there.headers["x-amz-meta-build"] == "17"


@pytest.mark.parametrize("size", [10, PART + 1])
def test_immutable(rig: Rig, size: int) -> None:
    data = rig.cli.source("a.bin", size)
    assert rig.cli("put", "a.bin", "--immutable", "--chunk-size", "5MiB").code == 0
    assert rig.cli("put", "a.bin", "--immutable").code == 0
    (rig.root / "a.bin").write_bytes(os.urandom(size))
    rig.cli.refuses(5, "rejected", "exists", "put", "a.bin", "--immutable")
    assert rig.key("a.bin") == data


def test_names(rig: Rig) -> None:
    names = ["sp ace", "ünï+cödé%41", "a&b=c?d#e", "tab\there", "~tilde'(1)*!"]
    for name in names:
        rig.cli.source(f"tree/{name}", 5)
    ran = rig.cli.json("put", "-r", "tree")
    assert ran.code == 0, ran.result
    listed = {told["name"] for told in rig.cli.json("ls").of("object")}
    assert listed == {told["name"] for told in ran.of("file_completed")}
    for told in ran.of("file_completed"):
        got = rig.cli("get", told["location"], "-")
        assert got.stdout == (rig.root / told["source"]).read_bytes(), told
    assert rig.cli("rm", "-r", "", env={"PPCLI_YES": "1"}).code in (0, 9)
    assert rig.cli("rm", *sorted(listed)).code in (0, 9)
    assert rig.cli("ls").stdout == b""


def test_of_a_tree_only_names_that_are_there_are_asked_for(rig: Rig) -> None:
    """One listing tells which are new."""
    for number in range(25):
        rig.cli.source(f"tree/{number:02}", 5)
    assert rig.cli("put", "tree/07", "tree/11", "--name", "t/").code == 0
    rig.cli.source("tree/11", 6)
    rig.proxy.fresh()
    ran = rig.cli.json("put", "-r", "tree", "--name", "t/")
    assert (ran.result["files_completed"], ran.result["files_unchanged"]) == (25, 1)
    asked = [seen.path.partition("?")[0] for seen in rig.proxy.seen if seen.method == "HEAD"]
    assert sorted({path.rpartition("/")[2] for path in asked}) == ["07", "11"]
    assert len([seen for seen in rig.proxy.seen if seen.method == "GET"]) == 1
    assert rig.key("t/11") == (rig.root / "tree/11").read_bytes()


@pytest.mark.sweep
def test_many_objects_are_listed_page_by_page(rig: Rig) -> None:
    for number in range(1100):
        (rig.root / "many").mkdir(exist_ok=True)
        (rig.root / "many" / f"{number:04}").write_bytes(b"x")
    assert rig.cli("put", "-q", "-r", "many", env={"PPCLI_JOBS": "16"}).code == 0
    assert len(rig.cli("ls").stdout.splitlines()) == 1100


def lost(matches: Callable[[Exchange], bool]) -> Rule:
    return Rule(matches, cut=True)


@pytest.mark.parametrize(
    "matches",
    [
        lambda seen: seen.method == "POST" and seen.path.endswith("?uploads="),
        lambda seen: seen.part == 2,
        lambda seen: seen.method == "POST" and "uploadId=" in seen.path,
    ],
    ids=["create", "part", "complete"],
)
def test_a_lost_reply_is_resolved(rig: Rig, matches: Callable[[Exchange], bool]) -> None:
    data = rig.cli.source("big.bin", 3 * PART)
    rig.proxy.at(lost(matches))
    ran = rig.cli.json("put", "big.bin", "--chunk-size", "5MiB")
    assert ran.result["state"] == "completed"
    assert rig.key("big.bin") == data


def refusal(status: int, code: str, more: str = "") -> bytes:
    body = f"<Error><Code>{code}</Code><Message>told you so</Message></Error>"
    return f"HTTP/1.1 {status} No\r\n{more}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def test_credentials_that_expire_in_the_middle_pause_the_job(rig: Rig) -> None:
    data = rig.cli.source("big.bin", 4 * PART)
    expired = refusal(400, "ExpiredToken")
    rig.proxy.at(Rule(lambda seen: seen.part == 3 and seen.size > PROBE, instead=lambda: expired, times=99))
    ran = rig.cli.json("put", "big.bin", "--chunk-size", "5MiB", "--jobs", "1")
    assert (ran.code, ran.result["state"], ran.result["error"]["reason"]) == (3, "paused", "expired")
    there = confirmed(rig.cli)
    assert there
    rig.proxy.fresh()
    assert rig.cli.json("resume").result["state"] == "completed"
    assert set(rig.sent()) == {1, 2, 3, 4} - there
    assert rig.key("big.bin") == data


@pytest.mark.parametrize(
    "answer", [refusal(503, "SlowDown", "Retry-After: 1\r\n"), refusal(500, "InternalError")], ids=["slow down", "500"]
)
def test_a_busy_server_is_asked_again(rig: Rig, answer: bytes) -> None:
    data = rig.cli.source("big.bin", 3 * PART)
    rig.proxy.at(Rule(lambda seen: seen.part == 2 and seen.size > PROBE, instead=lambda: answer))
    rig.proxy.at(Rule(lambda seen: seen.method == "POST" and "uploadId=" in seen.path, instead=lambda: answer))
    ran = rig.cli.json("put", "big.bin", "--chunk-size", "5MiB")
    assert ran.code == 0
    assert [told["step"] for told in ran.of("retrying")] == ["upload", "complete"]
    assert sorted(rig.sent()) == [1, 2, 3]
    assert rig.key("big.bin") == data


def test_killed_after_complete_was_sent(rig: Rig) -> None:
    """The upload is gone and the object is there: nothing is sent again."""
    data = rig.cli.source("big.bin", 3 * PART)
    process: list[subprocess.Popen[bytes]] = []

    def completes(seen: Exchange) -> bool:
        return seen.method == "POST" and "uploadId=" in seen.path

    rig.proxy.at(Rule(completes, lambda seen: os.kill(process[0].pid, signal.SIGKILL), cut=True))
    process.append(rig.cli.start("put", "big.bin", "--chunk-size", "5MiB"))
    process[0].communicate(timeout=60)
    until(lambda: rig.proxy.open == 0)  # while it completes one, moto knows neither the upload nor the object
    rig.proxy.fresh()
    ran = rig.cli.json("put", "big.bin")
    assert ran.code == 0
    assert rig.sent() == []
    assert rig.key("big.bin") == data


def test_a_part_after_an_abort_ends(rig: Rig) -> None:
    """Somebody aborts the upload while it is sent: it starts over."""
    data = rig.cli.source("big.bin", 3 * PART)

    def abort(seen: Exchange) -> None:
        (open_,) = rig.s3.api(rig.bucket).uploads("big.bin")
        with contextlib.suppress(Transient):  # a server that minds the parts on their way
            rig.s3.api(rig.bucket).abort("big.bin", open_.id)

    rig.proxy.at(Rule(lambda seen: seen.part == 2 and seen.size > PROBE, abort))
    ran = finish(rig.cli.start("put", "big.bin", "--chunk-size", "5MiB", "--json"), 60)
    assert ran.code == 0, ran.events
    assert [told["code"] for told in ran.of("warning")] == ["session_lost"]
    assert rig.key("big.bin") == data


def ranges(rig: Rig, name: str) -> list[int]:
    """Where the ranges began that were read of an object and came back whole."""
    asked = [seen for seen in rig.proxy.seen if seen.method == "GET" and f"/{name}" in seen.path and seen.delivered]
    return [int(seen.range.removeprefix("bytes=").partition("-")[0]) for seen in asked if seen.range]


def test_an_object_is_read_in_ranges_and_a_cut_one_goes_on(rig: Rig) -> None:
    data = rig.cli.source("big.bin", 4 * PART + 3)
    assert rig.cli("put", "big.bin", "--chunk-size", "5MiB").code == 0
    rig.proxy.fresh()
    rig.proxy.at(Rule(lambda seen: seen.range.startswith(f"bytes={RANGE}-"), cut=True))
    ran = rig.cli.json("get", "big.bin", "there")
    assert (ran.result["bytes_sent"], ran.result["files_completed"]) == (len(data), 1)
    assert (rig.root / "there").read_bytes() == data
    assert sorted(ranges(rig, "big.bin")) == list(range(0, len(data), RANGE))
    assert len(ran.of("retrying")) == 1
    assert rig.cli("get", "big.bin", "-").stdout == data


def test_a_killed_get_goes_on_where_its_file_ends(rig: Rig) -> None:
    data = rig.cli.source("big.bin", 8 * PART)
    assert rig.cli("put", "big.bin", "--chunk-size", "5MiB").code == 0
    (rig.root / "down").mkdir()
    process: list[subprocess.Popen[bytes]] = []
    due = 7 * RANGE

    def kill(seen: Exchange) -> None:
        until(lambda: any(part.stat().st_size >= RANGE for part in (rig.root / "down").glob(".ppcli-get-*")))
        os.kill(process[0].pid, signal.SIGKILL)

    rig.proxy.at(Rule(lambda seen: seen.range.startswith(f"bytes={due}-"), kill))
    process.append(rig.cli.start("get", "big.bin", "down/"))
    process[0].communicate(timeout=60)
    assert process[0].returncode == -signal.SIGKILL
    (part,) = (rig.root / "down").glob(".ppcli-get-*")
    there = part.stat().st_size
    assert part.read_bytes() == data[:there] and there
    rig.proxy.fresh()
    ran = rig.cli.json("get", "big.bin", "down/")
    assert ran.of("file_completed")[0]["action"] == "resumed"
    assert ran.result["bytes_sent"] == len(data) - there
    assert min(ranges(rig, "big.bin")) == there
    assert (rig.root / "down" / "big.bin").read_bytes() == data


def test_a_tree_is_read_side_by_side_and_told_in_order(rig: Rig) -> None:
    wanted = {f"t/{number:02}": rig.cli.source(f"tree/{number:02}", 1000 + number) for number in range(12)}
    wanted["t/big"] = rig.cli.source("tree/big", 3 * RANGE + 1)
    assert rig.cli("put", "-r", "tree", "--name", "t/").code == 0
    ran = rig.cli.json("get", "-r", "t", "out")
    told = [one["name"] for one in ran.of("file_completed")]
    assert told == sorted(wanted)
    assert {f"t/{path.name}": path.read_bytes() for path in (rig.root / "out").iterdir()} == wanted
    again = rig.cli.json("get", "-r", "t", "out")
    assert (again.result["files_unchanged"], again.result["bytes_sent"]) == (13, 0)


def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed(rig: Rig) -> None:
    old, new = rig.cli.source("old.bin", 3 * RANGE), rig.cli.source("new.bin", 3 * RANGE)
    assert rig.cli("put", "old.bin", "--name", "big.bin").code == 0
    replaced: list[int] = []

    def replace(seen: Exchange) -> None:
        replaced.append(rig.cli("put", "new.bin", "--name", "big.bin", "--to", rig.s3.url(rig.bucket)).code)

    rig.proxy.at(Rule(lambda seen: seen.range.startswith(f"bytes={RANGE}-"), replace))
    ran = rig.cli.json("get", "big.bin", "there")
    assert (ran.code, ran.result["error"]["reason"], replaced) == (5, "changed", [0])
    assert not (rig.root / "there").exists()
    assert rig.cli("get", "big.bin", "there").code == 0
    assert (rig.root / "there").read_bytes() == new != old


def test_what_was_damaged_on_the_server_is_not_kept(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers with other bytes than its own digest says."""
    rig.cli.source("big.bin", 3 * RANGE)
    assert rig.cli("put", "big.bin").code == 0

    def mangle(answer: bytes) -> bytes:
        return answer[:-17] + bytes([answer[-17] ^ 1]) + answer[-16:]

    rig.proxy.at(Rule(lambda seen: seen.range.startswith(f"bytes={RANGE}-"), mangle=mangle, times=2))
    rig.cli.refuses(6, "integrity", "damaged", "get", "big.bin", "there")
    assert not (rig.root / "there").exists()


def random_file(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(MIB))


def same_as(rig: Rig, path: Path) -> bool:
    """By one request, apart from the command: the server of the default suite reads all of an object for each range."""
    with path.open("rb") as file, rig.s3.api(rig.bucket).content("big.bin", 0, path.stat().st_size, None) as pieces:
        return all(file.read(len(piece)) == piece for piece in pieces) and not file.read(1)


@pytest.mark.sweep
@pytest.mark.timeout(900)
def test_two_gibibytes_are_killed_and_resumed(rig: Rig) -> None:
    path = rig.root / "big.bin"
    random_file(path, 2 << 30)
    rig.killed("put", "big.bin", before_part=120)
    there = confirmed(rig.cli)
    assert len(there) > 50
    rig.proxy.fresh()
    ran = finish(rig.cli.start("put", "big.bin", "--json", "-q"), 600)
    assert ran.result["state"] == "completed"
    assert not there & set(rig.sent())
    assert same_as(rig, path)


@pytest.mark.sweep
@pytest.mark.timeout(900)
def test_two_gibibytes_are_taken_over_without_the_data_dir(rig: Rig) -> None:
    path = rig.root / "big.bin"
    random_file(path, 2 << 30)
    rig.killed("put", "big.bin", before_part=120)
    there = set(rig.sent())
    assert len(there) > 50
    shutil.rmtree(rig.cli.data)
    rig.proxy.fresh()
    ran = finish(rig.cli.start("put", "big.bin", "--json", "-q", "--to", f"{rig.url}&adopt_after=0"), 600)
    assert ran.result["state"] == "completed"
    assert not there & set(rig.sent())
    assert same_as(rig, path)


@pytest.mark.sweep
@pytest.mark.timeout(900)
def test_a_mebibyte_in_the_middle_of_two_gibibytes(rig: Rig) -> None:
    size, path = 2 << 30, rig.root / "big.bin"
    random_file(path, size)
    assert finish(rig.cli.start("put", "big.bin", "--json", "-q"), 600).code == 0
    rig.proxy.fresh()
    with path.open("r+b") as file:
        file.seek(size // 2 - MIB // 2)  # in two parts
        file.write(os.urandom(MIB))
    ran = finish(rig.cli.start("put", "big.bin", "--json", "-q"), 600)
    assert ran.result["state"] == "completed"
    assert len(rig.sent()) == 2
    assert ran.result["bytes_sent"] == 2 * 8 * MIB
    assert ran.result["bytes_sent"] + ran.result["bytes_copied"] == size
    assert same_as(rig, path)
