"""One connection: bytes out and bytes in, each within a patience. One thread at a time uses it.

The socket never blocks: whoever waits to send listens too, since a server may answer, or leave, before it has read all.
"""

from __future__ import annotations

import contextlib
import math
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import TypeVar

from ppcli.origin import Origin
from ppcli.transport import failures

T = TypeVar("T")

IDLE = 4.0
"""Seconds after which an idle connection is not used again: many servers close theirs after 5."""
_WINDOW = 1 << 16
_MOST_UNASKED = 1 << 20
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Lost(Exception):
    """The connection is of no use any more. `silent`: the server said nothing in time; otherwise it left."""

    def __init__(self, why: str, *, silent: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.silent = silent


class Connection:
    """`buffer` holds what arrived and nobody took yet; `sent` and `heard` tell of the current exchange whether a byte
    of it went out, and whether anything came back."""

    __slots__ = ("_idle_since", "_sock", "buffer", "ended", "heard", "reused", "sent")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._idle_since = 0.0
        self.buffer = b""
        self.ended = self.heard = self.reused = self.sent = False

    @classmethod
    def open(cls, origin: Origin, context: ssl.SSLContext | None) -> Connection:
        """Raises OSError; see `failures.unreachable`."""
        sock = socket.create_connection((origin.host, origin.port), failures.CONNECT_TIMEOUT)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context:
                sock = context.wrap_socket(sock, server_hostname=origin.host, suppress_ragged_eofs=False)
            return cls(sock)
        except BaseException:  # also a signal: nothing may stay held or half made
            sock.close()
            raise

    def rest(self) -> None:
        """The exchange is over; the connection waits for the next one."""
        self._idle_since = time.monotonic()
        self.heard = self.sent = False
        self.reused = True

    def usable(self) -> bool:
        """Whether an idle connection can be used again: not for too long idle, and the server has not left."""
        if time.monotonic() - self._idle_since > IDLE:
            return False
        try:
            if self._wait(0.0):
                self._listen()  # over TLS, what arrives may be none of HTTP's
        except (Lost, OSError):
            return False
        return not (self.ended or self.buffer)

    def send(self, data: bytes | memoryview, patience: float) -> int:
        """Send all of it, unless something is heard, or the server has left: gives how much went out by then. Raises
        `Lost` where it takes nothing any more."""
        view = memoryview(data)
        done = 0
        while done < len(view):
            try:
                done += self._sock.send(view[done:] if done else view)
                self.sent = True
                continue
            except _WOULD_BLOCK:
                pass
            except OSError:
                self._salvage()
                break
            if self._wait(patience, sending=True) and self._listen():
                break
        return done

    def interrupted(self) -> bool:
        """Whether something is heard while there is more to send."""
        return self._wait(0.0) and self._listen()

    def receive(self, patience: float) -> bytes:
        """What comes next; b"" at the end. Raises `Lost`. What is in `buffer` came before it."""
        return self._received(lambda: self._sock.recv(_WINDOW), patience) or b""

    def receive_into(self, view: memoryview, patience: float) -> int:
        """As `receive`; gives how many bytes came."""
        return self._received(lambda: self._sock.recv_into(view), patience) or 0

    def hear(self, patience: float) -> bool:
        """Add what comes next to `buffer`; False at the end. Raises `Lost`. Where something is there already it does
        not wait, even if that is nothing of HTTP's: over TLS a reply comes after tickets, and in records."""
        if not (isinstance(self._sock, ssl.SSLSocket) and not self.ended and self._wait(0.0)):
            self.buffer += self.receive(patience)
        else:
            with contextlib.suppress(*_WOULD_BLOCK):
                self.buffer += self._taken(lambda: self._sock.recv(_WINDOW))
        return not self.ended

    def _received(self, receive: Callable[[], T], patience: float) -> T | None:
        """What `receive` gives once there is something; None at the end."""
        while not self.ended:
            try:
                return self._taken(receive)
            except _WOULD_BLOCK as error:
                self._wait(patience, sending=isinstance(error, ssl.SSLWantWriteError))
        return None

    def _taken(self, receive: Callable[[], T]) -> T:
        """What `receive` gives now. Raises `Lost`, and what says that it would block."""
        try:
            received = receive()
        except _WOULD_BLOCK:
            raise
        except OSError as error:
            raise Lost(_why(error)) from error
        self.ended = not received
        self.heard = self.heard or not self.ended
        return received

    def fileno(self) -> int:
        return self._sock.fileno()

    def interrupt(self) -> None:
        """From any thread: end the exchange that is under way."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)  # SSLSocket's own is not for other threads

    def close(self) -> None:
        self._sock.close()

    def _listen(self) -> bool:
        """Take what is there; False where it was nothing of HTTP's."""
        try:
            data = self._sock.recv(_WINDOW)
        except _WOULD_BLOCK:
            return False
        except OSError:
            data = b""
        self.ended = not data
        self.heard = self.heard or bool(data)
        self.buffer += data
        if len(self.buffer) > _MOST_UNASKED:
            raise Lost("it sends without end while it should receive")
        return True

    def _salvage(self) -> None:
        """The server does not receive any more. What it said before is still there to be read."""
        while not self.ended and self._listen():
            pass
        self.ended = True

    def _wait(self, patience: float, *, sending: bool = False) -> bool:
        """Wait until something can be received, or sent where that is wanted: tells whether there is something to
        receive. Raises `Lost` after `patience` seconds; with 0.0 it only looks."""
        readable, writable = _ready(self._sock, sending, patience)
        if not (readable or writable) and patience:
            raise Lost(failures.silence(patience), silent=True)
        return readable


if hasattr(select, "poll"):

    def _ready(sock: socket.socket, sending: bool, seconds: float) -> tuple[bool, bool]:
        poll = select.poll()
        poll.register(sock, select.POLLIN | (select.POLLOUT if sending else 0))
        events = poll.poll(math.ceil(seconds * 1000))
        seen = events[0][1] if events else 0
        return bool(seen & ~select.POLLOUT), bool(seen & select.POLLOUT)

else:  # Windows

    def _ready(sock: socket.socket, sending: bool, seconds: float) -> tuple[bool, bool]:
        writers = [sock] if sending else []
        readable, writable, failed = select.select([sock], writers, writers, seconds)
        return bool(readable), bool(writable or failed)


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS ended without its close ({error.reason or 'EOF'})"
    return (error.strerror or str(error) or type(error).__name__).lower()
