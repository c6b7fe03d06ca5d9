"""A loopback HTTP server that does what its script says, down to the byte at which it hangs up.

    with serving(reply(200, b"{}"), hang_up) as server:
        ... requests to server.base ...
        server.heard[0].body

A script is a list of acts, one for each request, in the order in which requests arrive on whatever connection; the last
one is repeated. It binds 127.0.0.1, and ends with its context: every socket is closed, every thread is joined.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass
class Exchange:
    """One request, as far as it was read. `connection` counts from 0."""

    server: Server
    sock: socket.socket
    connection: int
    method: str
    path: str
    headers: dict[str, str]
    rest: bytes
    body: bytes = b""
    closing: bool = False

    def read(self, size: int | None = None) -> bytes:
        """Read the body up to `size` bytes of it, or all."""
        wanted = int(self.headers.get("content-length", "0")) if size is None else size
        self.body += self.rest[: wanted - len(self.body)]
        self.rest = b""
        while len(self.body) < wanted:
            data = self.sock.recv(min(1 << 20, wanted - len(self.body)))
            if not data:
                raise ConnectionError
            self.body += data
        return self.body

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def finish(self) -> None:
        """Close in good order: what was sent arrives."""
        self.closing = True

    def reset(self) -> None:
        """Close with an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.closing = True

    def left(self) -> bool:
        """Wait until the client hangs up."""
        try:
            while self.sock.recv(1 << 16):
                pass
        except OSError:
            pass
        return True


Act: TypeAlias = Callable[[Exchange], None]


@dataclass
class Server:
    acts: list[Act]
    context: ssl.SSLContext | None = None
    heard: list[Exchange] = field(default_factory=list)
    connections: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def base(self) -> str:
        return f"http{'s' if self.context else ''}://127.0.0.1:{self.port}"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept on Linux
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            pass  # wakes it elsewhere
        self._listener.close()
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                number, self.connections = self.connections, self.connections + 1
                self._open.add(sock)
                thread = threading.Thread(target=self._serve, args=(sock, number))
                self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket, number: int) -> None:
        sock = plain
        try:
            if self.context:
                sock = self.context.wrap_socket(plain, server_side=True)
                with self._lock:
                    self._open.add(sock)
            held = b""
            while True:
                exchange = self._next(sock, number, held)
                with self._lock:
                    act = self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]
                    self.heard.append(exchange)
                act(exchange)
                if exchange.closing:
                    return
                held = exchange.rest
        except OSError:
            pass
        finally:
            with self._lock:
                self._open -= {sock, plain}
            sock.close()

    def _next(self, sock: socket.socket, number: int, held: bytes) -> Exchange:
        while b"\r\n\r\n" not in held:
            data = sock.recv(1 << 16)
            if not data:
                raise ConnectionError
            held += data
        head, _, rest = held.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Exchange(self, sock, number, method, path, headers, rest)


@contextlib.contextmanager
def serving(*acts: Act, context: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(list(acts), context)
    try:
        yield server
    finally:
        server.close()


def message(status: int, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of a reply; `retry_after="3"` is the header Retry-After."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named = {"Content-Length": str(len(body))} | named
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode("latin-1") + body


def reply(status: int, body: bytes = b"", **headers: str) -> Act:
    """Read the whole request and answer."""
    return raw(message(status, body, **headers))


def raw(data: bytes, *, end: bool = False) -> Act:
    """Read the whole request, send these bytes, and hang up where `end` says so."""

    def act(exchange: Exchange) -> None:
        exchange.read()
        exchange.send(data)
        exchange.closing = end

    return act


def hang_up(exchange: Exchange) -> None:
    """Read the whole request and go without an answer."""
    exchange.read()
    exchange.finish()


def reset_after(size: int) -> Act:
    """Read so many bytes of the body, then reset the connection."""

    def act(exchange: Exchange) -> None:
        exchange.read(size)
        exchange.reset()

    return act


def silent(exchange: Exchange) -> None:
    """Read the whole request and say nothing until the client goes."""
    exchange.read()
    exchange.left()
    exchange.finish()


class Bytes:
    """A `target.Body` in memory. `fails_at`: what iterating raises there."""

    def __init__(self, data: bytes, piece: int = 1 << 20, failure: BaseException | None = None) -> None:
        self.data, self._piece, self._failure = data, piece, failure
        self.iterations = 0

    @property
    def size(self) -> int:
        return len(self.data) + (1 if self._failure else 0)

    def __iter__(self) -> Iterator[memoryview]:
        self.iterations += 1
        for at in range(0, len(self.data), self._piece):
            yield memoryview(self.data)[at : at + self._piece]
        if self._failure:
            raise self._failure

    @property
    def checksum(self) -> str:
        return ""
