"""A body as one part of a form (multipart/form-data, RFC 7578), with its length known before it goes."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Mapping

from ppcli.target import Body

_ESCAPED = str.maketrans({'"': '\\"', "\\": "\\\\", "\r": "%0D", "\n": "%0A"})
"""File names go in UTF-8, as a quoted string."""


class FormBody:
    """A `Body`: `fields`, then `body` as the part `part`. `digest`: its SHA-256 follows as the field `sha256`, computed
    on the way."""

    def __init__(
        self,
        part: str,
        body: Body,
        *,
        file_name: str,
        mime_type: str = "application/octet-stream",
        fields: Mapping[str, str] | None = None,
        digest: bool = False,
    ) -> None:
        self._body = body
        self._boundary = secrets.token_hex(16)
        file_name = file_name.translate(_ESCAPED)
        self._head = b"".join(self._field(name, value) for name, value in (fields or {}).items()) + self._part(
            f'name="{part}"; filename="{file_name}"\r\nContent-Type: {mime_type}'
        )
        self._digest = hashlib.sha256() if digest else None

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": f"multipart/form-data; boundary={self._boundary}"}

    @property
    def size(self) -> int:
        return len(self._head) + self._body.size + len(self._tail())

    def __iter__(self) -> Iterator[memoryview]:
        digest = self._digest = self._digest and hashlib.sha256()
        yield memoryview(self._head)
        for piece in self._body:
            if digest:
                digest.update(piece)
            yield piece
        yield memoryview(self._tail())

    def quiet(self) -> Iterator[memoryview]:
        return self._body.quiet()

    @property
    def checksum(self) -> str:
        return self._body.checksum

    @property
    def sha256(self) -> str | None:
        """Hex, of what the last iteration gave; None where it was not wanted."""
        return self._digest.hexdigest() if self._digest else None

    def _tail(self) -> bytes:
        field = self._field("sha256", self.sha256 or "") if self._digest else b""
        return b"\r\n" + field + f"--{self._boundary}--\r\n".encode()

    def _field(self, name: str, value: str) -> bytes:
        return self._part(f'name="{name}"') + f"{value}\r\n".encode()

    def _part(self, head: str) -> bytes:
        lines = f"--{self._boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n"
        return lines.encode("utf-8", "surrogateescape")
