"""The body of a reply, as it comes over a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ppcli.origin import Origin
from ppcli.transport import failures
from ppcli.transport.connection import Connection, Lost
from ppcli.transport.framing import Head, NotHttp
from ppcli.transport.messages import Request

_WINDOW = 1 << 18
_LONGEST_LINE = 1 << 12


class Incoming:
    """An `Answer` of `direct`."""

    def __init__(
        self,
        origin: Origin,
        request: Request,
        connection: Connection,
        head: Head,
        leave: Callable[[Connection, bool], None],
        *,
        all_sent: bool,
    ) -> None:
        """`leave` takes the connection back, and whether it can be used again."""
        self.status = head.status
        self.headers: Mapping[str, str] = head.headers
        self._complete = False
        self._origin = origin
        self._request = request
        self._connection = connection
        self._leave: Callable[[Connection, bool], None] | None = leave
        self._reusable = all_sent and head.keeps_alive
        self._length: int | None = None
        self._chunked = False
        try:
            self._length = head.length(request.method)
        except NotHttp as error:
            raise Lost(str(error)) from error
        self._chunked = head.chunked and self._length != 0
        if self._length == 0:
            self._end()

    def pieces(self) -> Iterator[memoryview]:
        try:
            if self._chunked:
                yield from self._chunks()
            elif self._length is None:
                yield from self._until_close()
            else:
                yield from self._exactly(self._length)
        except Lost as loss:
            raise failures.lost(self._origin, self._request, loss.why) from loss
        if self._chunked or self._length:
            self._end()

    def close(self) -> None:
        leave, self._leave = self._leave, None
        if leave:
            leave(self._connection, self._complete)

    def _end(self) -> None:
        """More than was announced is in the buffer: whatever it is, it answers nothing."""
        self._complete = self._reusable and not self._connection.buffer and not self._connection.ended

    def _until_close(self) -> Iterator[memoryview]:
        window = memoryview(bytearray(_WINDOW))
        if self._connection.buffer:
            yield memoryview(self._connection.buffer)
        while count := self._connection.receive_into(window, self._request.patience):
            yield window[:count]

    def _exactly(self, size: int) -> Iterator[memoryview]:
        """`size` bytes; raises `Lost` where the connection ends before."""
        held = self._connection.buffer
        if held:
            self._connection.buffer = held[size:]
            size -= min(size, len(held))
            yield memoryview(held)[: len(held) - len(self._connection.buffer)]
        if not size:
            return
        window = memoryview(bytearray(min(size, _WINDOW)))
        while size:
            count = self._connection.receive_into(window[:size], self._request.patience)
            if not count:
                raise Lost(f"it ended {size} bytes too early")
            size -= count
            yield window[:count]

    def _chunks(self) -> Iterator[memoryview]:
        while size := self._chunk_size():
            yield from self._exactly(size)
            if self._line():
                raise Lost("a chunk of it is longer than it says")
        while self._line():
            pass  # trailers

    def _chunk_size(self) -> int:
        text = self._line().partition(b";")[0].strip()
        try:
            if not text.isalnum():
                raise ValueError
            return int(text, 16)
        except ValueError:
            raise Lost("it has a chunk without a size") from None

    def _line(self) -> bytes:
        connection = self._connection
        while (end := connection.buffer.find(b"\r\n")) < 0:
            if len(connection.buffer) > _LONGEST_LINE:
                raise Lost("it has a line without end")
            data = connection.receive(self._request.patience)
            if not data:
                raise Lost("it broke off")
            connection.buffer += data
        line, connection.buffer = connection.buffer[:end], connection.buffer[end + 2 :]
        return line
