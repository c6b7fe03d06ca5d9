"""What sends one request and gives its reply, whatever its status. `direct` and `proxied` are the two there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from ppcli.calls import Call
from ppcli.target import Body
from ppcli.transport.messages import Request


class Answer(Protocol):
    """A reply whose body has not been read yet; the keys of `headers` are in lower case. Whoever got it closes it."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def pieces(self) -> Iterator[memoryview]:
        """The body, each piece of at most `target.PIECE` bytes and valid until the next. Raises as `exchange` does."""
        ...

    def close(self) -> None:
        """Give the connection back where the reply was read to its end, else close it."""
        ...


class Engine(Protocol):
    """Any number of threads may use one at once. `splits`: an exchange yields before it waits for the reply."""

    splits: bool

    def exchange(self, request: Request, path: str, headers: Mapping[str, str], body: Body | None) -> Call[Answer]:
        """Send the request, with these headers and to this path in place of its own, and `body` in place of its
        content. Raises `Transient` where nothing went out or nothing can have happened, `Doubt` where something may
        have, and `Rejected` for a certificate. What `body` raises passes through. The connection of an exchange
        that failed is closed by then."""
        ...

    def close(self) -> None:
        """Also ends exchanges that are under way, which raise as for a lost connection."""
        ...
