"""`resume` and `cancel` of several jobs: the trouble of one is told and stops none of the others, and the exit code is
what they share, else the first that is not 0."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from cli_kit import CHUNK, Cli


def paused_at(cli: Cli, target: str) -> str:
    """A job for a target that is not there: it has begun nothing."""
    ran = cli.json("put", "kept", "--to", target, "--retries", "1")
    assert ran.result["state"] == "paused"
    job: str = ran.of("job_started")[0]["job"]
    return job


@pytest.fixture
def jobs(pads: Cli) -> Sequence[str]:
    """Two that cannot go on, for two reasons, and two that can."""
    away = [paused_at(pads, "http://127.0.0.1:1"), paused_at(pads, f"file://{pads.root}/away")]
    failed = [pads.json("put", "kept", name, "--name", f"{name}/").of("job_started")[0]["job"] for name in ("x", "y")]
    for name in ("x", "y"):
        pads.source(name, CHUNK)
    return [*away, *failed]


def states(cli: Cli) -> dict[str, str]:
    return {job["job"]: job["state"] for job in cli.json("status", "--all").of("job")}


@pytest.mark.parametrize("every", [True, False])
def test_resume_tries_each(pads: Cli, jobs: Sequence[str], every: bool) -> None:
    ran = pads.json("resume", *(["--all"] if every else jobs))
    assert (ran.code, ran.result["state"], ran.result["target"]) == (75, None, None)
    assert [states(pads)[job] for job in jobs] == ["paused", "paused", "completed", "completed"]
    assert [(told["code"], told["job"]) for told in ran.of("warning")] == [("temporary", jobs[0]), ("local", jobs[1])]
    assert ran.result["files_completed"] == 2


def test_resume_of_a_cancelled_job_among_others(pads: Cli, jobs: Sequence[str]) -> None:
    assert pads("cancel", jobs[2], "--yes").code == 0
    ran = pads.json("resume", jobs[2], jobs[3])
    assert (ran.code, states(pads)[jobs[3]]) == (2, "completed")
    assert (ran.result["error"]["reason"], ran.of("warning")[0]["job"]) == ("cancelled", jobs[2])
    ran = pads.json("resume", jobs[3], jobs[1], jobs[2])
    assert ran.code == 11


@pytest.mark.parametrize("every", [True, False])
def test_cancel_tries_each(pads: Cli, jobs: Sequence[str], every: bool) -> None:
    ran = pads.json("cancel", *(["--all"] if every else jobs), "--yes")
    assert [states(pads)[job] for job in jobs] == ["cancelled", "paused", "cancelled", "cancelled"]
    assert (ran.code, ran.result["error"]["kind"]) == (11, "local")
    assert [told["job"] for told in ran.of("warning")] == [jobs[1]]


def test_a_script_asks_for_the_worst_of_several(pads: Cli, jobs: Sequence[str]) -> None:
    assert pads("status", "--exit-code").code == 75
    assert pads("cancel", jobs[0], "--yes").code == 0
    assert pads("status", "--exit-code", jobs[0]).code == 9
    assert pads("status", "--exit-code", jobs[2], jobs[1]).code == 75
    assert pads("status", "--exit-code", jobs[3], jobs[2]).code == 10
    assert pads("resume", *jobs[2:]).code == 0
    (pads.root / "away").mkdir()
    assert pads("cancel", jobs[1], "--yes").code == 0
    assert pads("status", "--exit-code").code == 0


def completed(cli: Cli, line: str, shell: str = "bash") -> list[str]:
    """What the shell is told at the end of a line."""
    words = {"_PPCLI_COMPLETE": f"{shell}_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    ran = cli(env=words)
    assert (ran.code, ran.err) == (0, "")
    return [line for line in ran.stdout.decode().splitlines() if line]


def test_the_shell_knows_the_jobs(pads: Cli, jobs: Sequence[str]) -> None:
    assert pads("resume", jobs[2]).code == 0
    (done,) = states(pads).keys() - {*jobs}
    unfinished = [f"plain,{job}" for job in (jobs[3], jobs[1], jobs[0])]
    assert completed(pads, "ppcli resume ") == completed(pads, "ppcli cancel ") == unfinished
    assert completed(pads, f"ppcli resume {jobs[3]} ") == unfinished[1:]
    assert completed(pads, f"ppcli resume {jobs[0][:-1]}") == unfinished[2:]
    assert completed(pads, "ppcli status ") == [*unfinished[:1], f"plain,{jobs[2]}", *unfinished[1:], f"plain,{done}"]
    assert f"paused: {pads.root / 'kept'} -> http://127.0.0.1:1" in "\n".join(completed(pads, "ppcli resume ", "zsh"))
    for name in ("summary.json", "manifest.json"):
        (pads.data / "jobs" / jobs[0] / name).write_bytes(b"{}")
    assert completed(pads, "ppcli resume ") == unfinished[:2]
    (pads.data / "jobs").rename(pads.data / "gone")
    assert completed(pads, "ppcli resume ") == []
    (pads.data / "jobs").write_bytes(b"")
    assert completed(pads, "ppcli resume ") == []


def test_the_last_line_names_the_jobs(pads: Cli, jobs: Sequence[str]) -> None:
    known = set(states(pads))
    last = pads("resume", *jobs[:2]).err.splitlines()[-1]
    assert f"ppcli resume {jobs[0]} {jobs[1]}" in last
    ran = pads("put", "kept", "nope", "--name", "z/")
    assert f"ppcli resume {(set(states(pads)) - known).pop()}" in ran.err.splitlines()[-1]


def test_nothing_to_cancel_is_said(pads: Cli) -> None:
    assert pads("cancel", "--all").err == "ppcli: There is no unfinished job.\n"


def test_a_server_that_cannot_be_reached(pads: Cli) -> None:
    told = "Could not look for kept after 1 attempt: 127.0.0.1:1 cannot be reached: Connection refused."
    assert told in pads("put", "kept", "--to", "http://127.0.0.1:1", "--retries", "1").err
