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
from cli_kit import CHUNK, Cli, make_cli
from nursery import Forked
from server_kit import ServerProcess, running_server

from ppcli.lock import Lock

SIZE = 24 * CHUNK
SCHEMES = ["pads", "file", "http"]
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
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(params=SCHEMES)
def cli(request: pytest.FixtureRequest, root: Path) -> Cli:
    (root / "store").mkdir()
    if request.param == "http":
        server: ServerProcess = request.getfixturevalue("server")
        made = Cli(root, f"{server.url}?hostname={root.name}")
        made.env["PPCLI_TOKEN"] = server.token
    else:
        made = Cli(root, "pads:" if request.param == "pads" else f"file://{root}/store")
    for name in ("a.bin", "b.bin"):
        (root / name).write_bytes(random.Random(root.name + name).randbytes(SIZE))
    return made


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


def clean(cli: Cli) -> None:
    """Nobody left anything behind, and the next command finds everything in order."""
    data = (cli.root / "a.bin").read_bytes()
    assert cli.json("put", "a.bin").code == 0
    cli.holds("a.bin", data)
    assert cli.json("status").of("job") == []
    incomplete = cli.json("ls", "--incomplete")
    assert incomplete.of("incomplete") == [] and incomplete.code in (0, 5)
    assert [path.name for path in (cli.root / "store").iterdir()] in ([], ["a.bin"])
    assert not [path for path in (cli.data / "jobs").iterdir() if path.name.startswith(".new-")]


@pytest.mark.parametrize("count", [2, 20])
def test_all_put_the_same_and_one_of_them_sends_it(cli: Cli, count: int) -> None:
    ended = at_once(cli, [["put", "a.bin"]] * count)
    assert {one.code for one in ended} <= {0, 7}
    assert sum(one.result["bytes_sent"] for one in ended) == SIZE
    for one in ended:
        if one.code == 7:
            assert one.result["error"]["reason"] == "locked" and "process" in one.result["error"]["message"]
    clean(cli)


def test_those_who_wait_find_it_done(cli: Cli) -> None:
    ended = at_once(cli, [["put", "a.bin", "--wait-lock", "30"]] * 8)
    assert [one.code for one in ended] == [0] * 8
    assert sum(one.result["bytes_sent"] for one in ended) == SIZE
    clean(cli)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_all_do_as_they_like(cli: Cli, rounds: int, seed: int) -> None:
    rng = random.Random(f"{seed} {cli.to.partition(':')[0]}")
    whole = [(cli.root / name).read_bytes() for name in ("a.bin", "b.bin")]
    for number in range(rounds):
        commands = [rng.choice(COMMANDS) for _ in range(rng.choice([2, 5] if rounds < 10 else [2, 5, 20]))]
        ended = at_once(cli, commands)
        wrong = [(one.words, one.code, one.result["error"]) for one in ended if one.code not in DOCUMENTED]
        assert not wrong, f"seed {seed}, round {number}"
        there = cli("get", "a.bin", "-")
        assert there.code == 9 or there.stdout in whole, f"seed {seed}, round {number}"
        (cli.root / "copy").unlink(missing_ok=True)
    clean(cli)


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
