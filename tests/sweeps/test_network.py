"""Every way a network, a proxy or a server can fail, at every request that an upload or a fetch makes, for every
protocol. Whatever happens: a success means the same bytes, a failure has its exit code and leaves no wrong bytes, and
once the trouble is over the next run ends well.

The default run draws a few of these cases, `pytest --sweep tests/sweeps/test_network.py` many of each."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from pathlib import Path

import pytest
from cli_kit import CHUNK, Ran
from peers import Networked, Peer, Served, Tus
from recording_proxy import Exchange, Rule
from sweeps.kit.slices import EVERY_SLICE, Sweep
from sweeps.network_kit import CALM, FAULTS, Fault, Route, answer, impatient
from test_contract import UNDER_CONTRACT

NETWORKED = [scheme for scheme in UNDER_CONTRACT if scheme not in ("pads", "file")]
OFTEN = 1 << 30
ENDINGS = {0, 5, 6, 75}
"""Refused for good, damaged, or tried often enough: what trouble of a network may end in."""
SIZE = 3 * CHUNK + 5
MANY_PUTS, MANY_GETS = 120, 60
NOWHERE = next(fault for fault in FAULTS if fault.name == "black hole")

pytestmark = pytest.mark.parametrize("peer", NETWORKED, indirect=True)


@pytest.fixture
def route(root: Path, peer: Peer) -> Iterator[Route]:
    made = Route(root, peer)
    with impatient():
        yield made
    made.proxy.close()


def check(route: Route, name: str, data: bytes, ran: Ran, *, unseen: bool) -> None:
    """`unseen`: bytes were changed on the way to a target that cannot tell."""
    assert ran.code in ENDINGS, ran.result
    stored = route.stored(name)
    assert unseen or stored == data or (stored is None and ran.code), ran.result
    if ran.code:
        assert ran.result["error"]["hint"], ran.result
        with impatient(patience=CALM):
            again = route.put(name)
        causes = [one["cause"] for one in again.of("retrying")]
        assert again.code == 0, (ran.result["error"], again.result["error"], causes)
        assert unseen or route.stored(name) == data, (ran.result, again.result)


@dataclass(frozen=True, slots=True)
class Case:
    """A fault, the first request that it meets, and how many."""

    fault: Fault
    first: int
    times: int

    def __str__(self) -> str:
        return f"{self.fault.name} at request {self.first} x {self.times}"


def cases(requests: int) -> list[Case]:
    return [Case(fault, first, times) for fault in FAULTS for first in range(requests) for times in (1, OFTEN)]


@pytest.mark.parametrize("part", EVERY_SLICE)
def test_a_put_with_any_fault_at_any_request(route: Route, sweep: Sweep, part: int | None) -> None:
    first = f"first-{part}"  # the server has what other parts have put
    route.cli.source(first, SIZE)
    requests, numbers = route.requests(lambda: route.put(first)), itertools.count()
    assert requests >= 5

    def trial(case: Case) -> bool:
        name = f"f{part}-{next(numbers)}"
        data = route.cli.source(name, SIZE)
        route.proxy.fresh()
        route.proxy.at(case.fault.rule(sweep.rng, case.first, case.times))
        ran = route.put(name)
        route.proxy.fresh()
        check(route, name, data, ran, unseen=case.fault.corrupts and route.counts_only)
        return True

    if part is None:  # the last request makes the file visible, and goes nowhere
        assert trial(Case(NOWHERE, requests - 1, 1))
    sweep.over(cases(requests), trial, few=3, many=MANY_PUTS)


@pytest.mark.parametrize("part", EVERY_SLICE)
def test_a_get_with_any_fault_at_any_request(route: Route, sweep: Sweep, part: int | None) -> None:
    data = route.cli.source("stored", SIZE)
    with impatient(patience=CALM):
        assert route.put("stored").code == 0
    if route.cli.json("get", "stored", "probe").result["error"]:
        pytest.skip("what is there cannot be fetched by its name")
    requests, numbers = route.requests(lambda: route.cli.json("get", "stored", "probe2")), itertools.count()

    def trial(case: Case) -> bool:
        name = f"copy{next(numbers)}"
        copy = route.cli.root / name
        route.proxy.fresh()
        route.proxy.at(case.fault.rule(sweep.rng, case.first, case.times))
        ran = route.cli.json("get", "stored", name)
        route.proxy.fresh()
        assert ran.code in ENDINGS | {9}, ran.result
        assert copy.exists() == (ran.code == 0), ran.result
        if case.fault.corrupts and [one["evidence"] for one in ran.of("file_completed")] == [None]:
            copy.unlink()  # no digest came through either, and that was told
        with impatient(patience=CALM):
            again = route.cli.json("get", "stored", name)
        assert again.code == 0, (ran.result, again.result)
        assert copy.read_bytes() == data, ran.result
        return True

    sweep.over(cases(requests), trial, few=4, many=MANY_GETS)


def test_the_wait_that_a_server_asks_for_is_kept_by_all_workers(route: Route) -> None:
    """In seconds and as a date, by the server's clock; one that is too long ends the run and is named."""
    forms = [lambda: "1", lambda: formatdate(time.time() + 2, usegmt=True)]
    for status, form in zip((429, 503), forms, strict=True):
        name = f"waits{status}"
        data = route.cli.source(name, 8 * CHUNK)
        route.proxy.fresh()
        asked: list[float] = []

        note: Callable[[Exchange], None] = lambda seen, asked=asked: asked.append(seen.at)  # noqa: E731
        route.proxy.at(Rule(lambda seen: seen.size >= CHUNK, note, instead=partial(answer, status, form)))
        ran = route.put(name)
        assert ran.code == 0 and route.stored(name) == data
        assert [one["cause"] for one in ran.of("retrying")] and len(asked) == 1
        after = [seen.at - asked[0] for seen in route.proxy.seen if seen.at > asked[0] + 0.1]
        assert min(after) >= 0.95, "somebody did not wait"
    route.proxy.fresh()
    route.cli.source("long")
    route.proxy.at(Rule(lambda exchange: True, instead=lambda: answer(503, lambda: "4000"), times=OFTEN))
    ran = route.put("long")
    assert (ran.code, ran.result["error"]["reason"]) == (75, "retry_after") and "4000" in ran.result["error"]["message"]


