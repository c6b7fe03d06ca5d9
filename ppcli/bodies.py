"""The bytes of a chunk on their way out: hashed as they go, read again where something has to be sent again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Protocol, TypeAlias

import xxhash

from ppcli.model import Part
from ppcli.target import PIECE

_HELD = 1 << 16
"""Bytes of a chunk that is kept in memory between two readings of it."""

OnBytes: TypeAlias = Callable[[int], None]
"""Told how many bytes were consumed, after each piece. May raise to abandon the reading."""


class Readable(Protocol):
    """What a `Source` gives: exactly `size` bytes from `offset`."""

    def pieces(self, offset: int, size: int, piece: int = PIECE) -> Iterator[memoryview]: ...

    def read(self, offset: int, size: int) -> bytes: ...


class ChunkBody:
    """A `target.ChunkBytes` over a range of a source. One thread at a time iterates it, as often as it needs to."""

    __slots__ = ("_hasher", "_held", "_on_bytes", "_part", "_piece", "_sha", "_source", "_whole", "size")

    def __init__(self, source: Readable, part: Part, on_bytes: OnBytes | None, whole: bool, piece: int) -> None:
        self.size = part.size
        self._source = source
        self._part = part
        self._on_bytes = on_bytes
        self._whole = whole
        self._piece = piece
        self._held: memoryview | None = None
        self._hasher = xxhash.xxh3_128()
        self._sha = hashlib.sha256() if whole else None

    def __iter__(self) -> Iterator[memoryview]:
        return self.starting(0)

    def starting(self, start: int) -> Iterator[memoryview]:
        """The bytes from `start` on; those before are only hashed."""
        hasher = self._hasher = xxhash.xxh3_128()
        sha = self._sha = hashlib.sha256() if self._whole else None
        on_bytes = self._on_bytes
        for piece in self._read(0, start) if start else ():
            hasher.update(piece)
            if sha:
                sha.update(piece)
        for piece in self._read(start, self.size, self._piece):
            hasher.update(piece)
            if sha:
                sha.update(piece)
            yield piece
            if on_bytes:
                on_bytes(len(piece))

    def tail(self, start: int) -> Tail:
        """See `target.ChunkBytes`; `whole` covers what it reads, too."""
        return Tail(self, start)

    def digest(self, algorithm: str, start: int) -> bytes:
        hasher = hashlib.new(algorithm, usedforsecurity=False)
        for piece in self.quiet(start):
            hasher.update(piece)
        return hasher.digest()

    def quiet(self, start: int = 0) -> Iterator[memoryview]:
        return self._read(start, self.size)

    def _read(self, start: int, stop: int, piece: int = PIECE) -> Iterator[memoryview]:
        """A range of the chunk. A small one is read once, and copied: a piece is valid until the next."""
        if self.size > _HELD:
            return self._source.pieces(self._part.offset + start, stop - start, piece)
        if self._held is None:
            self._held = memoryview(self._source.read(self._part.offset, self.size))
        view = self._held[start:stop]
        return iter([view[at : at + piece] for at in range(0, len(view), piece)])

    @property
    def checksum(self) -> str:
        """XXH3-128 (hex) of the last iteration, which must have run to its end."""
        return self._hasher.hexdigest()

    @property
    def whole(self) -> str:
        """`sha256:hex` of the last iteration; only for a body made with `whole`."""
        assert self._sha, "made without whole"
        return f"sha256:{self._sha.hexdigest()}"


class Tail:
    """The end of a chunk, as a `target.Body`: what a target lacks of it."""

    __slots__ = ("_chunk", "_start", "size")

    def __init__(self, chunk: ChunkBody, start: int) -> None:
        self.size = chunk.size - start
        self._chunk = chunk
        self._start = start

    def __iter__(self) -> Iterator[memoryview]:
        return self._chunk.starting(self._start)

    def quiet(self) -> Iterator[memoryview]:
        return self._chunk.quiet(self._start)

    @property
    def checksum(self) -> str:
        """That of the whole chunk."""
        return self._chunk.checksum
