"""Bodies of type multipart/form-data (RFC 7578), read as they come: one part of any size, and small fields."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ppcli.server.assets import FIELDS_MAX
from ppcli.server.refusal import Refused

_FILE_NAME = re.compile(rb"(;\s*)filename=", re.IGNORECASE)
"""The parser would cut what is called `filename` after its last backslash, where it looks like a path of Windows."""
_FIELD = 64
"""Bytes that a field counts for besides its name and its text: empty ones must not come without end either."""


class Form:
    """`fields` are those that have come so far; `file_name` and `file_type` are of the large part, once it has begun.
    All methods raise `Refused` 400 for what is no such body."""

    def __init__(self, content_type: str, stream: AsyncIterator[bytes]) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 70:
            raise Refused(400, "The body must be multipart/form-data", code="validation_error")
        self.fields: dict[str, str] = {}
        self.file_name = ""
        self.file_type = ""
        self._stream = stream
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begins,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_ends,
                "on_headers_finished": self._headers_end,
                "on_part_data": self._data,
                "on_part_end": self._part_ends,
                "on_end": self._ends,
            },
        )
        self._wanted = ""
        self._found = self._whole = False
        self._pieces: deque[bytes] = deque()
        self._size = 0

    async def part(self, name: str) -> AsyncIterator[bytes]:
        """The bytes of the part `name`. Once it ends, the whole body was there: `fields` has those after it, too."""
        self._wanted = name
        async for data in self._stream:
            self._write(data)
            while self._pieces:
                yield self._pieces.popleft()
        if not self._whole:
            raise Refused(400, "The body ends too early", code="validation_error")
        if not self._found:
            raise Refused(400, f"There is no part {name!r}", code="no_data")

    def _write(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise Refused(400, "The body is no multipart/form-data", code="validation_error") from error

    # what the parser calls

    def _part_begins(self) -> None:
        self._headers: dict[str, bytes] = {}
        self._name, self._value = b"", b""
        self._field: str | None = None
        self._text = b""

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ends(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value
        self._name, self._value = b"", b""

    def _headers_end(self) -> None:
        disposition = self._headers.get("content-disposition", b"")
        _, options = parse_options_header(_FILE_NAME.sub(rb"\1file-name=", disposition, count=1))
        self._field = options.get(b"name", b"").decode("utf-8", "replace")
        if self._field == self._wanted:
            if self._found:
                raise Refused(400, f"There are two parts {self._field!r}", code="validation_error")
            self._found = True
            self.file_name = options.get(b"file-name", b"").decode("utf-8", "surrogateescape")
            self.file_type = self._headers.get("content-type", b"").decode("latin-1")
        else:
            self._count(_FIELD + len(self._field))

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._field == self._wanted:
            self._pieces.append(data[start:end])
            return
        self._count(end - start)
        self._text += data[start:end]

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > FIELDS_MAX:
            raise Refused(413, f"The fields must not be above {FIELDS_MAX} bytes", code="validation_error")

    def _part_ends(self) -> None:
        if self._field is not None and self._field != self._wanted:
            self.fields[self._field] = self._text.decode("utf-8", "replace")

    def _ends(self) -> None:
        self._whole = True
