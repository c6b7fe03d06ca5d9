"""The sweeps take every peer of the contract suite: a target joins by being there."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from cli_kit import fast_directory
from peers import Peer
from sweeps.kit import ptrace
from sweeps.kit.jobs import Site
from sweeps.kit.slices import Outcome, Sweep
from test_contract import *  # noqa: F403 - its fixtures: `peer` and the servers behind it


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory: a sweep is about which calls are made, not about how long they take."""
    with fast_directory() as path:
        yield path


@pytest.fixture
def site(peer: Peer, tmp_path: Path) -> Site:
    if not ptrace.SUPPORTED:
        pytest.skip(ptrace.NEEDS)
    return Site(peer, tmp_path)


@pytest.fixture
def sweep(request: pytest.FixtureRequest, seed: int, record_property: Callable[[str, object], None]) -> Sweep:
    """The name is that of the test's module, without `test_`."""
    name, params = request.module.__name__.removeprefix("test_"), request.node.callspec.params
    rng = random.Random(f"{seed} {request.node.nodeid}")
    outcome, every = Outcome(name, params["peer"], seed), request.config.getoption("--every-point")
    return Sweep(outcome, params["part"], rng, partial(record_property, "sweep"), every=every)
