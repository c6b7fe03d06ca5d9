"""A server of pads that lies: what it says is no crash, no endless reply, and nothing of what it forged is believed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
import xxhash

from ppcli.errors import Transient
from ppcli.pads import header, identity, record
from ppcli.pads.api import Api, Fallen
from ppcli.pads.header import Header, Kind, Stamp
from ppcli.pads.index import Version
from ppcli.pads.key import UserKey
from ppcli.pads.medium import Bytes
from ppcli.pads.remote import RemotePads
from ppcli.target import Body
from ppcli.transport import Reply, Request, Transport

SIZE = 4096
KEY = UserKey(b"k" * 32)
IDENTITY = identity.make(KEY, bytes(16), SIZE)
GOOD = {"store_id": "00" * 16, "pad_size": SIZE, "index": "1" * 32, "seq": 3, "pads": 1}
VERSION = Version(1, "0" * 32, ((0, 7),), (1,), 10, None, 0.0, SIZE)


@dataclass
class Liar:
    """Stands for a transport: one answer for every request."""

    status: int = 200
    value: Any = None
    headers: dict[str, str] | None = None
    body: bytes = b""

    def send(self, _request: Request, body: Body | None = None) -> Reply:
        if body is not None:
            list(body)
        return Reply(self.status, self.headers or {}, json.dumps(self.value).encode())

    @contextlib.contextmanager
    def stream(self, _request: Request) -> Iterator[Liar]:
        yield self

    def pieces(self) -> Iterator[memoryview]:
        while True:
            yield memoryview(self.body)


def api(liar: Liar) -> Api:
    return Api(cast(Transport, liar), "0" * 32)


def pads(liar: Liar) -> RemotePads:
    return RemotePads(api(liar), IDENTITY, KEY, "1" * 32)


def test_a_store_that_makes_sense_is_taken() -> None:
    told = api(Liar(value=GOOD)).store()
    assert told is not None and told.pad_size == SIZE


@pytest.mark.parametrize(
    "lie",
    [
        {"store_id": ""},
        {"store_id": "00" * 17},
        {"pad_size": 0},
        {"pad_size": -5},
        {"pad_size": 1 << 40},
        {"seq": -1},
        {"seq": 10**30},
        {"pads": 10**30},
        {"pads": float("inf")},
    ],
)
def test_a_store_that_makes_no_sense_is_not_taken(lie: dict[str, Any]) -> None:
    with pytest.raises(Transient):
        api(Liar(value=GOOD | lie)).store()


@pytest.mark.parametrize("counter", ["9" * 30, "9" * 5000, "-1", ""])
def test_counters_that_no_header_can_hold(counter: str) -> None:
    medium, stamp = pads(Liar(409, headers={"pad-counter": counter})), Stamp(Kind.DATA, bytes(16), 0)
    for _ in range(2):
        with pytest.raises(Fallen):
            medium.write(0, stamp, Bytes(b"x"))


def test_a_payload_ends_where_it_has_to() -> None:
    got = b""
    with pytest.raises(Transient):
        for piece in pads(Liar(206, body=b"x" * 100)).payload(0, 250):
            got += piece
    assert got == b"x" * 250


@pytest.mark.parametrize("forged", [{"length": 1 << 40}, {"pad_size": 64}, {"store_id": b"s" * 16}])
def test_headers_of_another_store_or_too_long_are_none(forged: dict[str, Any]) -> None:
    good = Header(bytes(16), SIZE, Stamp(Kind.RECORD, bytes(16), 0), 5, xxhash.xxh3_128_digest(b"12345"), 7)
    secret = KEY.pad(bytes(16), 0).secret
    for head, found in ((good, good), (replace(good, **forged), None)):
        liar = Liar(value={"headers": [header.pack(head, secret).hex()]})
        assert pads(liar).heads([0]) == {0: found}


@pytest.mark.parametrize(
    "forged", [{"chunk_size": 0}, {"chunk_size": -1}, {"chunk_size": 1}, {"size": SIZE + 1}, {"pads": ()}]
)
def test_records_whose_sizes_do_not_fit_are_none(forged: dict[str, Any]) -> None:
    for version, found in ((VERSION, ("a", VERSION)), (replace(VERSION, **forged), None)):
        assert record.decode(record.encode("a", version, SIZE), VERSION.owner, [1]) == found