def test_a_server_that_is_killed_and_comes_back(route: Route, peer: Peer, seed: int) -> None:
    """It is gone in the middle of a run, which ends; the next run goes on with what the server still has."""
    if not isinstance(peer, Served | Tus):
        pytest.skip("it keeps everything in its memory")
    for first in random.Random(seed).sample(range(1, 8), 2):
        name = f"killed{first}"
        data = route.cli.source(name, SIZE)
        route.proxy.fresh()
        route.proxy.at(
            Rule(lambda exchange, first=first: exchange.number == first, before=lambda _: peer.server.kill())
        )
        ran = route.put(name)
        assert (ran.code, ran.result["error"]["reason"]) == (75, "retries"), first
        peer.server.start()
        with impatient(patience=CALM):
            assert route.put(name).code == 0, first
        assert route.stored(name) == data, first


@pytest.mark.sweep
def test_silence_ends_an_attempt_within_its_minute(root: Path, peer: Networked) -> None:
    """The real patience, once: a process that talks to a black hole is back after 60 seconds an attempt."""
    route = Route(root, peer)
    data = route.cli.source("a", SIZE)
    route.proxy.at(Rule(lambda exchange: exchange.size >= CHUNK, instead=lambda: b"", hold=120))
    started = time.monotonic()
    ran = route.put("a")
    assert ran.code == 0 and route.stored("a") == data
    assert 55 < time.monotonic() - started < 110
    assert "60 seconds" in ran.of("retrying")[0]["cause"]
    route.proxy.close()
