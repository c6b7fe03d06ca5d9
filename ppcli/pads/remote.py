"""The pads of one store behind a server, as a `Medium`. Retrying is not done here: what a lost call left is settled by
making the same call again, which the server takes as often as it comes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import xxhash

from ppcli.errors import SessionLost
from ppcli.pads import header
from ppcli.pads.api import MOST, Api, Fallen, Unheld
from ppcli.pads.header import Header, Kind, Stamp
from ppcli.pads.identity import Identity
from ppcli.pads.key import GAP, Pad, UserKey
from ppcli.pads.medium import Found
from ppcli.target import Body

_AT_ONCE = 16
"""Records that are read side by side."""
_NOBODY = bytes(16)


class RemotePads:
    """`index` is the id of our index, whose writes the server takes."""

    wipe_at = 64

    def __init__(self, api: Api, identity: Identity, key: UserKey, index: str) -> None:
        self._api = api
        self._store_id = bytes.fromhex(identity.id)
        self._pad_size = identity.pad_size
        self._key = key
        self._index = index
        self._floor = 0
        """A counter that some pad has already: the clock was set back since."""

    def reserve(self, numbers: Sequence[int], seq: int) -> None:
        try:
            self._api.reserve(self._index, seq, [self._pad(number) for number in numbers])
        except Unheld:
            raise SessionLost("the server does not know its pads any more") from None

    def heads(self, numbers: Iterable[int]) -> Found:
        raws = self._api.heads([self._pad(number) for number in numbers])
        return {pad.number: self._head(raw, pad) for pad, raw in raws if raw is not None}

    def walk(self) -> Found:
        """Number by number, as long as the server says that it holds more of them."""
        told = self._api.store()
        left = told.pads if told else 0
        found: dict[int, Header | None] = {}
        number = last = 0
        while left > 0 and number - last <= GAP:
            some = self.heads(range(number, number + MOST))
            found |= some
            left -= len(some)
            last = max(some, default=last)
            number += MOST
        return found

    def payload(self, number: int, length: int) -> Iterator[memoryview]:
        return self._api.payload(self._pad(number), length)

    def payloads(self, lengths: Mapping[int, int]) -> Iterator[tuple[int, bytes]]:
        def whole(number: int) -> tuple[int, bytes]:
            return number, b"".join(bytes(piece) for piece in self.payload(number, lengths[number]))

        with ThreadPoolExecutor(_AT_ONCE, "records") as pool:
            yield from pool.map(whole, lengths)

    def read_back(self, number: int, length: int) -> tuple[Header | None, str]:
        pad = self._pad(number)
        found = self._api.confirm(pad, length)
        return (self._head(found[0], pad), found[1]) if found else (None, "")

    def write(self, number: int, stamp: Stamp, body: Body) -> Header:
        pad = self._pad(number)
        framed = _Framed(self, pad, stamp, body)
        try:
            self._api.write(pad, self._index, framed)
        except Fallen as fallen:
            self._floor = max(self._floor, fallen.counter)
            raise
        except Unheld:
            raise SessionLost(f"the server does not hold pad {number} any more") from None
        assert framed.head is not None
        return framed.head

    def wipe(self, numbers: Sequence[int], seq: int) -> None:
        """They are empty then, with a counter that lets no late copy of an earlier write in."""
        nothing, stamp = xxhash.xxh3_128_digest(b""), Stamp(Kind.DATA, _NOBODY, 0)
        pads = [self._pad(number) for number in numbers]
        emptied = [(pad, header.pack(self.header(stamp, 0, nothing), pad.secret)) for pad in pads]
        try:
            self._api.erase(self._index, seq, emptied)
        except Fallen as fallen:
            self._floor = max(self._floor, fallen.counter)
            raise
        except Unheld:
            pass  # without the store there are no records either

    def header(self, stamp: Stamp, length: int, digest: bytes) -> Header:
        """A header with a counter that no pad has yet."""
        counter = max(self._floor + 1, time.time_ns())
        return Header(self._store_id, self._pad_size, stamp, length, digest, counter)

    def _head(self, raw: bytes, pad: Pad) -> Header | None:
        """The header that `raw` is. A server knows the secrets of pads that were written, so that it is of this store,
        and no larger than a pad, is not proved by its being authentic."""
        head = header.unpack(raw, pad.secret)
        fits = head and (head.store_id, head.pad_size) == (self._store_id, self._pad_size)
        return head if head and fits and head.length <= self._pad_size else None

    def _pad(self, number: int) -> Pad:
        return self._key.pad(self._store_id, number)


class _Framed:
    """A payload with its header after it, which tells the digest of what came before. `head` is that of the last
    iteration."""

    def __init__(self, pads: RemotePads, pad: Pad, stamp: Stamp, body: Body) -> None:
        self.size = body.size + header.SIZE
        self.head: Header | None = None
        self._pads = pads
        self._pad = pad
        self._stamp = stamp
        self._body = body

    def __iter__(self) -> Iterator[memoryview]:
        yield from self._body
        self.head = self._pads.header(self._stamp, self._body.size, bytes.fromhex(self._body.checksum))
        yield memoryview(header.pack(self.head, self._pad.secret))

    def quiet(self) -> Iterator[memoryview]:
        return iter(self)

    @property
    def checksum(self) -> str:
        return self._body.checksum
