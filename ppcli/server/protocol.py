"""HTTP connections with what uvicorn leaves open: bounds for the head of a request, and refusals as JSON."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

_HEAD = 64 << 10
"""Bytes that may come before a request is understood; twice as many as any client of ours sends."""


def bounded(patience: float) -> type[asyncio.Protocol]:
    """A class of connections that end when the head of a request is not there within `patience` seconds after its
    first byte, or after the connection was made, or is too long. Strangers could else hold all connections."""

    class Bounded(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        _head = 0
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._await_head()

        def data_received(self, data: bytes) -> None:
            before = self.cycle
            if before is None or before.response_complete:
                self._await_head()
            super().data_received(data)
            if self.cycle is not before or not self._idle():
                self._stop_waiting()
            elif not self.transport.is_closing():
                self._head += len(data)
                if self._head > _HEAD:
                    self._refuse(431, "Request Header Fields Too Large", "The head of the request is too long")

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, "Bad Request", msg)

        def _idle(self) -> bool:
            return self.cycle is None or bool(self.cycle.response_complete)

        def _await_head(self) -> None:
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(patience, self._give_up)

        def _stop_waiting(self) -> None:
            self._head = 0
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _give_up(self) -> None:
            self._timer = None
            if self._head:
                self._refuse(408, "Request Timeout", "The head of the request came too slowly")
            else:
                self.transport.close()

        def _refuse(self, status: int, reason: str, detail: str) -> None:
            body = json.dumps({"detail": detail}).encode()
            lines = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            self.transport.write(f"HTTP/1.1 {status} {reason}\r\n{lines}".encode() + body)
            self.transport.close()

    return Bounded
