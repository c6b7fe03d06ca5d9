"""A version as bytes for its record pads, so that the index can be made again from the pads alone.

The bytes are zlib-compressed JSON, cut into as many parts as there must be. Each part begins with the version and the
number of parts (8 and 4 bytes, big-endian); its place among them is the chunk number in its pad's header.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence

from ppcli import records
from ppcli.pads.index import Version
from ppcli.values import value

_PREFIX = struct.Struct(">QI")


@value(frozen=True, slots=True)
class Prefix:
    """What a part says about itself: parts with the same owner and prefix belong together."""

    version: int
    parts: int


def expected_pads(name: str, chunks: int, pad_size: int) -> int:
    """How many pads the record of such a version will most likely take."""
    return -(-(200 + len(name.encode("utf-8", "replace")) + 14 * chunks) // (pad_size - _PREFIX.size))


def encode(name: str, version: Version, pad_size: int) -> list[bytes]:
    """The payloads of the record pads. Everything of `version` but `owner` and `record`, which their headers tell."""
    values = {
        "name": name,
        "size": version.size,
        "digest": version.digest,
        "modified": version.modified,
        "chunk_size": version.chunk_size,
        "pads": version.pads,
    }
    data = zlib.compress(json.dumps(values, separators=(",", ":")).encode(), 1)
    room = pad_size - _PREFIX.size
    cuts = range(0, len(data), room)
    prefix = _PREFIX.pack(version.version, len(cuts))
    return [prefix + data[cut : cut + room] for cut in cuts]


def prefix(part: bytes) -> Prefix | None:
    return Prefix(*_PREFIX.unpack_from(part)) if len(part) > _PREFIX.size else None


def decode(parts: Sequence[bytes], owner: str, numbers: Sequence[int]) -> tuple[str, Version] | None:
    """The name and version in these parts, which lie in order in the pads `numbers`. None where they are no record."""
    try:
        values = records.loads(zlib.decompress(b"".join(part[_PREFIX.size :] for part in parts)))
        first = Prefix(*_PREFIX.unpack_from(parts[0]))
        version = Version(
            version=first.version,
            owner=owner,
            pads=tuple((int(number), int(counter)) for number, counter in values["pads"]),
            record=tuple(numbers),
            size=int(values["size"]),
            digest=values["digest"],
            modified=float(values["modified"]),
            chunk_size=int(values["chunk_size"]),
        )
        fits = version.chunk_size > 0 and len(version.pads) == max(1, -(-version.size // version.chunk_size))
        return (str(values["name"]), version) if fits else None
    except (zlib.error, ValueError, KeyError, TypeError, OverflowError, struct.error):
        return None
