"""A proxy between a client and a real HTTP server: it keeps what passed, and does to one request, or to several, what
bad networks, proxies and servers do.

It reads just enough HTTP/1.1 to see requests: heads, and bodies with a Content-Length. Bodies go on piece by piece, so
a client that dies in the middle of one is met by the server as it would be without us.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

PIECE = 64 << 10


@dataclass
class Exchange:
    """One request, its number in `seen`, and what became of it: `status` is None when no answer came, `delivered` False
    when we ate it. A rule may set `limit`: after so many bytes of the body both connections are cut. `at` is when its
    head was here (`time.monotonic`), `range` its Range header."""

    method: str
    path: str
    size: int
    number: int = 0
    passed: int = 0
    status: int | None = None
    delivered: bool = False
    limit: int | None = None
    range: str = ""
    at: float = field(default_factory=time.monotonic)

    @property
    def chunk(self) -> int | None:
        found = re.search(r"/chunk/(\d+)$", self.path)
        return int(found[1]) if found and self.method == "PUT" else None

    @property
    def part(self) -> int | None:
        """The number of an S3 part that is sent, not copied."""
        found = re.search(r"[?&]partNumber=(\d+)", self.path)
        return int(found[1]) if found and self.method == "PUT" and self.size else None


@dataclass
class Rule:
    """What happens at the next `times` requests that `matches`.

    before     is called before it goes on (and may wait, set `limit`, or end the server)
    instead    the server never sees it: this is the whole answer, or none at all (b"": silence, for `hold` seconds)
    flip       one bit of its body changes on the way, at this part (0.0 to 1.0) of it
    cut        its answer is lost
    mangle     what becomes of its answer (head and body); where that has another size, the connection ends with it
    slow       its body and its answer come in small pieces, with so many seconds after each
    reset      where the connection ends early, it ends with an RST
    """

    matches: Callable[[Exchange], bool]
    before: Callable[[Exchange], object] | None = None
    cut: bool = False
    times: int = 1
    instead: Callable[[], bytes] | None = None
    hold: float = 3.0
    flip: float | None = None
    mangle: Callable[[bytes], bytes] | None = None
    slow: float = 0.0
    reset: bool = False


class Proxy:
    """On a free port of the loopback interface; `seen` holds all exchanges in the order of their heads.

    `open` counts the connections: where none is left, a client that has ended has nothing in flight any more.
    """

    def __init__(self, port: int) -> None:
        self.upstream = ("127.0.0.1", port)
        self.seen: list[Exchange] = []
        self.open = 0
        self._rules: list[Rule] = []
        self._ends: set[socket.socket] = set()
        self._back = 0.0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def at(self, rule: Rule) -> None:
        with self._lock:
            self._rules.append(rule)

    def fresh(self) -> None:
        """Forget what passed, and all rules."""
        with self._lock:
            self.seen.clear()
            self._rules.clear()

    def outage(self, seconds: float) -> None:
        """As if the server were started again: every connection ends now, and new ones do until it is back."""
        with self._lock:
            self._back = time.monotonic() + seconds
            for end in self._ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def connected(self, *ends: socket.socket) -> Iterator[None]:
        with self._lock:
            if time.monotonic() < self._back:
                raise EOFError
            self._ends.update(ends)
        try:
            yield
        finally:
            with self._lock:
                self._ends.difference_update(ends)

    def count(self, change: int) -> None:
        """A connection has come or gone."""
        with self._lock:
            self.open += change

    def note(self, exchange: Exchange) -> Rule | None:
        with self._lock:
            exchange.number = len(self.seen)
            self.seen.append(exchange)
            for rule in self._rules:
                if rule.times and rule.matches(exchange):
                    rule.times -= 1
                    return rule
        return None

    # What tests ask.

    def stored(self) -> list[int]:
        """The chunks whose bytes the server has taken (200), in order; more than once where it took them twice."""
        return [seen.chunk for seen in self.seen if seen.chunk is not None and seen.status == 200]

    def attempted(self) -> list[int]:
        return [seen.chunk for seen in self.seen if seen.chunk is not None]

    def calls(self, method: str, end: str) -> list[Exchange]:
        return [seen for seen in self.seen if seen.method == method and seen.path.partition("?")[0].endswith(end)]


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], proxy: Proxy) -> None:
        self.proxy = proxy
        super().__init__(address, _Connection)


class _Connection(socketserver.BaseRequestHandler):
    server: _Server
    request: socket.socket

    def handle(self) -> None:
        proxy = self.server.proxy
        proxy.count(1)
        try:
            with (
                contextlib.suppress(EOFError, OSError),
                socket.create_connection(proxy.upstream) as upstream,
                proxy.connected(self.request, upstream),
            ):
                client, server = _Side(self.request), _Side(upstream)
                while self._exchange(client, server):
                    pass
        finally:
            proxy.count(-1)

    def _exchange(self, client: _Side, server: _Side) -> bool:
        """Pass one request and its answer; gives whether the connection lives on."""
        head, fields = client.head()
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        exchange = Exchange(method, path, int(fields.get("content-length", 0)), range=fields.get("range", ""))
        rule = self.server.proxy.note(exchange) or Rule(lambda exchange: False)
        try:
            if rule.before:
                rule.before(exchange)
            if rule.instead:
                return self._instead(client, exchange, rule)
            return self._pass(head, client, server, exchange, rule)
        except EOFError:
            if rule.reset:
                client.reset()
            raise

    def _pass(self, head: bytes, client: _Side, server: _Side, exchange: Exchange, rule: Rule) -> bool:
        try:
            server.socket.sendall(head)
            client.move(exchange, server, rule)
        except (BrokenPipeError, ConnectionResetError):
            pass  # an early answer: let it through
        answer, fields = server.head()
        body = b"" if exchange.method == "HEAD" else server.body(fields)
        exchange.status = int(answer.split(b" ", 2)[1])
        if rule.cut:
            raise EOFError
        whole = rule.mangle(answer + body) if rule.mangle else answer + body
        client.send(whole, rule.slow)
        if len(whole) != len(answer + body):
            raise EOFError
        exchange.delivered = True
        return exchange.passed == exchange.size and fields.get("connection", "").lower() != "close"

    def _instead(self, client: _Side, exchange: Exchange, rule: Rule) -> bool:
        assert rule.instead
        client.take(exchange.size)
        answer = rule.instead()
        if not answer:
            select.select([client.socket], [], [], rule.hold)  # until the client leaves
            return False
        exchange.status = int(answer.split(b" ", 2)[1])
        client.socket.sendall(answer)
        exchange.delivered = True
        return True


class _Side:
    """One end, with what was read from it and not used yet."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._buffer = b""

    def head(self) -> tuple[bytes, dict[str, str]]:
        while (cut := self._buffer.find(b"\r\n\r\n")) < 0:
            self._buffer += self._more()
        head, self._buffer = self._buffer[: cut + 4], self._buffer[cut + 4 :]
        lines = [line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:]]
        return head, {name.lower(): value.strip() for name, _, value in lines}

    def body(self, fields: dict[str, str]) -> bytes:
        """Of a small answer, chunked or not."""
        if fields.get("transfer-encoding", "") != "chunked":
            return self.take(int(fields.get("content-length", 0)))
        while not self._buffer.endswith(b"0\r\n\r\n"):
            self._buffer += self._more()
        data, self._buffer = self._buffer, b""
        return data

    def take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._buffer += self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def move(self, exchange: Exchange, other: _Side, rule: Rule) -> None:
        size = exchange.size
        end = size if exchange.limit is None else min(size, exchange.limit)
        flip = -1 if rule.flip is None else min(int(rule.flip * size), size - 1)
        while exchange.passed < end:
            piece = self._buffer[: end - exchange.passed] or self._more(end - exchange.passed)
            self._buffer = self._buffer[len(piece) :] if self._buffer else b""
            if 0 <= flip - exchange.passed < len(piece):
                piece = flipped(piece, flip - exchange.passed)
            other.send(piece, rule.slow)
            exchange.passed += len(piece)
        if end < size:
            raise EOFError

    def send(self, data: bytes, slow: float = 0.0) -> None:
        if not slow:
            self.socket.sendall(data)
            return
        step = max(1, len(data) // 16)
        for start in range(0, len(data), step):
            self.socket.sendall(data[start : start + step])
            time.sleep(slow)

    def reset(self) -> None:
        """Close with an RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _more(self, most: int = PIECE) -> bytes:
        piece = self.socket.recv(min(most, PIECE))
        if not piece:
            raise EOFError
        return piece


def flipped(data: bytes, position: int) -> bytes:
    """`data` with one bit changed."""
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
