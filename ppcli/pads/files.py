"""The pads of one store as files: `pads/<first 2 hex digits of the address>/<address>`, the header, then the payload.

A pad that was never written has no file, or one whose header is blank. A pad file of no bytes is one whose directory
entry may not be durable yet. Errors are `Local`; none tells an address.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import xxhash

from ppcli import disk
from ppcli.errors import Damaged, local_error, local_io
from ppcli.pads import header
from ppcli.pads.header import Header, Stamp
from ppcli.pads.identity import Identity
from ppcli.pads.key import Pad, UserKey, numbers_of
from ppcli.pads.medium import Found
from ppcli.pieces import pieces
from ppcli.target import Body

_BLANK = bytes(header.SIZE)
_WORTH_TOGETHER = 8
"""Pads from which it pays to make them before they are written."""


def prepare(root: Path) -> None:
    """Create the directories of an empty store, all at once: later they would cost a sync each."""
    top = root / "pads"
    disk.make_dir(top)
    for number in range(256):
        shard = top / f"{number:02x}"
        with contextlib.suppress(FileExistsError):
            shard.mkdir(mode=disk.PRIVATE_DIR)
            shard.chmod(disk.PRIVATE_DIR)
    disk.fsync_dir(top)


def files(root: Path) -> Iterator[Path]:
    """Every pad file under a store's directory."""
    with local_io("look through the pads"):
        for shard in sorted((root / "pads").glob("[0-9a-f][0-9a-f]")):
            yield from (path for path in shard.iterdir() if len(path.name) == 64)


class PadFiles:
    """A `Medium`."""

    wipe_at = 1

    def __init__(self, root: Path, identity: Identity, key: UserKey) -> None:
        self._root = root
        self._top = os.fspath(root / "pads")
        self._store_id = bytes.fromhex(identity.id)
        self._pad_size = identity.pad_size
        self._key = key

    def reserve(self, numbers: Sequence[int], seq: int) -> None:
        """Whoever may write the directory may make a pad; but where many are wanted, their directory entries become
        durable together, in far less time than one by one as they are written."""
        if len(numbers) < _WORTH_TOGETHER:
            return
        made = [number for number in numbers if self._make(number)]
        for shard in {Path(self._path(self._pad(number))).parent for number in made}:
            with local_io("write the pads"):
                disk.fsync_dir(shard)
        for number in made:
            with _pad_errors("make", number):
                self._blank(self._path(self._pad(number)))

    def heads(self, numbers: Iterable[int]) -> Found:
        found: dict[int, Header | None] = {}
        for number in numbers:
            pad = self._pad(number)
            with _pad_errors("read", number), contextlib.suppress(FileNotFoundError):
                fd = os.open(self._path(pad), os.O_RDONLY | os.O_CLOEXEC)
                try:
                    found[number] = header.unpack(os.pread(fd, header.SIZE, 0), pad.secret)
                finally:
                    os.close(fd)
        return found

    def walk(self) -> Found:
        addresses = {path.name for path in files(self._root)}
        return self.heads(numbers_of(addresses, lambda number: self._pad(number).address))

    def payload(self, number: int, length: int) -> Iterator[memoryview]:
        with _pad_errors("read", number):
            try:
                fd = os.open(self._path(self._pad(number)), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return
            try:
                yield from pieces(fd, header.SIZE, length)
            finally:
                os.close(fd)

    def payloads(self, lengths: Mapping[int, int]) -> Iterator[tuple[int, bytes]]:
        for number, length in lengths.items():
            yield number, b"".join(bytes(piece) for piece in self.payload(number, length))

    def read_back(self, number: int, length: int) -> tuple[Header | None, str]:
        digest = xxhash.xxh3_128()
        for piece in self.payload(number, length):
            digest.update(piece)
        return self.heads((number,)).get(number), digest.hexdigest()

    def write(self, number: int, stamp: Stamp, body: Body) -> Header:
        """In place: a writer that is cut off leaves a pad without an authentic header."""
        pad = self._pad(number)
        with _pad_errors("write", number):
            fd = self._open(pad)
            try:
                return self._fill(fd, pad, stamp, body)
            finally:
                os.close(fd)

    def wipe(self, numbers: Sequence[int], seq: int) -> None:
        """They hold neither a payload nor a header then."""
        for number in numbers:
            with _pad_errors("wipe", number):
                try:
                    fd = os.open(self._path(self._pad(number)), os.O_RDWR | os.O_CLOEXEC)
                except FileNotFoundError:
                    continue
                try:
                    os.ftruncate(fd, 0)
                    os.ftruncate(fd, header.SIZE)
                    disk.fsync(fd)
                finally:
                    os.close(fd)

    def _fill(self, fd: int, pad: Pad, stamp: Stamp, body: Body) -> Header:
        before = os.pread(fd, header.SIZE, 0)
        old = header.unpack(before, pad.secret)
        if before.strip(b"\0"):
            disk.write_all(fd, _BLANK, 0)
        end = header.SIZE
        for piece in body:
            disk.write_all(fd, piece, end)
            end += len(piece)
        if end - header.SIZE != body.size:
            raise Damaged(f"pad {pad.number} was given {end - header.SIZE} bytes instead of {body.size}")
        os.ftruncate(fd, end)
        head = Header(
            store_id=self._store_id,
            pad_size=self._pad_size,
            stamp=stamp,
            length=body.size,
            digest=bytes.fromhex(body.checksum),
            counter=max(old.counter + 1 if old else 0, time.time_ns()),  # unique, also where the old one was torn
        )
        disk.write_all(fd, header.pack(head, pad.secret), 0)
        disk.fsync(fd)
        return head

    def _make(self, number: int) -> bool:
        """Create a pad; says whether its entry is still to be made durable."""
        with _pad_errors("make", number):
            fd = self._create(self._path(self._pad(number)))
            try:
                return not os.fstat(fd).st_size
            finally:
                os.close(fd)

    def _open(self, pad: Pad) -> int:
        path = self._path(pad)
        fd = self._create(path)
        try:
            if not os.fstat(fd).st_size:
                disk.fsync_dir(Path(path).parent)
        except BaseException:  # also a signal: nothing may stay held or half made
            os.close(fd)
            raise
        return fd

    @staticmethod
    def _blank(path: str) -> None:
        """Say of a pad that was made that its entry is durable, unless it was written meanwhile."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if not os.fstat(fd).st_size:
                os.ftruncate(fd, header.SIZE)
        finally:
            os.close(fd)

    @staticmethod
    def _create(path: str) -> int:
        """Open a pad file, a new one where there is none."""
        try:
            return disk.open_private(Path(path), os.O_RDWR)
        except FileNotFoundError:  # a copy of the store may have lost its empty directories
            disk.make_dir(Path(path).parent)
            return disk.open_private(Path(path), os.O_RDWR)

    def _pad(self, number: int) -> Pad:
        return self._key.pad(self._store_id, number)

    def _path(self, pad: Pad) -> str:
        return f"{self._top}/{pad.address[:2]}/{pad.address}"


@contextmanager
def _pad_errors(doing: str, number: int) -> Iterator[None]:
    """Like `local_io`, without the path: it holds the pad's address."""
    try:
        yield
    except OSError as error:
        raise local_error(OSError(error.errno, error.strerror), f"{doing} pad {number}") from None
