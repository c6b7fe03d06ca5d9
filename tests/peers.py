"""What stands behind each target under contract, and how to make it misbehave: a scheme joins by a class here."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import pytest
import small_chunks
from graphwiz_kit import GraphWizServer
from rufh_kit import RufhServer
from s3_kit import S3, environment
from server_kit import ServerProcess
from tus_kit import TusServer

from ppcli import disk
from ppcli.calls import Call
from ppcli.credentials import Tokens
from ppcli.origin import Origin
from ppcli.target import Body, Store, Target
from ppcli.transport import Reply, Request, Transport

HOSTS = itertools.count(1)


class Peer(Protocol):
    """`url` is where files go, `broken` a place that cannot take them."""

    url: str

    def http(self, base: str) -> Transport: ...

    def unfinished(self, target: Target) -> int:
        """How many uploads were begun and neither completed nor given up."""
        ...

    def content(self, target: Target, name: str) -> bytes | None:
        """The finished file under this name, read where it is stored; None where there is none."""
        ...

    def flip(self, data: bytes, times: int) -> AbstractContextManager[list[int]]:
        """One bit of a chunk that is `data` changes on its way, so often; gives what is left of that."""
        ...

    def fail(self) -> AbstractContextManager[None]:
        """Nothing can be stored."""
        ...


def stored(target: Target, name: str) -> bytes | None:
    """What a `Store` gives back."""
    assert isinstance(target, Store)
    remote = target.find(name)
    return None if remote is None else b"".join(bytes(piece) for piece in target.read(remote, 0))


class Disk:
    """`pads:` and `file:`: the peer is the file system."""

    def __init__(self, url: str) -> None:
        self.url = url

    def http(self, base: str) -> Transport:
        raise AssertionError("it needs no network")

    def unfinished(self, target: Target) -> int:
        assert isinstance(target, Store)
        return len(list(target.incomplete()))

    def content(self, target: Target, name: str) -> bytes | None:
        return stored(target, name)

    @contextmanager
    def flip(self, data: bytes, times: int) -> Iterator[list[int]]:
        real, left = disk.write_all, [times]

        def flipping(fd: int, piece: bytes | memoryview, offset: int | None = None) -> None:
            raw = bytes(piece)
            if raw == data and left[0]:
                left[0] -= 1
                raw = bytes([raw[0] ^ 1]) + raw[1:]
            real(fd, raw, offset)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(disk, "write_all", flipping)
            yield left

    @contextmanager
    def fail(self) -> Iterator[None]:
        def failing(fd: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(disk, "fsync", failing)
            yield


class Networked:
    """A server that is reached by a `Wire`, with its token if it has one."""

    token: str | None = None

    def __init__(self, url: str) -> None:
        self.url = url
        self._made: list[Wire] = []

    def http(self, base: str) -> Transport:
        wire = Wire(base, Tokens(Origin.parse(base), lambda: self.token))
        self._made.append(wire)
        return wire

    @contextmanager
    def flip(self, data: bytes, times: int) -> Iterator[list[int]]:
        left = [times]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Wire, "flip", (data, left))
            yield left

    @contextmanager
    def fail(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Wire, "down", True)
            yield

    def close(self) -> None:
        for wire in self._made:
            wire.close()


class Served(Networked):
    """A scheme that a real `ppcli serve` speaks; every peer is a host of its own there."""

    def __init__(self, scheme: str, server: ServerProcess) -> None:
        super().__init__(f"{scheme}://127.0.0.1:{server.port}?hostname=host{next(HOSTS)}")
        self.server, self.token = server, server.token
        self.begun = self._partials()

    def unfinished(self, target: Target) -> int:
        return len(self._partials() - self.begun)

    def content(self, target: Target, name: str) -> bytes | None:
        return stored(target, name)

    def _partials(self) -> set[Path]:
        return set((self.server.data / "partial").iterdir())


class Padded(Networked):
    """Pads behind a real `ppcli serve`; each test has a user key, and so a store, of its own."""

    def __init__(self, server: ServerProcess) -> None:
        super().__init__(f"pads+{server.origin}")
        self.server, self.token = server, server.token

    def unfinished(self, target: Target) -> int:
        assert isinstance(target, Store)
        return len(list(target.incomplete()))

    def content(self, target: Target, name: str) -> bytes | None:
        return stored(target, name)


class Storage(Networked):
    """The GraphWiz API of a real `ppcli serve`; every peer is a user of its own there."""

    def __init__(self, server: ServerProcess) -> None:
        super().__init__(f"graphwiz+http://127.0.0.1:{server.port}")
        self.server, self.token = server, server.add_user(f"user{next(HOSTS)}@example.org")
        self.begun = self._partials()
        self._patch = pytest.MonkeyPatch()
        small_chunks.allow(self._patch.setattr)

    def unfinished(self, target: Target) -> int:
        return len(self._partials() - self.begun)

    def content(self, target: Target, name: str) -> bytes | None:
        return stored(target, name)

    def _partials(self) -> set[Path]:
        return set((self.server.data / "partial").iterdir())

    def close(self) -> None:
        self._patch.undo()
        super().close()


class Upstream(Networked):
    """A GraphWiz server as the real one behaves, with what it has of others."""

    def __init__(self, server: GraphWizServer) -> None:
        super().__init__(server.url)
        self.server = server
        self._patch = pytest.MonkeyPatch()
        small_chunks.allow(self._patch.setattr)

    def unfinished(self, target: Target) -> int:
        return self.server.unfinished()

    def content(self, target: Target, name: str) -> bytes | None:
        return self.server.content(name)

    def close(self) -> None:
        self._patch.undo()
        super().close()


class Tus(Networked):
    """A real tus server; what others uploaded to it before is not looked at."""

    def __init__(self, server: TusServer) -> None:
        super().__init__(server.url)
        self.server = server
        self.before = {one["uid"] for one in server.uploads()}

    def unfinished(self, target: Target) -> int:
        return sum(one["uid"] not in self.before for one in self.server.unfinished())

    def content(self, target: Target, name: str) -> bytes | None:
        return self.server.content(name, self.before)


class Rufh(Networked):
    """Our own server of the IETF draft; what others uploaded to it before is not looked at."""

    def __init__(self, server: RufhServer) -> None:
        super().__init__(server.url)
        self.server = server
        self.before = set(server.held)

    def unfinished(self, target: Target) -> int:
        return sum(not one.complete for path, one in self.server.held.items() if path not in self.before)

    def content(self, target: Target, name: str) -> bytes | None:
        return self.server.content(name, self.before)


class Bucket(Networked):
    """A bucket of its own on a real S3 server, for parts of any size."""

    def __init__(self, s3: S3) -> None:
        self._patch = pytest.MonkeyPatch()
        for name, value in environment().items():
            self._patch.setenv(name, value)
        super().__init__(s3.url(s3.bucket(), "pre fix"))
        small_chunks.allow(self._patch.setattr)

    def http(self, base: str) -> Transport:
        self._made.append(Wire(base))
        return self._made[-1]

    def unfinished(self, target: Target) -> int:
        assert isinstance(target, Store)
        return len(list(target.incomplete()))

    def content(self, target: Target, name: str) -> bytes | None:
        return stored(target, name)

    def close(self) -> None:
        self._patch.undo()
        super().close()


class Wire(Transport):
    """A transport that can flip a bit, or lead nowhere."""

    flip: tuple[bytes, list[int]] | None = None
    down = False

    def sending(self, request: Request, body: Body | None = None) -> Call[Reply]:
        if self.down:
            with_nobody = Transport("http://127.0.0.1:9")
            try:
                return (yield from with_nobody.sending(request, body))
            finally:
                with_nobody.close()
        if body is not None and self.flip is not None:
            body = Flipped(body, *self.flip)
        return (yield from super().sending(request, body))


class Flipped:
    """A body whose first bit changes on the wire, not in what the sender hashes."""

    def __init__(self, body: Body, data: bytes, left: list[int]) -> None:
        self._body, self._data, self._left = body, data, left

    @property
    def size(self) -> int:
        return self._body.size

    @property
    def checksum(self) -> str:
        return self._body.checksum

    def quiet(self) -> Iterator[memoryview]:
        return self._body.quiet()

    def __iter__(self) -> Iterator[memoryview]:
        for piece in self._body:
            if bytes(piece) == self._data and self._left[0]:
                self._left[0] -= 1
                raw = bytes(piece)
                yield memoryview(bytes([raw[0] ^ 1]) + raw[1:])
            else:
                yield piece
