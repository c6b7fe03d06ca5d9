"""The real command as a process: killed, interrupted, run twice at once. What it promised is still true afterwards."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHUNK = 64 << 10
SIZE = 12 << 20
JOBS = 4
TARGETS = ["pads:", "file"]


class Command:
    """`ppcli` with its own data dir."""

    def __init__(self, root: Path, target: str) -> None:
        self.root = root
        self.target = target if target != "file" else str(root / "store")
        (root / "store").mkdir()
        self.env = {**os.environ, "PPCLI_TARGET": self.target}
        self.source = root / "big.bin"
        self.source.write_bytes(random.Random(root.name).randbytes(SIZE))

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ppcli", *words]
        return subprocess.Popen(
            command, env=self.env, cwd=self.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *words: str) -> tuple[int, list[dict[str, Any]]]:
        process = self.start(*words, "--json")
        out, err = process.communicate(timeout=60)
        assert "Traceback" not in err
        return process.returncode, [json.loads(line) for line in out.splitlines()]

    def put(self, *more: str) -> subprocess.Popen[str]:
        return self.start("put", "big.bin", "--json", "--jobs", str(JOBS), "--chunk-size", str(CHUNK), *more)

    def fetched(self) -> str:
        process = self.start("get", "big.bin", "-")
        assert process.stdout is not None
        digest = hashlib.sha256(process.stdout.buffer.read()).hexdigest()
        process.communicate(timeout=60)
        return digest

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.source.read_bytes()).hexdigest()


def events(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """The stream as it comes; a line that a kill cut off is the last."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.endswith("\n"):
            yield json.loads(line)


def until(process: subprocess.Popen[str], confirmed: int) -> list[dict[str, Any]]:
    """Read the stream until so many chunks were confirmed in this run."""
    seen = []
    for event in events(process):
        seen.append(event)
        if sum(e["event"] == "chunk_confirmed" for e in seen) >= confirmed:
            break
    return seen


@pytest.fixture(params=TARGETS)
def command(request: pytest.FixtureRequest, tmp_path: Path) -> Command:
    return Command(tmp_path, request.param)


def test_killed_three_times_it_sends_only_what_is_missing(command: Command) -> None:
    rng = random.Random(7)
    told: list[int] = []
    for _ in range(3):
        process = command.put("--limit-rate", "60MB")
        seen = until(process, rng.randint(1, 40))
        process.kill()
        seen += list(events(process))
        process.communicate()
        told += [e["chunk"] for e in seen if e["event"] == "chunk_confirmed"]
        code, shown = command.run("status", "--exit-code")
        assert code == 75
        (job,) = [e for e in shown if e["event"] == "job"]
        assert job["state"] == "paused"
        assert job["chunks"]["confirmed"] >= len(told), "what a user was told is forgotten"
        assert job["chunks"]["confirmed"] <= len(told) + JOBS * 2
    code, last = command.run("resume")
    assert code == 0
    told += [e["chunk"] for e in last if e["event"] == "chunk_confirmed"]
    assert len(told) == len(set(told)), "a confirmed chunk was sent again"
    result = last[-1]
    assert result["bytes_sent"] + result["bytes_skipped"] == SIZE
    assert command.fetched() == command.digest
    assert command.run("put", "big.bin")[1][-1]["files_unchanged"] == 1


def test_killed_at_any_moment_of_its_life_a_put_can_be_repeated(command: Command) -> None:
    """From before the job exists to after it is done: the same `put` always ends well."""
    for delay in (0.12, 0.2, 0.25, 0.3, 0.35, 0.45):
        process = command.put()
        try:
            process.communicate(timeout=delay)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    process = command.put()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(out.splitlines()[-1])["ok"]
    assert command.fetched() == command.digest
    _, shown = command.run("status")
    assert [e for e in shown if e["event"] == "job"] == []
    assert command.run("ls", "--incomplete")[1][0]["event"] == "result"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_in_good_order(command: Command, number: signal.Signals, code: int) -> None:
    process = command.put("--limit-rate", "4MB")
    seen = until(process, 3)
    process.send_signal(number)
    seen += list(events(process))
    _, err = process.communicate(timeout=10)
    assert process.returncode == code
    assert err == ""
    result = seen[-1]
    assert (result["event"], result["exit_code"], result["state"]) == ("result", code, "paused")
    assert result["error"]["kind"] == "interrupted" and result["error"]["retryable"]
    assert "resume" in result["error"]["hint"]
    assert command.run("resume")[0] == 0
    assert command.fetched() == command.digest


def test_a_second_signal_ends_it_at_once(command: Command) -> None:
    process = command.put("--limit-rate", "100KB", "--chunk-size", str(CHUNK))
    until(process, 1)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=4)
    assert process.returncode in (130, 143)
    assert err == ""
    if command.target == "pads:":
        assert command.run("put", "big.bin")[0] == 0, "the new call's options count, also its rate"
    else:
        command.env["PPCLI_LIMIT_RATE"] = "1GB"
        assert command.run("resume")[0] == 0, "it would take two minutes at the old rate"
    assert command.fetched() == command.digest


def test_two_at_once_have_one_writer(command: Command) -> None:
    first = command.put("--limit-rate", "6MB")
    job = until(first, 1)[-1]["job"]
    first.send_signal(signal.SIGSTOP)  # it holds its lock and gets no further
    code, heard = command.run("put", "big.bin")
    assert code == 7
    assert str(first.pid) in heard[-1]["error"]["message"]
    assert command.run("status", "--exit-code", job)[0] == 7
    assert command.run("cancel", job, "--yes")[0] == 7
    first.send_signal(signal.SIGCONT)
    code, heard = command.run("put", "big.bin", "--wait-lock", "30")
    assert code == 0
    assert heard[-1]["bytes_sent"] == 0, "what the first one sent is not sent again"
    first.communicate(timeout=30)
    assert first.returncode == 0
    assert command.fetched() == command.digest


def test_cancel_after_a_kill_frees_everything(command: Command) -> None:
    process = command.put("--limit-rate", "6MB")
    job = until(process, 2)[-1]["job"]
    process.kill()
    process.communicate()
    assert command.run("cancel", job[:6])[0] == 0
    assert command.run("status", "--exit-code", job)[0] == 9
    assert [e["event"] for e in command.run("ls", "--incomplete")[1]] == ["result"]
    assert command.run("resume", job)[0] == 2
    assert command.run("get", "big.bin", "x")[0] == 9


def test_a_killed_spool_leaves_nothing_on_the_target(command: Command) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ppcli", "put", "-", "--name", "x"],
        env=command.env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(bytes(1 << 20))
    process.stdin.flush()
    process.kill()
    process.communicate()
    assert [e["event"] for e in command.run("ls", "--incomplete")[1]] == ["result"]
    assert [e["event"] for e in command.run("ls")[1]] == ["result"]
    assert command.run("resume")[0] == 0
