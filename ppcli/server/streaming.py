"""Replies whose body is a file, or one range of it; the headers given may say its Content-Type."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from ppcli.server.bodies import BINARY
from ppcli.server.problems import problems
from ppcli.server.ranges import Unsatisfiable, parse_range

_PIECE = 1 << 20
_KIND = "application/octet-stream"
RANGED: dict[int | str, dict[str, Any]] = problems(404, 416) | {
    200: {"content": BINARY, "description": "All of it"},
    206: {"content": BINARY, "description": "The range that was asked for"},
}
"""The `responses` of a route that answers with a file."""


async def ranged(request: Request, size: int, headers: Mapping[str, str], file: Callable[[], int]) -> Response:
    """The range that the request asks for, of a file of `size` bytes; `file` opens it. Raises HTTPException 416."""
    named = {**headers, "Accept-Ranges": "bytes"}
    try:
        span = parse_range(request.headers.get("range"), size)
    except Unsatisfiable:
        named["Content-Range"] = f"bytes */{size}"
        raise HTTPException(416, f"The content has {size} bytes", named) from None
    if span is None:
        return await whole(request, size, headers, file)
    named["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{size}"
    return await _reply(request, 206, span, named, file)


async def whole(request: Request, size: int, headers: Mapping[str, str], file: Callable[[], int]) -> Response:
    """All of a file of `size` bytes."""
    return await _reply(request, 200, (0, size), {**headers, "Accept-Ranges": "bytes"}, file)


def open_file(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


async def _reply(
    request: Request, status: int, span: tuple[int, int], headers: dict[str, str], file: Callable[[], int]
) -> Response:
    headers["Content-Length"] = str(span[1] - span[0])
    headers.setdefault("Content-Type", _KIND)
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    return _FileReply(await asyncio.to_thread(file), span, status, headers)


class _FileReply(StreamingResponse):
    """It closes the file also where nobody is there any more to be sent a first piece."""

    def __init__(self, fd: int, span: tuple[int, int], status: int, headers: Mapping[str, str]) -> None:
        super().__init__(_pieces(fd, *span), status, headers)
        self._fd = fd

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            os.close(self._fd)


async def _pieces(fd: int, start: int, end: int) -> AsyncIterator[bytes]:
    """The range, each piece read in a thread. The file may lose its name meanwhile; it stays readable."""
    while start < end:
        piece = await asyncio.to_thread(os.pread, fd, min(_PIECE, end - start), start)
        if not piece:
            raise OSError("stored content is shorter than it was")
        start += len(piece)
        yield piece
