"""Digests by name. A digest is written `algorithm:hex`; the algorithms are

    sha256, md5, sha1, crc64nvme, crc32c     of the whole content
    md5-SIZE                                 MD5 over the MD5s of its parts of SIZE bytes: what S3 puts, with `-` and
                                             their count behind it, into the ETag of a multipart upload

The two CRCs come from `awscrt`, which the extra `s3` brings; it is loaded when one is wanted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Protocol

from ppcli.errors import not_installed

SHA256 = "sha256"
_HASHES = ("sha256", "md5", "sha1")
_CRC_BYTES = {"crc64nvme": 8, "crc32c": 4}


class Hasher(Protocol):
    """As in hashlib."""

    def update(self, data: memoryview, /) -> None: ...

    def digest(self) -> bytes: ...

    def hexdigest(self) -> str: ...


def known(algorithm: str) -> bool:
    """Can a digest of this name be computed here?"""
    name, dash, size = algorithm.partition("-")
    return (name == "md5" and size.isdigit() and int(size) > 0) if dash else name in (*_HASHES, *_CRC_BYTES)


def hasher(algorithm: str) -> Hasher:
    """Raises `Usage` where the CRCs are wanted and their library is not installed, ValueError for an unknown name."""
    if algorithm in _HASHES:
        return hashlib.new(algorithm, usedforsecurity=False)
    if algorithm in _CRC_BYTES:
        return Crc(algorithm)
    if not known(algorithm):
        raise ValueError(f"unknown algorithm {algorithm!r}")
    return Parts(int(algorithm.partition("-")[2]))


def digest_of(pieces: Iterable[memoryview], algorithm: str) -> str:
    """`algorithm:hex` of these bytes."""
    whole = hasher(algorithm)
    for piece in pieces:
        whole.update(piece)
    return f"{algorithm}:{whole.hexdigest()}"


class Crc:
    """CRC64NVME or CRC32C."""

    def __init__(self, algorithm: str) -> None:
        self._function = _function(algorithm)
        self._bytes = _CRC_BYTES[algorithm]
        self._value = 0

    def update(self, data: memoryview, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._bytes, "big")

    def hexdigest(self) -> str:
        return self.digest().hex()


class Parts:
    """MD5 over the MD5s of parts of `size` bytes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._done: list[bytes] = []
        self._part = hashlib.md5(usedforsecurity=False)
        self._filled = 0

    def update(self, data: memoryview, /) -> None:
        while len(data):
            if self._filled == self._size:
                self._done.append(self._part.digest())
                self._part, self._filled = hashlib.md5(usedforsecurity=False), 0
            piece = data[: self._size - self._filled]
            self._part.update(piece)
            self._filled += len(piece)
            data = data[len(piece) :]

    def digest(self) -> bytes:
        return hashlib.md5(b"".join([*self._done, self._part.digest()]), usedforsecurity=False).digest()

    def hexdigest(self) -> str:
        return self.digest().hex()


def joined_crc64nvme(parts: Iterable[tuple[bytes, int]]) -> bytes:
    """The CRC64NVME of the whole, from those of its parts and their sizes (bytes), in order."""
    combine = _library().combine_crc64nvme
    whole = 0
    for checksum, size in parts:
        whole = combine(whole, int.from_bytes(checksum, "big"), size)
    return int(whole).to_bytes(8, "big")


def _function(algorithm: str) -> Callable[[memoryview, int], int]:
    found: Callable[[memoryview, int], int] = getattr(_library(), algorithm)
    return found


def _library() -> _Crt:
    try:
        from awscrt import checksums
    except ImportError:
        raise not_installed("s3", "This checksum") from None
    library: _Crt = checksums
    return library


class _Crt(Protocol):
    def combine_crc64nvme(self, first: int, second: int, size: int, /) -> int: ...
