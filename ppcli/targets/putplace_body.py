"""A body whose SHA-256 is computed on its way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from ppcli.target import Body


class Hashed:
    """`sha256` (hex) is that of the last iteration."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._sha = hashlib.sha256()

    @property
    def size(self) -> int:
        return self._body.size

    @property
    def checksum(self) -> str:
        return self._body.checksum

    @property
    def sha256(self) -> str:
        return self._sha.hexdigest()

    def quiet(self) -> Iterator[memoryview]:
        return self._body.quiet()

    def __iter__(self) -> Iterator[memoryview]:
        sha = self._sha = hashlib.sha256()
        for piece in self._body:
            sha.update(piece)
            yield piece
