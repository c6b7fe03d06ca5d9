"""Pads as files: `pads/<2 hex>/<number>`, the header, then the payload. The number is the server's own, so no name of a
file tells an address. A pad is replaced as a whole, by rename: it is never there half, and counters never fall.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import xxhash

from ppcli import disk
from ppcli.pads import header
from ppcli.pads.header import Header
from ppcli.server.content import read_range
from ppcli.server.refusal import Refused

_GUARDS = 64


class PadFiles:
    """Raises plain OSErrors, and `Refused`. Any thread may call it, for the same pad as well."""

    def __init__(self, data: Path) -> None:
        self._top = data / "pads"
        self._incoming = self._top / "incoming"
        self._guards = [threading.Lock() for _ in range(_GUARDS)]
        disk.make_dir(self._incoming)
        for left in self._incoming.iterdir():
            left.unlink()

    def path(self, pad: int) -> Path:
        return self._top / f"{pad % 256:02x}" / str(pad)

    def incoming(self) -> Path:
        """A new path for a pad that is on its way."""
        return self._incoming / uuid.uuid4().hex

    def head(self, pad: int) -> bytes:
        """The header of a pad, unread; empty where it was never written."""
        try:
            fd = os.open(self.path(pad), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        with contextlib.closing(os.fdopen(fd, "rb", buffering=0)) as file:
            return file.read(header.SIZE) or b""

    def heads(self, pads: Sequence[int | None]) -> list[bytes | None]:
        return [None if pad is None else self.head(pad) for pad in pads]

    def read_back(self, pad: int, length: int) -> tuple[bytes, str]:
        """The header, and the XXH3-128 (hex) of the first `length` bytes of the payload, as they are stored now."""
        digest = xxhash.xxh3_128()
        try:
            fd = os.open(self.path(pad), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b"", digest.hexdigest()
        try:
            end = min(os.fstat(fd).st_size, header.SIZE + length)
            for piece in read_range(fd, header.SIZE, end):
                digest.update(piece)
            return os.pread(fd, header.SIZE, 0), digest.hexdigest()
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def nothing_placed(self) -> Iterator[None]:
        """No pad changes meanwhile."""
        with contextlib.ExitStack() as all_of_them:
            for guard in self._guards:
                all_of_them.enter_context(guard)
            yield

    def place(self, pad: int, incoming: Path, head: Header, secret: bytes, check: Callable[[], None]) -> None:
        """Make a file, which is durable, what the pad holds; durably. Raises `Refused` 409 where the counter does not
        rise, and what `check` raises, which is asked last."""
        path = self.path(pad)
        with self._guards[pad % _GUARDS]:
            old = header.unpack(self.head(pad), secret)
            if old is not None and old.counter >= head.counter:
                named = {"Pad-Counter": str(old.counter)}
                raise Refused(409, "The counter of this pad is not below the one that was sent", headers=named)
            disk.make_dir(path.parent)
            check()
            os.replace(incoming, path)
        disk.fsync_dir(path.parent)

    def erase(self, pad: int, head: Header, raw: bytes, secret: bytes, check: Callable[[], None]) -> None:
        """Leave nothing in a pad but this header. Raises as `place` does."""
        incoming = self.incoming()
        try:
            fd = disk.open_private(incoming, os.O_WRONLY)
            try:
                disk.write_all(fd, raw)
                disk.fsync(fd)
            finally:
                os.close(fd)
            self.place(pad, incoming, head, secret, check)
        finally:
            incoming.unlink(missing_ok=True)

    def free(self) -> int:
        """Bytes that the server may still write."""
        state = os.statvfs(self._top)
        return state.f_bavail * state.f_frsize
