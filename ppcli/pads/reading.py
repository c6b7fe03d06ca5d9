"""Reading a version back, held against what its pads say of themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import xxhash

from ppcli.errors import Integrity, PpcliError, Temporary
from ppcli.pads.header import Header
from ppcli.pads.index import Version
from ppcli.pads.store import PadStore

_AHEAD = 64
"""Headers that are asked for at once."""


def read(store: PadStore, name: str, version: Version, start: int, end: int) -> Iterator[memoryview]:
    """The bytes of a version from `start` to `end`. The last piece of a chunk is given out only after all of the chunk
    has been checked. Raises `Integrity` where a chunk is damaged, `Temporary` where the version was replaced
    meanwhile."""
    size = version.chunk_size
    for chunk, head in _heads(store, version, range(start // size, min(-(-end // size), len(version.pads)))):
        at = chunk * size
        number, counter = version.pads[chunk]
        if not head or head.counter != counter or not head.holds(chunk, _length(version, chunk), head.digest.hex()):
            raise _failure(store, name, version, chunk)
        digest, done = xxhash.xxh3_128(), 0
        for piece in store.pads.payload(number, head.length):
            digest.update(piece)
            wanted = piece[max(0, start - at) : max(0, end - at)]
            at, done = at + len(piece), done + len(piece)
            if done == head.length and digest.digest() != head.digest:
                raise _failure(store, name, version, chunk)
            if wanted:
                yield wanted
        if done != head.length:
            raise _failure(store, name, version, chunk)


def digest(store: PadStore, version: Version) -> str:
    """`sha256:hex` of what is stored, whether it is what was confirmed or not. Remembers damaged pads as rotten."""
    whole = hashlib.sha256()
    for chunk, head in _heads(store, version, range(len(version.pads))):
        number, counter = version.pads[chunk]
        part = xxhash.xxh3_128()
        for piece in store.pads.payload(number, _length(version, chunk)):
            whole.update(piece)
            part.update(piece)
        if not head or head.counter != counter or head.digest != part.digest():
            store.rotten.add(number)
    return f"sha256:{whole.hexdigest()}"


def _heads(store: PadStore, version: Version, chunks: range) -> Iterator[tuple[int, Header | None]]:
    """Each of these chunks, with the header of its pad."""
    for first in range(0, len(chunks), _AHEAD):
        numbers = {chunk: version.pads[chunk][0] for chunk in chunks[first : first + _AHEAD]}
        found = store.pads.heads(numbers.values())
        yield from ((chunk, found.get(number)) for chunk, number in numbers.items())


def _length(version: Version, chunk: int) -> int:
    return min(version.chunk_size, version.size - chunk * version.chunk_size)


def _failure(store: PadStore, name: str, version: Version, chunk: int) -> PpcliError:
    """Why a chunk is not what the version says: it was replaced, or it is damaged."""
    now = store.find(name)
    if now is None or now.version != version.version:
        return Temporary(f"{name} changed while it was read.", hint="Run the same command again.", reason="changed")
    store.rotten.add(version.pads[chunk][0])
    return Integrity(
        f"Chunk {chunk} of {name} is damaged in the pad store.",
        hint="Send the file again with put --checksum: only damaged chunks go.",
        reason="damaged",
    )
