"""Every way a network, a proxy or a server can fail, at every request that an upload or a fetch makes, for every
protocol. Whatever happens: a success means the same bytes, a failure has its exit code and leaves no wrong bytes, and
once the trouble is over the next run ends well.

The default run draws a few of these cases; `pytest --sweep tests/sweeps/test_network.py` takes all."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from functools import partial
from pathlib import Path

import pytest
from cli_kit import CHUNK, Ran
from peers import Networked, Peer, Served, Tus
from recording_proxy import Exchange, Rule
from sweeps.network_kit import FAULTS, Fault, Route, answer, impatient
from test_contract import UNDER_CONTRACT

NETWORKED = [scheme for scheme in UNDER_CONTRACT if scheme not in ("pads", "file")]
OFTEN = 1 << 30
ENDINGS = {0, 5, 6, 75}
"""Refused for good, damaged, or tried often enough: what trouble of a network may end in."""
SIZE = 3 * CHUNK + 5
DRAWN = 4

pytestmark = pytest.mark.parametrize("peer", NETWORKED, indirect=True)


@pytest.fixture
def route(root: Path, peer: Peer) -> Iterator[Route]:
    made = Route(root, peer)
    with impatient():
        yield made
    made.proxy.close()


def check(route: Route, name: str, data: bytes, ran: Ran, case: str, *, unseen: bool) -> None:
    """`unseen`: bytes were changed on the way to a target that cannot tell."""
    assert ran.code in ENDINGS, (case, ran.result)
    stored = route.stored(name)
    assert unseen or stored == data or (stored is None and ran.code), (case, ran.result)
    if ran.code:
        assert ran.result["error"]["hint"], case
        again = route.put(name)
        assert again.code == 0, (
            case,
            ran.result["error"],
            again.result["error"],
            [e["cause"] for e in again.of("retrying")],
        )
        assert unseen or route.stored(name) == data, case


def cases(requests: int) -> list[tuple[Fault, int, int]]:
    """A fault, the first request that it meets, and how many."""
    return [(fault, first, times) for fault in FAULTS for first in range(requests) for times in (1, OFTEN)]


def drawn(all_of_them: list[tuple[Fault, int, int]], seed: int, how_many: int) -> list[tuple[Fault, int, int]]:
    return random.Random(seed).sample(all_of_them, how_many) if how_many else all_of_them


HOW_MANY = [DRAWN, pytest.param(0, id="all", marks=[pytest.mark.sweep, pytest.mark.timeout(1200)])]


@pytest.mark.parametrize("how_many", HOW_MANY)
def test_a_put_with_any_fault_at_any_request(route: Route, how_many: int, seed: int) -> None:
    route.cli.source("first", SIZE)
    requests = route.requests(lambda: route.put("first"))
    assert requests >= 5
    for number, (fault, first, times) in enumerate(drawn(cases(requests), seed, how_many)):
        name = f"f{number}"
        data = route.cli.source(name, SIZE)
        route.proxy.fresh()
        route.proxy.at(fault.rule(random.Random(f"{seed} {number}"), first, times))
        ran = route.put(name)
        route.proxy.fresh()
        case = f"{fault.name} at request {first} x {times}, seed {seed}, {number}"
        check(route, name, data, ran, case, unseen=fault.corrupts and route.counts_only)


@pytest.mark.parametrize("how_many", HOW_MANY)
def test_a_get_with_any_fault_at_any_request(route: Route, how_many: int, seed: int) -> None:
    data = route.cli.source("stored", SIZE)
    assert route.put("stored").code == 0
    if route.cli.json("get", "stored", "probe").result["error"]:
        pytest.skip("what is there cannot be fetched by its name")
    requests = route.requests(lambda: route.cli.json("get", "stored", "probe2"))
    for number, (fault, first, times) in enumerate(drawn(cases(requests), seed, how_many)):
        case = f"{fault.name} at request {first} x {times}, seed {seed}, {number}"
        route.proxy.fresh()
        route.proxy.at(fault.rule(random.Random(f"{seed} {number}"), first, times))
        ran = route.cli.json("get", "stored", f"copy{number}")
        route.proxy.fresh()
        copy = route.cli.root / f"copy{number}"
        assert ran.code in ENDINGS | {9}, (case, ran.result)
        assert copy.exists() == (ran.code == 0), case
        if fault.corrupts and [one["evidence"] for one in ran.of("file_completed")] == [None]:
            copy.unlink()  # no digest came through either, and that was told
        assert route.cli.json("get", "stored", f"copy{number}").code == 0, case
        assert copy.read_bytes() == data, case


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
