"""Trouble on the way to a server, while something is listed, fetched or removed, and whose token goes where."""

from __future__ import annotations

import hashlib
import json
import random
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_kit import Cli
from http_kit import Exchange, Server, message, serving

from ppcli import retry
from ppcli.app import receiving
from ppcli.cli import boundary
from ppcli.cli.boundary import execute
from ppcli.cli.call import Call
from ppcli.cli.options import Globals
from ppcli.errors import Damaged, SessionLost, StepFailure, Transient
from ppcli.events import Event, Receiving

TOKEN = "s3cr3t-t0ken"
DATA = random.Random(1).randbytes(3_000_000)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_backoff", lambda _state: 0.0)


class Files:
    """A server that can be listed, read and told of deletions. `trouble` may deal with a request in its place."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.trouble: Callable[[Exchange], bool] = lambda exchange: False

    def __call__(self, exchange: Exchange) -> None:
        body = exchange.read()
        if self.trouble(exchange):
            return
        if exchange.path.startswith("/api/my_files"):
            skip = int((re.findall(r"skip=(\d+)", exchange.path) or ["0"])[0])
            listed = [self._entry(name) for name in self.names[skip : skip + 2]]
            exchange.send(message(200, json.dumps(listed).encode()))
        elif exchange.path.endswith("/content"):
            start = int(re.findall(r"\d+", exchange.headers.get("range", "0"))[0])
            exchange.send(message(206 if start else 200, DATA[start:]))
        elif exchange.method == "DELETE":
            self.names.remove(json.loads(body)["filepath"])
            exchange.send(message(200, b"{}"))
        else:
            exchange.send(message(404, b"{}"))

    def _entry(self, name: str) -> dict[str, object]:
        digest = hashlib.sha256(DATA).hexdigest()
        said = {"_id": name, "filepath": name, "hostname": "here", "sha256": digest, "file_size": len(DATA)}
        return {**said, "has_file_content": True, "file_mtime": 1.0, "status": "active"}


@pytest.fixture
def files() -> Files:
    return Files("a", "b", "c", "d/1", "d/2")


@pytest.fixture
def server(files: Files) -> Iterator[Server]:
    with serving(files) as running:
        yield running


@pytest.fixture
def cli(root: Path, server: Server) -> Cli:
    return Cli(root, f"{server.base}?hostname=here")


def fail(exchange: Exchange, status: int = 503) -> bool:
    exchange.send(message(status, b"busy"))
    return True


def cut_after(size: int) -> Callable[[Exchange], bool]:
    """Each reading breaks off after so many bytes."""

    def trouble(exchange: Exchange) -> bool:
        if not exchange.path.endswith("/content"):
            return False
        start = int(re.findall(r"\d+", exchange.headers.get("range", "0"))[0])
        exchange.send(message(206 if start else 200, DATA[start:])[: size + 100])
        exchange.finish()
        return True

    return trouble


# Listing


def test_a_listing_that_breaks_off_starts_again_and_tells_nothing_twice(cli: Cli, files: Files) -> None:
    asked: list[str] = []

    def trouble(exchange: Exchange) -> bool:
        asked.append(exchange.path)
        return len(asked) in (1, 3, 4) and fail(exchange)

    files.trouble = trouble
    ran = cli.json("ls")
    assert [one["name"] for one in ran.of("object")] == files.names
    assert [one["step"] for one in ran.of("retrying")] == ["list"] * 3


@pytest.mark.parametrize("words", [("ls",), ("rm", "-r", "d"), ("get", "-r", "d", "back"), ("get", "a", "copy")])
def test_a_server_that_stays_away_is_temporary_and_no_bug(cli: Cli, files: Files, words: tuple[str, ...]) -> None:
    files.trouble = fail
    told = cli.refuses(75, "temporary", "retries", *words)
    assert "bug" not in told and "503" in told and "resume" not in told and "same command" in told


def test_a_directory_is_told_where_it_can_be_listed(cli: Cli, files: Files) -> None:
    files.names += [f"e/{number:03}" for number in range(150)]
    assert "a directory with 2 files" in cli.refuses(9, "not_found", "name", "get", "d")
    assert "a directory with more than 100 files" in cli.refuses(9, "not_found", "name", "get", "e")
    for status in (403, 503):
        files.trouble = lambda exchange, status=status: "prefix=d%2F" in exchange.path and fail(exchange, status)  # type: ignore[misc]
        assert "There is no 'd' at " in cli.refuses(9, "not_found", "name", "get", "d")


# Reading


def test_a_fetch_goes_on_from_where_it_was_however_often_it_breaks(cli: Cli, server: Server, files: Files) -> None:
    files.trouble = cut_after(400_000)
    ran = cli.json("get", "a", "copy")
    assert ran.code == 0 and (cli.root / "copy").read_bytes() == DATA
    starts = [heard.headers.get("range") for heard in server.heard if heard.path.endswith("/content")]
    assert starts[0] is None and len(starts) > 5 and len(set(starts)) == len(starts)
    assert cli("get", "b", "-").stdout == DATA


def test_a_fetch_without_progress_ends_and_the_next_goes_on(cli: Cli, server: Server, files: Files) -> None:
    readings: list[int] = []

    def trouble(exchange: Exchange) -> bool:
        if not exchange.path.endswith("/content"):
            return False
        readings.append(1)
        return cut_after(1_000_000)(exchange) if len(readings) == 1 else fail(exchange)

    files.trouble = trouble
    ran = cli.json("get", "a", "copy")
    assert (ran.code, ran.result["error"]["reason"]) == (75, "retries")
    assert len(readings) == 1 + 5 - 1, "the attempt that broke off counts: nothing came after it"
    assert not (cli.root / "copy").exists()
    files.trouble = lambda exchange: False
    assert cli.json("get", "a", "copy").of("file_completed")[0]["action"] == "resumed"
    assert (cli.root / "copy").read_bytes() == DATA
    assert int(re.findall(r"\d+", server.heard[-1].headers["range"])[0]) > 900_000


# Removing


class Ear:
    """A display that keeps what a `get` tells of its progress."""

    def __init__(self, least: int) -> None:
        """`enough` is set once so many bytes are told."""
        self.told: list[Receiving] = []
        self.enough = threading.Event()
        self._least = least

    def hear(self, event: Event) -> None:
        if isinstance(event, Receiving):
            self.told.append(event)
            if event.bytes_done >= self._least:
                self.enough.set()

    def tick(self) -> None: ...

    def close(self) -> None: ...

    def last_words(self) -> None: ...


@pytest.mark.parametrize(("words", "size"), [(("a", "copy"), len(DATA)), (("-r", "d"), 2 * len(DATA))])
def test_a_fetch_tells_how_far_it_is(
    cli: Cli, files: Files, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], size: int
) -> None:
    monkeypatch.setattr(receiving, "_EVERY", 0.01)
    first, rest = Ear(0), Ear(1)

    def trouble(exchange: Exchange) -> bool:
        """The first reading waits until something is told, and breaks off; then nothing comes."""
        if not exchange.path.endswith("/content"):
            return False
        first.enough.wait(10)
        return cut_after(len(DATA) // 3)(exchange) if exchange.headers.get("range") is None else fail(exchange)

    files.trouble = trouble
    monkeypatch.setattr(boundary, "choose_display", lambda *_: first)
    assert cli("get", *words).code == 75
    assert 0 < first.told[-1].bytes_done < size

    def waits(exchange: Exchange) -> bool:
        """Nothing comes until it is told what the earlier run left."""
        return exchange.path.endswith("/content") and not rest.enough.wait(10)

    files.trouble = waits
    monkeypatch.setattr(boundary, "choose_display", lambda *_: rest)
    assert cli("get", *words).code == 0
    assert (rest.told[-1].bytes_done, rest.told[-1].bytes_total) == (size, size)


def test_a_removal_whose_reply_is_lost_was_one(cli: Cli, files: Files) -> None:
    lost: list[str] = []

    def trouble(exchange: Exchange) -> bool:
        """Twice: once on a connection that may have been closed meanwhile, once on a new one."""
        if exchange.method != "DELETE" or len(lost) == 2:
            return False
        lost.append(exchange.path)
        files.names = [name for name in files.names if name != "b"]
        exchange.finish()
        return True

    files.trouble = trouble
    ran = cli.json("rm", "b")
    assert (ran.code, ran.result["files_completed"]) == (0, 1)
    assert cli("rm", "b").code == 9


# What is told


def test_a_host_that_is_not_found_is_a_reason_of_its_own(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    cli = Cli(root, "http://no-such-host.example")
    assert "DNS" in cli.refuses(75, "temporary", "dns", "ls")


@pytest.mark.parametrize(
    ("failure", "code", "reason"),
    [
        (Transient("the line is dead"), 75, "retries"),
        (Transient("no such host", reason="dns"), 75, "dns"),
        (SessionLost("it forgot"), 75, "retries"),
        (Damaged("other bytes are there"), 6, "damaged"),
    ],
)
def test_no_failed_call_is_ever_told_as_a_bug(
    failure: StepFailure, code: int, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def use_case(_app: object) -> object:
        raise failure

    assert execute(Call(use_case), Globals(json=True)) == code  # type: ignore[arg-type]
    error = json.loads(capsys.readouterr().out.splitlines()[-1])["error"]
    assert error["reason"] == reason and str(failure) in error["message"] and "bug" not in error["message"]


# Whose token it is


def unauthorized(exchange: Exchange) -> None:
    exchange.read()
    exchange.send(message(401, b"{}"))


def sent_to(server: Server) -> list[str | None]:
    """The tokens that came with the requests since the last look."""
    heard = [exchange.headers.get("authorization") for exchange in server.heard]
    server.heard.clear()
    return heard


@pytest.fixture
def two() -> Iterator[tuple[Server, Server]]:
    with serving(unauthorized) as one, serving(unauthorized) as other:
        yield one, other


def paused(cli: Cli, *servers: Server) -> None:
    """An unfinished job at each of them; no target is set after that."""
    for number, server in enumerate(servers):
        cli.source(f"source{number}")
        assert cli("put", f"source{number}", "--to", server.base).code == 3
        assert set(sent_to(server)) == {None}
    del cli.env["PPCLI_TARGET"]
    cli.env["PPCLI_TOKEN"] = TOKEN


def test_a_job_is_resumed_with_the_token_of_the_environment(root: Path, two: tuple[Server, Server]) -> None:
    cli = Cli(root, "pads:")
    paused(cli, two[0])
    for words in (("resume",), ("resume", "--all"), ("cancel", "--all", "--yes")):
        cli(*words)
        assert set(sent_to(two[0])) <= {f"Bearer {TOKEN}"}, words
    paused_again = Cli(root, "pads:")
    paused(paused_again, two[0])
    assert paused_again("resume").code == 3 and f"Bearer {TOKEN}" in sent_to(two[0])


def test_a_token_that_may_be_for_any_of_several_jobs_is_sent_to_none(root: Path, two: tuple[Server, Server]) -> None:
    cli = Cli(root, "pads:")
    paused(cli, *two)
    ran = cli.json("resume", "--all")
    assert [set(sent_to(server)) for server in two] == [{None}, {None}]
    (warning,) = [one for one in ran.of("warning") if one["code"] == "token_unused"]
    for word in ("PPCLI_TOKEN", "PPCLI_TARGET", two[0].base, two[1].base):
        assert word in warning["message"]
    first = next(one["job"] for one in cli.json("status").of("job") if one["sources"][0].endswith("source0"))
    assert cli.json("resume", first).of("warning") == []
    assert set(sent_to(two[0])) == {f"Bearer {TOKEN}"}
    cli.env["PPCLI_TARGET"] = two[1].base
    cli("resume", "--all")
    assert [set(sent_to(server)) for server in two] == [{None}, {f"Bearer {TOKEN}"}]


def test_a_token_for_the_default_target_goes_to_no_job_elsewhere(root: Path, two: tuple[Server, Server]) -> None:
    cli = Cli(root, "pads:")
    paused(cli, two[0])
    cli.config.mkdir(exist_ok=True)
    (cli.config / "config.toml").write_text(f'default_target = "{two[1].base}"\n')
    assert cli("resume").code == 3
    assert set(sent_to(two[0])) == {None}
    assert cli("ls").code == 3
    assert sent_to(two[1]) == [f"Bearer {TOKEN}"]


def test_ppcli_target_says_whose_the_token_is_whatever_is_named(root: Path, two: tuple[Server, Server]) -> None:
    cli = Cli(root, two[1].base)
    cli.env["PPCLI_TOKEN"] = TOKEN
    assert cli("get", f"{two[0].base}#f").code == 3 == cli("ls", "--to", two[0].base).code
    assert sent_to(two[0]) == [None, None]
    del cli.env["PPCLI_TARGET"]
    assert cli("get", f"{two[0].base}#f").code == 3
    assert sent_to(two[0]) == [f"Bearer {TOKEN}"]
    ran = cli.json("rm", f"{two[0].base}#f", f"{two[1].base}#f")
    assert [one["code"] for one in ran.of("warning")] == ["token_unused"]
    assert set(sent_to(two[0])) == {None}


@pytest.mark.parametrize(
    "target",
    [
        "http://{}",
        "graphwiz+http://{}",
        "pads+http://{}",
        "tus+http://{}/files/",
        "rufh+http://{}/files",
        "s3://bucket?endpoint=http://{}&region=r",
    ],
)
def test_only_a_job_is_resumed(root: Path, target: str) -> None:
    """Where nothing answers, the hint names `ppcli resume` if there is a job, else the same command."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nothing listens there
        cli = Cli(root, target.format(f"127.0.0.1:{taken.getsockname()[1]}"))
        cli.env |= {"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": "a-secret"}
        cli.source("a.bin", 100)
        assert cli("put", "a.bin", "--to", "pads:").code == 0  # so that there is a user key
        words = ["put", "a.bin", "--retries", "1"]
        asked = target.startswith("pads+")
        for more in [["--dry-run"], *([[]] if asked else []), ["--yes"]]:
            ran = cli.json(*words, *more)
            jobs = cli.json("status").of("job")
            told = ran.result["error"]
            assert told["kind"] == "temporary", told
            assert bool(jobs) == ("--yes" in more)
            if jobs:
                assert told["hint"].startswith("Everything confirmed is kept; run 'ppcli resume' when "), told
            else:
                assert told["hint"] == "Run the same command again when the target can be reached again."
        if not target.startswith(("tus", "rufh")):
            assert cli.json("ls").result["error"]["hint"].startswith("Run the same command again when ")
