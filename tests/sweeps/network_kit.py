"""A ppcli whose way to a real server leads through a proxy that does what bad networks do."""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import pytest
from cli_kit import CHUNK, Cli, Ran
from harness import Place
from peers import Networked, Padded, Peer
from recording_proxy import Exchange, Proxy, Rule, flipped

from ppcli import retry
from ppcli.model import Evidence
from ppcli.target import Target
from ppcli.transport.connection import Connection

PATIENCE, CALM = 0.3, 30.0
"""Seconds of silence that end an attempt: where it is to be ended, and where nothing is wrong but a busy machine."""
_WAIT = Connection._wait
_PORT = re.compile(r"127\.0\.0\.1:(\d+)")


class Route:
    """A command line and its target, with a proxy between them. `direct` reads what is stored there past the proxy."""

    def __init__(self, root: Path, peer: Peer) -> None:
        found = _PORT.search(peer.url)
        assert found is not None
        self.peer, self.proxy = peer, Proxy(int(found[1]))
        self.cli = Cli(root, _PORT.sub(self.proxy.address, peer.url))
        self.cli.env["PPCLI_YES"] = "1"
        if isinstance(peer, Networked) and peer.token:
            self.cli.env["PPCLI_TOKEN"] = peer.token
        self._place = Place(root / "direct", peer.url, CHUNK, peer.http)

    def put(self, name: str, *more: str) -> Ran:
        return self.cli.json("put", name, "--chunk-size", str(CHUNK), "--jobs", "2", "--retries", "3", *more)

    def stored(self, name: str) -> bytes | None:
        return stored_by(self.cli, self.peer, self._place, name)

    def direct(self) -> Target:
        """The target, past the proxy."""
        return self._place.connect()

    def requests(self, act: Callable[[], object]) -> int:
        """How many there are in it."""
        self.proxy.fresh()
        act()
        return len(self.proxy.seen)

    @property
    def counts_only(self) -> bool:
        """The target cannot tell other bytes from those that were sent."""
        with contextlib.closing(self.direct()) as target:
            return target.limits(CHUNK).evidence in (Evidence.OFFSET, Evidence.MARK)


def stored_by(cli: Cli, peer: Peer, place: Place, name: str) -> bytes | None:
    """What is there under a name. Whose index is in the data dir of the one who sent it, that one is asked."""
    if isinstance(peer, Networked) and not isinstance(peer, Padded):
        with contextlib.closing(place.connect()) as target:
            return peer.content(target, name)
    ran = cli("get", name, "-")
    assert ran.code in (0, 9), ran.err
    return ran.stdout if ran.code == 0 else None


@contextlib.contextmanager
def impatient(backoff: float = 0.0, *, patience: float = PATIENCE) -> Iterator[None]:
    """Silence ends an attempt after `patience` seconds, and nothing is waited for between two attempts."""
    most = patience

    def soon(self: Connection, patience: float, *, sending: bool = False) -> bool:
        return _WAIT(self, min(patience, most), sending=sending)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "_wait", soon)
        patch.setattr(retry, "_backoff", lambda _state: backoff)
        patch.setattr(retry, "BACKOFF_MAX", backoff)
        yield


@dataclass(frozen=True)
class Fault:
    """What may happen to a request. `make` gives it for those that match; `corrupts`: bytes of a body change."""

    name: str
    make: Callable[[Callable[[Exchange], bool], random.Random], Rule]
    corrupts: bool = False

    def rule(self, rng: random.Random, first: int, times: int = 1) -> Rule:
        """From request `first` on, `times` of them."""
        rule = self.make(lambda exchange: exchange.number >= first, rng)
        rule.times = times
        return rule


def _limit(bytes_of: Callable[[int], int]) -> Callable[[Exchange], None]:
    def act(exchange: Exchange) -> None:
        exchange.limit = bytes_of(exchange.size)
        if not exchange.size:
            raise EOFError

    return act


def answer(status: int, retry_after: Callable[[], str] = lambda: "0", body: bytes = b"try later") -> bytes:
    head = f"HTTP/1.1 {status} Trouble\r\nRetry-After: {retry_after()}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def now() -> str:
    return formatdate(time.time(), usegmt=True)


def _any_bit(rng: random.Random) -> Callable[[bytes], bytes]:
    """Of what follows the status line: a server's words, not whether it agrees."""

    def mangle(whole: bytes) -> bytes:
        start = whole.index(b"\r\n") + 2
        return flipped(whole, rng.randrange(start, len(whole)))

    return mangle


def _some(rng: random.Random) -> Callable[[bytes], bytes]:
    return lambda whole: whole[: rng.randrange(len(whole))]


FAULTS = [
    Fault("reset before its body", lambda m, r: Rule(m, before=_limit(lambda size: 0), reset=True)),
    Fault("reset within its body", lambda m, r: Rule(m, before=_limit(lambda size: r.randint(0, size)), reset=True)),
    Fault("closed within its body", lambda m, r: Rule(m, before=_limit(lambda size: r.randint(0, size)))),
    Fault("reply lost", lambda m, r: Rule(m, cut=True)),
    Fault("reply lost, reset", lambda m, r: Rule(m, cut=True, reset=True)),
    Fault("503, seconds", lambda m, r: Rule(m, instead=lambda: answer(503))),
    Fault("429, date", lambda m, r: Rule(m, instead=lambda: answer(429, now))),
    Fault("502 of a proxy", lambda m, r: Rule(m, instead=lambda: answer(502, body=b"<html>Bad Gateway</html>"))),
    Fault("200 of a proxy", lambda m, r: Rule(m, instead=lambda: answer(200, body=b"<html>Please log in</html>"))),
    Fault("reply truncated", lambda m, r: Rule(m, mangle=_some(r))),
    Fault("reply truncated, reset", lambda m, r: Rule(m, mangle=_some(r), reset=True)),
    Fault("reply corrupted", lambda m, r: Rule(m, mangle=_any_bit(r)), corrupts=True),
    Fault("body corrupted", lambda m, r: Rule(m, flip=r.random()), corrupts=True),
    Fault("black hole", lambda m, r: Rule(m, instead=lambda: b"")),
    Fault("slow", lambda m, r: Rule(m, slow=0.01)),
    Fault("late", lambda m, r: Rule(m, before=lambda exchange: time.sleep(0.1))),
]
