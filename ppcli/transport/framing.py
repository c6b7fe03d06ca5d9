"""HTTP/1.1 on the wire: the head of a request, the head of a reply, and how long its body is. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

LONGEST_HEAD = 1 << 16
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-9]\d\d)(?: |$)")
_START = b"HTTP/1."
_NOT_IN_PATHS = re.compile(r"[^\x21-\x7e]")


class NotHttp(ValueError):
    """What came is no reply."""


@dataclass(frozen=True, slots=True)
class Head:
    """The keys of `headers` are in lower case; a header that came several times is joined by commas."""

    status: int
    headers: Mapping[str, str]
    keeps_alive: bool

    @property
    def interim(self) -> bool:
        """100 Continue and its kind: the reply is still to come."""
        return self.status < 200

    def length(self, method: str) -> int | None:
        """Bytes of the body; None where it ends with the connection. Not for chunked bodies. Raises `NotHttp`."""
        if method == "HEAD" or self.status in (204, 304):
            return 0
        text = self.headers.get("content-length")
        if text is None:
            return None
        sizes = {size.strip() for size in text.split(",")}
        size = sizes.pop()
        if sizes or not (size.isascii() and size.isdigit()):
            raise NotHttp("its Content-Length is no number")
        return int(size)

    @property
    def chunked(self) -> bool:
        return self.headers.get("transfer-encoding", "").lower().rpartition(",")[2].strip() == "chunked"


def request_head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    """Raises ValueError for what would break out of its line."""
    if not path.startswith("/") or _NOT_IN_PATHS.search(path):
        raise ValueError("a path must begin with a slash and be percent-encoded")
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers) or "\0" in lines:
        raise ValueError("a header holds a line break")
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


def reply_head(buffer: bytes) -> tuple[Head, bytes] | None:
    """The head at the start of `buffer` and what follows it; None where it is not complete. Raises `NotHttp`."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if not buffer.startswith(_START[: len(buffer)]) or len(buffer) > LONGEST_HEAD:
            raise NotHttp("it is no HTTP/1.1 reply")
        return None
    first, *lines = buffer[:end].decode("latin-1").split("\r\n")
    found = _STATUS_LINE.match(first)
    if not found:
        raise NotHttp("it is no HTTP/1.1 reply")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise NotHttp("it has a header line without a colon")
        name, value = name.strip().lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    connection = headers.get("connection", "").lower()
    keeps_alive = "close" not in connection if found[1] == "1" else "keep-alive" in connection
    return Head(int(found[2]), headers, keeps_alive), buffer[end + 4 :]
