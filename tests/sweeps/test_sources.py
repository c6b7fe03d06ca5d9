"""A source that changes, goes away or cannot be read any more, at every moment of its upload, for every protocol: what
is stored is one of its revisions, or what was there before; anything else is exit 4 and names the file. Once the source
is sound again, the same command stores it.

The default run draws a few of these cases, `pytest --sweep tests/sweeps/test_sources.py` many."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli_kit import CHUNK, Cli, Ran
from harness import Place
from peers import Networked, Peer
from sweeps.kit.slices import EVERY_SLICE, Sweep
from sweeps.network_kit import CALM, impatient, stored_by
from sweeps.source_kit import CHANGES, MOMENTS, REASONS, Change, Source, happens
from test_bad_input import no_privileges
from test_contract import UNDER_CONTRACT

MANY = 120
SIZE = 3 * CHUNK + 5

pytestmark = pytest.mark.parametrize("peer", UNDER_CONTRACT, indirect=True)


@dataclass(frozen=True, slots=True)
class Case:
    """What happens at the `nth` such moment."""

    change: Change
    moment: str
    nth: int

    def __str__(self) -> str:
        return f"{self.change.__name__} at {self.moment} {self.nth}"


class Sender:
    """A command line, and what is stored behind it."""

    def __init__(self, root: Path, peer: Peer) -> None:
        (root / "store").mkdir()
        self.peer, self.root = peer, root
        self.cli = Cli(root, f"file://{root}/store" if peer.url.startswith("file:") else peer.url)
        self.cli.env["PPCLI_YES"] = "1"
        if isinstance(peer, Networked) and peer.token:
            self.cli.env["PPCLI_TOKEN"] = peer.token
        self._place = Place(root / "direct", peer.url, CHUNK, getattr(peer, "http", None))

    def put(self, name: str) -> Ran:
        return self.cli.json("put", name, "--chunk-size", str(CHUNK), "--jobs", "1")

    def stored(self, name: str) -> bytes | None:
        return stored_by(self.cli, self.peer, self._place, name)


@pytest.fixture
def sender(root: Path, peer: Peer) -> Iterator[Sender]:
    with impatient(patience=CALM):
        yield Sender(root, peer)


def privileges(sender: Sender, change: Change) -> AbstractContextManager[None]:
    """Whether a file may be read matters to everybody but root."""
    return no_privileges(sender.cli) if change is Source.forbid else nullcontext()


@pytest.mark.parametrize("part", EVERY_SLICE)
def test_a_source_that_changes_at_any_moment(sender: Sender, sweep: Sweep, part: int | None) -> None:
    rng, numbers = sweep.rng, itertools.count()

    def trial(case: Case) -> bool:
        source = Source(sender.root / f"s{next(numbers)}")
        if rng.random() < 0.5:  # it replaces another
            source.write(rng.randbytes(SIZE))
            assert sender.put(source.path.name).code == 0
        source.write(rng.randbytes(SIZE))
        with (
            happens(source, lambda: case.change(source, rng), case.moment, case.nth) as done,
            privileges(sender, case.change),
        ):
            ran = sender.put(source.path.name)
        check(sender, source, ran, rng)
        return bool(done)

    sweep.over([Case(change, *moment) for change in CHANGES for moment in MOMENTS], trial, few=4, many=MANY)


def check(sender: Sender, source: Source, ran: Ran, rng: random.Random) -> None:
    name, stored = source.path.name, sender.stored(source.path.name)
    assert ran.code in (0, 4), ran.result
    assert stored in source.revisions or (stored is None and ran.code), ran.result
    if ran.code:
        error = ran.result["error"]
        assert error["reason"] in REASONS and name in error["message"] and error["hint"], error
        assert [one["reason"] for one in ran.of("file_failed")] == [error["reason"]], error
        assert not re.search("bug|Errno", error["message"]), error
    source.mend(rng.randbytes(SIZE + 1))
    again = sender.put(name)
    assert again.code == 0, (ran.result["error"], again.result["error"])
    assert sender.stored(name) == source.revisions[-1], (ran.result, again.result)
