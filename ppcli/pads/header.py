"""A pad's header: who wrote which chunk of what into it, authenticated with the pad's own secret.

`SIZE` bytes at the start of the pad; big-endian; the payload follows:

    magic 8 | version 1 | kind 1 | zero 6 | store id 16 | pad size 8 | owner 16 | chunk 8 | length 8 | digest 16 |
    counter 8 | HMAC-SHA256(secret, "ppcli-pad-header/1" | all of the above) 32

Store id and pad size are the same in every pad: with the user key, any one pad is enough to know the store again.
"""

from __future__ import annotations

import hmac
import struct
from enum import IntEnum

from ppcli.values import value

_MAGIC = b"ppcliPAD"
_FIELDS = struct.Struct(">8sBB6x16sQ16sQQ16sQ")
_MAC_BYTES = 32

SIZE = _FIELDS.size + _MAC_BYTES


class Kind(IntEnum):
    """What a pad's payload is: a chunk of a file, or a part of a version's record."""

    DATA = 1
    RECORD = 2


@value(frozen=True, slots=True)
class Stamp:
    """What the writer of a pad says about it. `owner` is the 16 bytes of the session's id."""

    kind: Kind
    owner: bytes
    chunk: int


@value(frozen=True, slots=True)
class Header:
    """`length` is the payload's in bytes, `digest` its XXH3-128. `counter` rises with every write of the pad."""

    store_id: bytes
    pad_size: int
    stamp: Stamp
    length: int
    digest: bytes
    counter: int

    def holds(self, chunk: int, size: int, checksum: str) -> bool:
        """Whether the pad is this chunk of a file, with these bytes."""
        stamp = self.stamp
        is_chunk = stamp.kind is Kind.DATA and stamp.chunk == chunk and self.length == size
        return is_chunk and self.digest.hex() == checksum


def pack(header: Header, secret: bytes) -> bytes:
    stamp = header.stamp
    fields = _FIELDS.pack(
        _MAGIC, 1, stamp.kind, header.store_id, header.pad_size, stamp.owner, stamp.chunk, header.length, header.digest,
        header.counter,
    )  # fmt: skip
    return fields + _mac(fields, secret)


def unpack(raw: bytes, secret: bytes) -> Header | None:
    """The header in the first `SIZE` bytes of a pad; None where it is not one, or not authentic."""
    fields, mac = raw[: _FIELDS.size], raw[_FIELDS.size : SIZE]
    if not hmac.compare_digest(mac, _mac(fields, secret)):
        return None
    return _parse(fields)


def claim(raw: bytes) -> tuple[bytes, int] | None:
    """The store id and pad size that a header names; nothing proves them."""
    header = _parse(raw[: _FIELDS.size]) if len(raw) >= _FIELDS.size else None
    return (header.store_id, header.pad_size) if header else None


def _mac(fields: bytes, secret: bytes) -> bytes:
    return hmac.digest(secret, b"ppcli-pad-header/1" + fields, "sha256")


def _parse(fields: bytes) -> Header | None:
    magic, version, kind, store_id, pad_size, owner, chunk, length, digest, counter = _FIELDS.unpack(fields)
    if magic != _MAGIC or version != 1 or kind not in Kind.__members__.values():
        return None
    return Header(store_id, pad_size, Stamp(Kind(kind), owner, chunk), length, digest, counter)
