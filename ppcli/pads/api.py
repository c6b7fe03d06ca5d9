"""The calls of the pads part of `ppcli serve`, one method each: what is sent, and what the replies mean. Nothing is
decided here. A reply that makes no sense is `Transient`: it may be a proxy's.

Secrets and addresses go in headers and bodies, never in a path, which servers log.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ppcli.errors import Damaged, Rejected, Temporary, Transient
from ppcli.pads import header
from ppcli.pads.identity import PAD_MAX, PAD_MIN
from ppcli.pads.key import Pad
from ppcli.target import Body
from ppcli.transport import Reply, Request, Transport
from ppcli.transport.refusals import own_words

T = TypeVar("T")

MOST = 1000
"""Pads that one request may name."""
_LARGEST = 2**53 - 1
"""The largest number that the API knows."""
_SUPERSEDED, _FALLEN = 412, 409
_NO_STORE = "There is no such store"
"""Says a server that has pads; any other does not know the path."""
_DISK_RATE = 50e6
"""Bytes per second at which a server is trusted to read a pad back before it answers."""


@dataclass(frozen=True, slots=True)
class Told:
    """A store as the server knows it. `index` is the one whose writes it takes, `seq` how far that has come, `pads` how
    many pads it holds."""

    store_id: bytes
    pad_size: int
    index: str
    seq: int
    pads: int


class Fallen(Transient):
    """The server has a pad with a counter that is not below the one that was sent."""

    def __init__(self, counter: int) -> None:
        super().__init__("the server has a newer counter for this pad")
        self.counter = counter


class Unheld(Exception):
    """The server holds no such pad for us."""


class Api:
    """Any thread may call it. `tag` names our store there."""

    def __init__(self, transport: Transport, tag: str) -> None:
        self._transport = transport
        self._store = f"/api/pad_stores/{tag}"

    def store(self) -> Told | None:
        """Our store, if the server has it."""
        reply = self._transport.send(Request("GET", self._store, expect=frozenset({404})))
        if reply.status != 404:
            return self._told(reply)
        if own_words(reply) == _NO_STORE:
            return None
        raise Rejected(
            f"{self._transport.origin.netloc} holds no pads: it answers 404 Not Found.",
            hint="Check the target's URL; pads are kept by 'ppcli serve'.",
            reason="unsupported",
        )

    def make(self, pad_size: int, index: str) -> Told:
        """Our store, which is made where there is none; else it is as it was."""
        return self._told(self._ask("PUT", "", {"pad_size": pad_size, "index": index}))

    def take_over(self, index: str, instead_of: str) -> None:
        """Let `index` count from now on. Raises `Transient` where meanwhile another one counts than `instead_of`."""
        reply = self._ask("POST", "/index", {"index": index, "instead_of": instead_of}, expect={_SUPERSEDED})
        if reply.status == _SUPERSEDED:
            raise Transient("another computer took over these pads at the same moment")

    def reserve(self, index: str, seq: int, pads: Sequence[Pad]) -> None:
        """Hold these pads for us. Repeatable."""
        for some in _batches(pads):
            asked = {"index": index, "seq": seq, "addresses": [pad.address for pad in some]}
            self._check(self._ask("POST", "/reserve", asked, expect={_SUPERSEDED}))

    def erase(self, index: str, seq: int, emptied: Sequence[tuple[Pad, bytes]]) -> None:
        """Leave nothing in these pads but the headers that are given. Raises `Fallen`."""
        for some in _batches(emptied):
            pads = [{"secret": pad.secret.hex(), "header": raw.hex()} for pad, raw in some]
            reply = self._ask(
                "POST", "/erase", {"index": index, "seq": seq, "pads": pads}, expect={_SUPERSEDED, _FALLEN}
            )
            self._check(reply)

    def heads(self, pads: Sequence[Pad]) -> Iterator[tuple[Pad, bytes | None]]:
        """The header of each pad: None for one that the server does not hold for us, empty where it was not written."""
        for some in _batches(pads):
            asked = {"addresses": [pad.address for pad in some]}
            raws = _record(self._transport.send(Request.json("POST", "/api/pads/heads", asked))).get("headers")
            if not isinstance(raws, list) or len(raws) != len(some):
                raise Transient("the server's list of headers makes no sense")
            yield from zip(some, map(_bytes_or_none, raws), strict=True)

    def confirm(self, pad: Pad, length: int) -> tuple[bytes, str] | None:
        """The header, and the XXH3-128 (hex) of `length` bytes of the payload, as the server reads them back. None for
        a pad that it does not hold for us."""
        asked = {"address": pad.address, "length": length}
        patience = 60.0 + length / _DISK_RATE
        reply = self._transport.send(Request.json("POST", "/api/pads/confirm", asked, expect=(404,), patience=patience))
        if reply.status == 404:
            return None
        record = _record(reply)
        digest = record.get("digest")
        return _bytes_or_none(record.get("header")) or b"", digest if isinstance(digest, str) else ""

    def payload(self, pad: Pad, length: int) -> Iterator[memoryview]:
        """The first `length` bytes of a payload, fewer where there are no more."""
        if not length:
            return
        span = f"bytes={header.SIZE}-{header.SIZE + length - 1}"
        headers = {"Pad-Address": pad.address, "Range": span}
        asked = Request("GET", "/api/pads/content", headers, expect=frozenset({404, 416}))
        with self._transport.stream(asked) as stream:
            if stream.status == 206:
                for piece in stream.pieces():
                    yield piece[:length]
                    length -= len(piece)
                    if length < 0:
                        raise Transient("the server sends more than was asked for")
            elif stream.status not in (404, 416):
                raise Transient("the server does not answer with the range that was asked for")

    def write(self, pad: Pad, index: str, body: Body) -> None:
        """Write a pad: a payload, and its header after it. Raises `Fallen`, `Unheld`, `Damaged`."""
        headers = {
            "Content-Type": "application/octet-stream",
            "Pad-Secret": pad.secret.hex(),
            "Pad-Index": index,
        }
        expected = frozenset({400, 404, _FALLEN, _SUPERSEDED})
        reply = self._transport.send(Request("PUT", "/api/pads/content", headers, expect=expected), body)
        if reply.status == 400:
            raise Damaged(f"the server answers: {own_words(reply, pad.secret.hex(), pad.address)}")
        self._check(reply)

    def _ask(self, method: str, path: str, value: Mapping[str, Any], *, expect: Collection[int] = ()) -> Reply:
        return self._transport.send(Request.json(method, self._store + path, value, expect=expect))

    def _check(self, reply: Reply) -> None:
        if reply.status == 404:
            raise Unheld
        if reply.status == _FALLEN:
            counter = reply.headers.get("pad-counter", "")
            raise Fallen(int(counter) if re.fullmatch("[0-9]{1,19}", counter) else 0)
        if reply.status == _SUPERSEDED:
            raise Temporary(
                f"The pads at {self._transport.origin.netloc} are used from another computer or data dir now.",
                hint="When that has ended, run 'ppcli resume': the index is made again from the pads then.",
                reason="superseded",
            )

    def _told(self, reply: Reply) -> Told:
        record = _record(reply)
        try:
            told = Told(
                store_id=bytes.fromhex(record["store_id"]),
                pad_size=int(record["pad_size"]),
                index=str(record["index"]),
                seq=int(record["seq"]),
                pads=int(record["pads"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            told = None
        if (
            told is None
            or len(told.store_id) != 16
            or not PAD_MIN <= told.pad_size <= PAD_MAX
            or not 0 <= told.seq <= _LARGEST
            or not 0 <= told.pads <= _LARGEST
        ):
            raise Transient("the server's reply about its pads makes no sense")
        return told


def _record(reply: Reply) -> Mapping[str, Any]:
    record = reply.json()
    if not isinstance(record, dict):
        raise Transient("the server's reply makes no sense")
    return record


def _bytes_or_none(text: Any) -> bytes | None:
    try:
        return None if text is None else bytes.fromhex(text)
    except (TypeError, ValueError):
        raise Transient("a header in the server's reply makes no sense") from None


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + MOST] for start in range(0, len(items), MOST))
