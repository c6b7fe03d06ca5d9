"""What a kill leaves lying about is gone after the next run: temporary files, drafts of jobs, unfinished folds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_kit import Cli, make_cli

from ppcli import disk
from ppcli.pads import key


def dies(cli: Cli, at: str, *words: str) -> None:
    """Run a command that is killed when it first calls the function `at`, as in `ppcli.disk:fsync`."""
    module, _, name = at.partition(":")
    owner, _, name = name.rpartition(".")
    code = (
        f"import os, sys, {module} as m, ppcli.cli.main as main\n"
        f"setattr({f'm.{owner}' if owner else 'm'}, {name!r}, lambda *given: os.kill(os.getpid(), 9))\n"
        "main.main(sys.argv[1:])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *words], env=cli.env, cwd=cli.root, capture_output=True, check=False
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_temporary_file_is_taken_over(tmp_path: Path) -> None:
    for content in ("1", "2"):
        code = (
            "import os, pathlib; from ppcli import disk; disk.fsync = lambda fd: os.kill(os.getpid(), 9)\n"
            f"disk.write_atomic(pathlib.Path('file'), [b'{content}' * 9])"
        )
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert len(names(tmp_path)) == 1
    disk.write_atomic(tmp_path / "file", [b"whole"])
    assert (names(tmp_path), (tmp_path / "file").read_bytes()) == (["file"], b"whole")


def test_the_user_key_has_no_second_copy(root: Path) -> None:
    cli = Cli(root, "pads:")
    cli.source("some")
    for at in ("ppcli.disk:fsync", "os:replace", "os:link"):
        try:
            dies(cli, at, "put", "some")
        except AssertionError:
            continue  # that is not how it is made
    assert cli("put", "some").code == 0
    assert names(cli.config) == [f".{key.KEY_FILE}.lock", key.KEY_FILE]


def test_a_job_that_was_killed_while_it_was_folded_for_the_last_time(cli: Cli) -> None:
    data = cli.source("some")
    dies(cli, "ppcli.journal:Journal.restart", "put", "some")
    (job,) = [path.parent for path in cli.data.glob("jobs/*/journal.jsonl") if path.stat().st_size]
    assert cli.json("status", "--exit-code", job.name).code == 0
    (job / ".journal.jsonl.tmp").touch()
    assert cli("put", "kept").code == 0
    assert names(job) == ["journal.jsonl", "lock", "log", "manifest.json", "summary.json"]
    assert (job / "journal.jsonl").stat().st_size == 0
    cli.holds("some", data)


@pytest.mark.parametrize("lock", [False, True])
def test_a_draft_that_nobody_holds(root: Path, lock: bool) -> None:
    cli = make_cli(root, "file")
    jobs = cli.data / "jobs"
    for name in ("old", "young"):
        (jobs / f".new-{name}").mkdir()
        if lock:
            (jobs / f".new-{name}" / "lock").touch()
    os.utime(jobs / ".new-old", (0, 0))
    assert cli("put", "kept").code == 0
    left = [name for name in names(jobs) if name.startswith(".new-")]
    assert left == ([] if lock else [".new-young"]), "one that is young may be about to get its lock"


def test_a_job_that_was_killed_before_its_store_was_made(root: Path) -> None:
    """The store's pad size is the one that the job was planned with."""
    cli = Cli(root, "pads:")
    data = cli.source("some")
    dies(cli, "ppcli.pads.opening:create", "put", "some", "--chunk-size", "4096")
    ran = cli.json("resume")
    assert (ran.code, ran.result["state"]) == (0, "completed"), ran.result["error"]
    cli.holds("some", data)
