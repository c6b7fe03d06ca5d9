"""Two and twenty processes at once on the same file: one of them writes, the others say so or wait, and whatever order
they come in, nothing is lost, doubled or left behind."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import small_chunks
from cli_kit import CHUNK, Cli, make_cli
from nursery import Forked
from s3_kit import S3, environment
from server_kit import ServerProcess, running_server
from tus_kit import TusServer, running_tus

from ppcli.lock import Lock

SIZE = 24 * CHUNK
SCHEMES = ["pads", "pads+http", "file", "http", "graphwiz+http", "s3", "tus+http"]
LIMITS = {"sessions_per_user": 1000, "asset_chunk_min": 1, "uploads_per_hour": 100_000}
DOCUMENTED = {0, 2, 4, 5, 7, 9, 10, 75}
ROUNDS = [2, pytest.param(10, marks=[pytest.mark.sweep, pytest.mark.timeout(900)])]
COMMANDS = [
    *(
        ["put", "a.bin"],
        ["put", "a.bin", "--wait-lock", "10"],
        ["put", "a.bin", "--fresh"],
        ["put", "b.bin", "--name", "a.bin"],
    ),
    *(["resume"], ["resume", "--all"], ["cancel", "--all", "--yes"], ["rm", "a.bin"]),
    *(["status", "--all"], ["ls"], ["get", "a.bin", "-q", "copy"]),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("server"), LIMITS) as running:
        yield running


@pytest.fixture(scope="module")
def tus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TusServer]:
    with running_tus(tmp_path_factory.mktemp("tus")) as running:
        yield running


@pytest.fixture(params=SCHEMES)
def cli(request: pytest.FixtureRequest, root: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A machine that nobody else uses, and a place of its own at the target."""
    (root / "store").mkdir()
    small_chunks.allow(monkeypatch.setattr)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    made = Cli(root, place(request, root))
    made.env["PPCLI_YES"] = "1"
    if request.param.endswith("http"):
        server = request.getfixturevalue("server")
        made.env["PPCLI_TOKEN"] = server.add_user(f"{root.name}@example.org")
    for name in ("a.bin", "b.bin"):
        (root / name).write_bytes(random.Random(root.name + name).randbytes(SIZE))
    return made


def place(request: pytest.FixtureRequest, root: Path) -> str:
    match request.param:
        case "pads":
            return "pads:"
        case "file":
            return f"file://{root}/store"
        case "s3":
            s3: S3 = request.getfixturevalue("s3")
            return s3.url(s3.bucket())
        case "tus+http":
            tus: TusServer = request.getfixturevalue("tus")
            return tus.url
        case scheme:
            server: ServerProcess = request.getfixturevalue("server")
            return f"{scheme}://127.0.0.1:{server.port}" + ("?hostname=here" if scheme == "http" else "")


class Ended:
    def __init__(self, code: int, out: bytes, words: Sequence[str]) -> None:
        self.code, self.words = code, words
        self.events: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]

    @property
    def result(self) -> dict[str, Any]:
        assert [one["event"] for one in self.events].count("result") == 1, (self.words, self.events)
        assert self.events[-1]["exit_code"] == self.code
        return self.events[-1]


def at_once(cli: Cli, commands: Sequence[Sequence[str]]) -> list[Ended]:
    """Run all of them side by side."""
    running = []
    with contextlib.chdir(cli.root), (cli.root / "stderr").open("ab") as errors:
        for words in commands:
            rates = ["--chunk-size", str(CHUNK)] if words[0] == "put" else []
            running.append((words, Forked([*words, *rates, "--json"], cli.env, errors, 0o022)))
    ended = []
    for words, process in running:
        out, _ = process.communicate(120)
        assert process.returncode is not None
        ended.append(Ended(process.returncode, out, words))
    assert (cli.root / "stderr").read_text() == ""
    return ended


def names_files(cli: Cli) -> bool:
    """Else the second of two who put the same cannot know of the first."""
    return not cli.to.startswith("tus")


def stored(cli: Cli, request: pytest.FixtureRequest, ended: Sequence[Ended]) -> list[bytes]:
    """What is at the target by now: under the name, or else where it was said to be."""
    if names_files(cli):
        there = cli("get", "a.bin", "-")
        return [there.stdout] if there.code != 9 else []
    tus: TusServer = request.getfixturevalue("tus")
    done = [event for one in ended for event in one.events if event["event"] == "file_completed"]
    return [tus.at(event["location"]) for event in done]


