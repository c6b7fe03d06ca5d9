"""Bodies: not too long, not too slow, and not left in the way of a reply that comes early."""

from __future__ import annotations

import asyncio
import contextlib
import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ppcli.server.assets import FIELDS_MAX, AssetType, longest
from ppcli.server.gate import OPEN, send_problem
from ppcli.server.limits import ServerLimits
from ppcli.server.refusal import STORAGE

LEAST_RATE = 256
"""Bytes per second that a body must bring, counted over `body_timeout` seconds."""
STRANGERS = 16 << 10
"""Bytes that a body may have which needs no token; parsed JSON takes many times its length."""
_FORM = 2 * FIELDS_MAX
_DIGITS = 20
_TOO_LONG = "The body must not be above {} bytes"
_DRAIN_BYTES = 16 << 20
_DRAIN_SECONDS = 5.0


class Bounds:
    """ASGI middleware, inside of the gate: 413 for a body that is too long, 408 for one that stops coming.

    See `longest_body`.
    """

    def __init__(self, app: ASGIApp, limits: ServerLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = longest_body(scope["method"], scope["path"], self._limits)
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and (len(length) > _DIGITS or int(length) > most):
            await send_problem(scope, send, 413, _TOO_LONG.format(most))
            return
        bounded = _BoundedBody(receive, most, self._limits.body_timeout)
        await self._app(scope, bounded, send)


def longest_body(method: str, path: str, limits: ServerLimits) -> int:
    """How many bytes a body may have: a chunk `chunk_max`, what strangers may send `STRANGERS`, a form as much as the
    file or the chunk in it and its fields, any other body `max_body`."""
    if path in OPEN:
        return min(limits.max_body, STRANGERS)
    if path == f"{STORAGE}/upload":
        return max(longest(asset_type, limits) for asset_type in AssetType) + _FORM
    if path.startswith(f"{STORAGE}/") and path.endswith("/chunk"):
        return limits.asset_chunk_max + _FORM
    return limits.chunk_max if method == "PUT" else limits.max_body


class _BoundedBody:
    """The receive channel of one request. Raises HTTPException, which every route lets through."""

    def __init__(self, receive: Receive, most: int, patience: float) -> None:
        self._receive = receive
        self._most = most
        self._patience = patience
        self._got = 0
        self._due_bytes = patience * LEAST_RATE
        self._waited = 0.0  # for the client only: that this machine is slow is not the client's fault
        self._fresh = 0
        self._ended = False

    async def __call__(self) -> Message:
        if self._ended:
            return await self._receive()
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._patience - self._waited):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, "The body came too slowly") from None
        self._waited += time.monotonic() - began
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._ended = True
        size = len(message.get("body", b""))
        self._got += size
        self._fresh += size
        if self._got > self._most:
            raise HTTPException(413, _TOO_LONG.format(self._most))
        if self._fresh >= self._due_bytes:
            self._waited, self._fresh = 0.0, 0
        return message


class EarlyReplies:
    """ASGI middleware, the outermost: a reply that comes before the body has been read is sent at once; then the rest
    of the body is dropped, up to a bound, so that a client that sends before it reads gets to see the reply. The
    connection is closed after that."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(receive, send, dict(scope["headers"]))
        await self._app(scope, exchange.receive, exchange.send)


class _Exchange:
    """One request and its reply."""

    def __init__(self, receive: Receive, send: Send, headers: dict[bytes, bytes]) -> None:
        self._receive = receive
        self._send = send
        length = headers.get(b"content-length", b"0").strip()
        self._unread = b"transfer-encoding" in headers or length not in (b"0", b"")
        """Whether more of the body may come."""
        self._waits = b"100-continue" in headers.get(b"expect", b"").lower()
        """Whether the client sends no body before it is asked to."""
        self._early = False

    async def receive(self) -> Message:
        self._waits = False
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._unread = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self._unread:
            self._early = True
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not (self._early and last) or self._waits:
            await self._send(message)
            return
        await self._send({**message, "more_body": True})
        await self._drop_rest()
        await self._send({"type": "http.response.body", "body": b""})

    async def _drop_rest(self) -> None:
        dropped = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while self._unread and dropped <= _DRAIN_BYTES:
                    dropped += len((await self.receive()).get("body", b""))
