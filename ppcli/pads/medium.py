"""What holds the pads of a store: files in a directory (`files`), or a server (`remote`). The store decides, from the
headers alone, which pad is what; a medium keeps bytes under numbers.

Different pads may be written and read by any number of threads at once. What is read without an authentic header is
never given out. Nothing that a medium raises or logs tells a secret or an address.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeAlias

import xxhash

from ppcli.pads.header import Header, Stamp
from ppcli.target import PIECE, Body

Found: TypeAlias = Mapping[int, Header | None]
"""Pads that exist, by number, with their headers where those are authentic."""


class Medium(Protocol):
    """`wipe_at`: how many stale pads are worth a call to overwrite them, while nothing else needs that."""

    wipe_at: int

    def reserve(self, numbers: Sequence[int], seq: int) -> None:
        """See to it that these pads exist and are held for us. Repeatable. `seq` is that of the index operation behind
        it: a medium that is elsewhere keeps it, so that an old copy of the index is noticed."""
        ...

    def heads(self, numbers: Iterable[int]) -> Found:
        """The headers of those of these pads that exist."""
        ...

    def walk(self) -> Found:
        """Every pad of the store that exists, found by the user key alone, in order."""
        ...

    def payload(self, number: int, length: int) -> Iterator[memoryview]:
        """The first `length` bytes of a payload, fewer where there are no more, in pieces of at most `PIECE`; a piece
        is valid until this thread reads another one. They prove nothing: hold them against a header's digest."""
        ...

    def payloads(self, lengths: Mapping[int, int]) -> Iterator[tuple[int, bytes]]:
        """Whole payloads of pads that hold little: number and bytes, the number of bytes being given by number."""
        ...

    def read_back(self, number: int, length: int) -> tuple[Header | None, str]:
        """The header of a pad and the XXH3-128 (hex) of the first `length` bytes of its payload, as they are stored."""
        ...

    def write(self, number: int, stamp: Stamp, body: Body) -> Header:
        """Write a pad; its bytes are durable on return. A writer that is cut off leaves the pad as it was, or without
        an authentic header. Raises `Damaged` where `body` is not as long as it says, or something else arrived."""
        ...

    def wipe(self, numbers: Sequence[int], seq: int) -> None:
        """Make sure that these pads hold nothing that could be taken for a record. `seq` as for `reserve`."""
        ...


def head(pads: Medium, number: int) -> Header | None:
    """The authentic header of one pad; None where there is none."""
    return pads.heads((number,)).get(number)


class Bytes:
    """A `Body` of bytes that are in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self.size = len(data)

    def __iter__(self) -> Iterator[memoryview]:
        return (self._data[start : start + PIECE] for start in range(0, self.size, PIECE))

    quiet = __iter__

    @property
    def checksum(self) -> str:
        return xxhash.xxh3_128_hexdigest(self._data)