def sent_once(cli: Cli, ended: Sequence[Ended]) -> None:
    sent = [one.result["bytes_sent"] for one in ended if one.code == 0]
    assert sum(sent) == SIZE * (1 if names_files(cli) else len(sent))


def clean(cli: Cli) -> None:
    """Nobody left anything behind, and the next command finds everything in order."""
    data = (cli.root / "a.bin").read_bytes()
    assert cli.json("put", "a.bin").code == 0
    if names_files(cli):
        cli.holds("a.bin", data)
    assert cli.json("status").of("job") == []
    incomplete = cli.json("ls", "--incomplete")
    assert incomplete.of("incomplete") == [] and incomplete.code in (0, 5)
    assert [path.name for path in (cli.root / "store").iterdir()] in ([], ["a.bin"])
    assert not [path for path in (cli.data / "jobs").iterdir() if path.name.startswith(".new-")]


@pytest.mark.parametrize("count", [5, pytest.param(20, marks=pytest.mark.sweep)])
def test_all_put_the_same_and_one_of_them_sends_it(cli: Cli, count: int) -> None:
    ended = at_once(cli, [["put", "a.bin"]] * count)
    assert {one.code for one in ended} <= {0, 7}
    sent_once(cli, ended)
    for one in ended:
        if one.code == 7:
            assert one.result["error"]["reason"] == "locked" and "process" in one.result["error"]["message"]
    clean(cli)


def test_those_who_wait_find_it_done(cli: Cli) -> None:
    ended = at_once(cli, [["put", "a.bin", "--wait-lock", "30"]] * 4)
    assert [one.code for one in ended] == [0] * 4
    sent_once(cli, ended)
    clean(cli)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_all_do_as_they_like(cli: Cli, request: pytest.FixtureRequest, rounds: int, seed: int) -> None:
    rng = random.Random(f"{seed} {cli.to.partition(':')[0]}")
    whole = [(cli.root / name).read_bytes() for name in ("a.bin", "b.bin")]
    for number in range(rounds):
        commands = [rng.choice(COMMANDS) for _ in range(rng.choice([2, 5] if rounds < 10 else [2, 5, 20]))]
        ended = at_once(cli, commands)
        wrong = [(one.words, one.code, one.result["error"]) for one in ended if one.code not in DOCUMENTED]
        assert not wrong, f"seed {seed}, round {number}"
        assert all(one in whole for one in stored(cli, request, ended)), f"seed {seed}, round {number}"
        (cli.root / "copy").unlink(missing_ok=True)
    clean(cli)


@pytest.mark.parametrize("cli", ["pads", "file", "http"], indirect=True)
@pytest.mark.parametrize("who", ["dead", "alive", "nonsense"])
def test_a_lock_file_of_somebody_who_does_not_hold_it(cli: Cli, who: str) -> None:
    """Its process is dead, or its pid is somebody else's by now: what counts is the lock, not what the file says."""
    process = cli.start("put", "a.bin", "--chunk-size", str(CHUNK), "--limit-rate", str(4 * CHUNK), "--json")
    assert process.stdout is not None
    while b"chunk_confirmed" not in process.stdout.readline():
        pass
    process.kill()
    process.communicate()
    (job,) = [one["job"] for one in cli.json("status").of("job")]
    lock = cli.data / "jobs" / job / "lock"
    told = json.loads(lock.read_text())
    assert told["pid"] == process.pid
    if who == "alive":
        lock.write_text(json.dumps(told | {"pid": os.getppid()}))
    elif who == "nonsense":
        lock.write_bytes(b"[" * 5000)
    assert cli.json("status").of("job")[0]["state"] == "paused"
    ran = cli.json("put", "a.bin")
    assert ran.code == 0 and ran.result["bytes_skipped"] >= CHUNK
    clean(cli)


@pytest.mark.parametrize("inside", [b"[" * 100000, b"", b'{"pid":1e999,"host":null,"started":"x"}', b"\xff\xfe"])
def test_a_lock_that_says_nothing_of_its_holder(root: Path, inside: bytes) -> None:
    """Held, with nonsense inside: busy."""
    cli = make_cli(root, "file")
    assert cli.json("put", "nothing-there", "kept", "--name", "x/").code == 10
    (job,) = [one["job"] for one in cli.json("status").of("job")]
    with Lock(cli.data / "jobs" / job / "lock") as lock:
        lock.path.write_bytes(inside)
        assert cli("status", "--exit-code", job).code == 7
        cli.refuses(7, "busy", "locked", "resume", job)
