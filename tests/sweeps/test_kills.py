"""SIGKILL at every system call that writes, syncs, renames, removes or sends, and half way through those with bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from sweeps.kit.calls import Call
from sweeps.kit.jobs import Job, Site
from sweeps.kit.orders import Kill, When
from sweeps.kit.slices import EVERY_SLICE, Sweep

MANY = 240
TWICE = 0.3
"""Of the runs that go on, so many are killed as well."""


@dataclass(frozen=True, slots=True)
class Point:
    """A call of a clean run, and when to kill; in another run that number may be another call."""

    kill: Kill
    call: str


def points(calls: list[Call]) -> list[Point]:
    found = []
    for at, call in enumerate(calls, 1):
        if not call.like_others:
            found.append(Point(Kill(at, When.BEFORE), str(call)))
            found.append(Point(Kill(at, When.HALF if len(call.data) > 1 else When.AFTER), str(call)))
    return found


def killed_and_put_again(site: Site, sweep: Sweep, clean: list[Call], *, first: bool) -> Callable[[Point], bool]:
    rng = sweep.rng

    def trial(point: Point) -> bool:
        job = Job(site, rng, first=first)
        struck = job.run(job.words, point.kill).struck
        job.look()
        if rng.random() < TWICE:
            job.run(job.again(), Kill(rng.randrange(1, len(clean)), rng.choice(list(When))))
            job.look()
        job.finish()
        return struck

    return trial


@pytest.mark.parametrize("part", EVERY_SLICE)
def test_killed_anywhere_it_goes_on(site: Site, sweep: Sweep, part: int | None) -> None:
    clean = Job(site, sweep.rng).clean()
    sweep.over(points(clean), killed_and_put_again(site, sweep, clean, first=False), few=3, many=MANY)


@pytest.mark.parametrize("part", EVERY_SLICE)
@pytest.mark.parametrize("peer", ["pads"], indirect=True)
def test_killed_on_first_use_it_goes_on(site: Site, sweep: Sweep, part: int | None) -> None:
    clean = Job(site, sweep.rng, first=True).clean()
    sweep.over(points(clean), killed_and_put_again(site, sweep, clean, first=True), few=2, many=MANY)
