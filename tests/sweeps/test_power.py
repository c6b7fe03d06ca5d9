"""The power goes after every system call that changes something: what was not synced is there, or not, or in part.

For `pads:` and `file:` data dir and store lose it together; a server elsewhere keeps what it has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from sweeps.kit.calls import Call
from sweeps.kit.jobs import Job, Site
from sweeps.kit.memory import Cut, Memory
from sweeps.kit.orders import Kill, When
from sweeps.kit.slices import EVERY_SLICE, Sweep

MANY = 128


@dataclass(frozen=True, slots=True)
class Point:
    """The last call, by its number in a clean run, and what is left of what was not synced by then."""

    at: int
    cut: Cut
    call: str


def points(calls: list[Call]) -> list[Point]:
    numbered = [(at, call) for at, call in enumerate(calls, 1) if not call.like_others]
    return [Point(at, cut, str(call)) for at, call in numbered for cut in Cut]


def cut_off_and_put_again(site: Site, sweep: Sweep, *, first: bool) -> Callable[[Point], bool]:
    rng = sweep.rng

    def trial(point: Point) -> bool:
        job = Job(site, rng, first=first)
        memory = Memory(site.roots)
        ran = job.run(job.words, Kill(point.at, rng.choice([When.HALF, When.AFTER])))
        memory.follow(ran.calls)
        assert not (unseen := memory.differs()), f"something changed that was not recorded: {unseen}"
        memory.forget(point.cut, rng)
        job.torn = True
        job.look()
        job.finish()
        return ran.struck

    return trial


@pytest.mark.parametrize("part", EVERY_SLICE)
def test_what_was_told_survives_a_power_cut(site: Site, sweep: Sweep, part: int | None) -> None:
    clean = Job(site, sweep.rng).clean()
    sweep.over(points(clean), cut_off_and_put_again(site, sweep, first=False), few=3, many=MANY)


@pytest.mark.parametrize("part", EVERY_SLICE)
@pytest.mark.parametrize("peer", ["pads"], indirect=True)
def test_what_was_told_survives_a_power_cut_on_first_use(site: Site, sweep: Sweep, part: int | None) -> None:
    clean = Job(site, sweep.rng, first=True).clean()
    sweep.over(points(clean), cut_off_and_put_again(site, sweep, first=True), few=2, many=MANY)
