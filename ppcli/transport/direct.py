"""Straight to the server, over connections of our own: what costs least per request and per byte."""

from __future__ import annotations

import itertools
import ssl
import threading
import weakref
from collections.abc import Iterable, Mapping

from ppcli.calls import Call
from ppcli.errors import Transient
from ppcli.origin import Origin
from ppcli.target import Body
from ppcli.transport import failures
from ppcli.transport.connection import Connection, Lost
from ppcli.transport.framing import Head, NotHttp, reply_head, request_head
from ppcli.transport.messages import Request
from ppcli.transport.reading import Incoming

_SMALL = 1 << 16
"""Bytes of a first piece that are copied behind the head, to go out in one packet with it."""


class Direct:
    """An `Engine`. The threads share its idle connections; one in use belongs to the thread that took it."""

    splits = True

    def __init__(self, origin: Origin, context: ssl.SSLContext | None, connections: int) -> None:
        """At most `connections` stay open while they are idle."""
        self._origin = origin
        self._context = context
        self._most_idle = connections
        self._lock = threading.RLock()  # the collector of garbage may come here while it is held
        self._idle: list[Connection] = []  # the last one used is taken first: the others may grow old and go
        self._in_use: set[Connection] = set()
        self._closed = False
        # Not by __del__: in a cycle, the collector may come to the sockets first
        weakref.finalize(self, _close_all, self._idle, self._in_use).atexit = False

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, in_use = list(self._idle), list(self._in_use)
            self._idle.clear()
        for connection in in_use:
            connection.interrupt()
        for connection in idle:
            connection.close()

    def exchange(self, request: Request, path: str, headers: Mapping[str, str], body: Body | None) -> Call[Incoming]:
        """A server may close an idle connection at the moment we use it: then once more on a new one, where that cannot
        do anything twice."""
        head = request_head(request.method, path, headers)
        fresh = False
        while True:
            connection = self._connection(fresh=fresh)
            try:
                return (yield from self._attempt(connection, request, head, body))
            except Lost as loss:
                self._leave(connection, False)
                safe = request.repeatable or not connection.sent
                if connection.reused and safe and not (fresh or loss.silent or connection.heard):
                    fresh = True
                    continue
                raise self._failure(request, connection, loss) from loss
            except BaseException:  # what the body raises, a signal, or the end of who waits for the reply
                self._leave(connection, False)
                raise

    def _attempt(self, connection: Connection, request: Request, head: bytes, body: Body | None) -> Call[Incoming]:
        patience = request.patience
        if body is None:
            whole = _pass(connection, head + request.content, patience)
        else:
            whole = _pass_body(connection, head, body, patience)
        reply = yield from _receive_head(connection, patience)
        return Incoming(self._origin, request, connection, reply, self._leave, all_sent=whole)

    def _failure(self, request: Request, connection: Connection, loss: Lost) -> Transient:
        if connection.sent:
            return failures.lost(self._origin, request, loss.why)
        return Transient(f"{self._origin.netloc} closed the connection: {loss.why}")

    def _connection(self, *, fresh: bool) -> Connection:
        """One for this thread, not in use by another."""
        while not fresh:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                break
            if connection.usable():
                return self._take(connection)
            connection.close()
        try:
            return self._take(Connection.open(self._origin, self._context))
        except OSError as error:
            raise failures.unreachable(self._origin, error) from error

    def _take(self, connection: Connection) -> Connection:
        with self._lock:
            if not self._closed:
                self._in_use.add(connection)
                return connection
        connection.close()
        raise Transient(f"the connections to {self._origin.netloc} were closed")

    def _leave(self, connection: Connection, keep: bool) -> None:
        with self._lock:
            self._in_use.discard(connection)
            if keep and not self._closed and len(self._idle) < self._most_idle:
                connection.rest()
                self._idle.append(connection)
                return
        connection.close()


def _close_all(*held: Iterable[Connection]) -> None:
    for connection in itertools.chain(*held):
        connection.close()


def _pass_body(connection: Connection, head: bytes, body: Body, patience: float) -> bool:
    """Send the head and the body; False where the server refused before its end."""
    sent = 0
    for piece in body:
        if sent + len(piece) > body.size:
            raise ValueError(f"a body of {body.size} bytes has more")  # the server would take it for a request
        if not sent and len(piece) <= _SMALL:
            going = _pass(connection, b"".join((head, piece)), patience)
        elif not sent:
            going = _pass(connection, head, patience) and _pass(connection, piece, patience)
        else:
            going = _goes_on(connection) and _pass(connection, piece, patience)
        if not going:
            return False
        sent += len(piece)
    if sent != body.size:
        raise ValueError(f"a body of {body.size} bytes has {sent}")
    return bool(sent) or _pass(connection, head, patience)


def _pass(connection: Connection, data: bytes | memoryview, patience: float) -> bool:
    """Send all of it; False where the server ended it."""
    sent = connection.send(data, patience)
    if sent == len(data):
        return True
    rest = memoryview(data)
    while sent < len(rest):
        if _refused(connection):
            return False
        rest = rest[sent:]
        sent = connection.send(rest, patience)
    return True


def _goes_on(connection: Connection) -> bool:
    return not (connection.interrupted() and _refused(connection))


def _refused(connection: Connection) -> bool:
    """Whether what was heard while we send is a reason to stop: the end, or a reply that is neither interim nor a
    success. A success may come early from a server that takes the rest as well."""
    if connection.ended:
        return True
    while (found := _head_in(connection)) is not None:
        head, rest = found
        if not head.interim:
            return head.status >= 300
        connection.buffer = rest
    return False


def _receive_head(connection: Connection, patience: float) -> Call[Head]:
    """The head of the reply, past the interim ones; what follows it stays in the buffer."""
    while True:
        while not connection.buffer or (found := _head_in(connection)) is None:
            yield connection.fileno()
            if not connection.hear(patience):
                raise Lost("the connection was closed before the reply" if not connection.buffer else "it broke off")
        head, connection.buffer = found
        if not head.interim:
            return head
        if head.status == 101:
            raise Lost("it changes to a protocol that nobody asked for")


def _head_in(connection: Connection) -> tuple[Head, bytes] | None:
    try:
        return reply_head(connection.buffer)
    except NotHttp as error:
        raise Lost(str(error)) from error
