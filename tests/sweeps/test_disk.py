"""A disk that is full, broken or read-only, from any call on or for one call only: exit 11, and nothing is lost."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli_kit import Cli
from sweeps.kit import ptrace, traced
from sweeps.kit.calls import Call
from sweeps.kit.jobs import Job, Site
from sweeps.kit.memory import Cut, Memory
from sweeps.kit.orders import Fail
from sweeps.kit.slices import EVERY_SLICE, Sweep
from sweeps.kit.traced import Traced

MANY = 64
REASONS = {errno.ENOSPC: "disk_full", errno.EDQUOT: "disk_full", errno.EROFS: "read_only", errno.EIO: "io"}
RETRIED = ("write", "fsync", "open", "ftruncate")
"""What a signal may interrupt."""


@dataclass(frozen=True, slots=True)
class Point:
    """The failure, and the call of a clean run that has its number."""

    fail: Fail
    call: str

    def __str__(self) -> str:
        return (
            f"{errno.errorcode[self.fail.errno]}{' and on' if self.fail.lasting else ''} at {self.fail.at}: {self.call}"
        )


def points(site: Site, calls: list[Call]) -> Iterator[Point]:
    """Each call with one error for once and another for good, in turns; and each that a signal may interrupt."""
    roots = tuple(str(path) for path in site.roots)
    counted, numbers = [call for call in calls if call.below(roots)], list(REASONS)
    for at, call in enumerate(counted, 1):
        for turn, lasting in enumerate((False, True)):
            yield Point(Fail(at, numbers[(at + turn) % len(numbers)], lasting, roots), str(call))
    for at, call in enumerate((call for call in counted if call.kind in RETRIED), 1):
        yield Point(Fail(at, errno.EINTR, roots=roots, kinds=RETRIED), str(call))


def told(ran: Traced, number: int) -> None:
    """It is done all the same, as what failed was dispensable, or it says what happened and what to do."""
    result = ran.ran.result
    assert ran.ran.err == "", ran.ran.err
    if ran.ran.code == 0:
        assert result["files_completed"] == 2, result
        return
    error = result["error"]
    assert number != errno.EINTR, f"a signal is no reason to fail: {error}"
    assert (ran.ran.code, error["kind"], error["reason"]) == (11, "local", REASONS[number]), error
    assert all(said.endswith(".") and len(said) > 8 for said in (error["message"], error["hint"])), error


@pytest.mark.parametrize("part", EVERY_SLICE)
def test_a_disk_that_fails(site: Site, sweep: Sweep, part: int | None) -> None:
    rng = sweep.rng

    def trial(point: Point) -> bool:
        job = Job(site, rng)
        memory = Memory(site.roots)
        ran = job.run(job.words, point.fail)
        told(ran, point.fail.errno)
        if point.fail.errno == errno.EIO:  # what a failed fsync was to keep may be gone
            memory.follow(ran.calls)
            memory.forget(rng.choice(list(Cut)), rng)
            job.torn = True
        job.look()
        job.finish()
        return ran.struck

    clean = Job(site, rng).clean()
    sweep.over(list(points(site, clean)), trial, few=3, many=MANY)


@pytest.mark.skipif(not ptrace.SUPPORTED, reason=ptrace.NEEDS)
@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("scheme", ["pads", "file"])
def test_a_read_only_home(root: Path, scheme: str, used: bool) -> None:
    (root / "store").mkdir()
    cli, home = Cli(root, "pads:" if scheme == "pads" else f"file://{root}/store"), root / "home"
    for name in ("PPCLI_DATA_DIR", "PPCLI_CONFIG_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        cli.env.pop(name, None)
    cli.env["HOME"] = str(home)
    home.mkdir()
    data = cli.source("some")
    if used:
        cli.source("kept")
        assert cli("put", "kept").code == 0
    before = sorted(home.rglob("*"))
    ran = traced.run(cli, "put", "some", "--json", what=Fail(1, errno.EROFS, lasting=True, roots=(str(home),)))
    assert ran.struck
    told(ran, errno.EROFS)
    assert (ran.ran.code, sorted(home.rglob("*"))) == (11, before)
    cli.works()
    assert cli("put", "some").code == 0
    cli.holds("some", data)
