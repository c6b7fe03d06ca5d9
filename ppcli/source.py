"""Sources: the only code that reads what a user sends.

A source is identified by its `Fingerprint`. Any number of threads may read one `Source` at once; a thread reads one
body at a time (see `pieces`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import xxhash

from ppcli import disk
from ppcli.bodies import ChunkBody, OnBytes
from ppcli.disk import StrPath
from ppcli.errors import SourceError, local_io, source_changed
from ppcli.model import Fingerprint, Part
from ppcli.pieces import pieces
from ppcli.target import PIECE
from ppcli.values import value

SETTLE_NS = 20_000_000
"""How long a source's ctime must lie back before it is read, in nanoseconds. See `settle`."""

_OTHER_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO (named pipe)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@value(frozen=True, slots=True)
class Digests:
    """Of one whole file: `whole` is `sha256:hex`, `chunks` the XXH3-128 (hex) of each chunk in order, `sha256` the
    SHA-256 (hex) of each, where that was asked for."""

    whole: str
    chunks: list[str]
    sha256: list[str] | None = None


def fingerprint(path: StrPath) -> Fingerprint:
    """The fingerprint of a regular file; links are followed. Raises `SourceError`: `missing`, or `unreadable` for
    everything else, also for what is no regular file."""
    try:
        return _fingerprint_of(path, os.stat(path))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def settle(seen: Fingerprint) -> None:
    """Wait until a change of the file can no longer hide behind the fingerprint `seen`. Call it before the first read.

    The kernel stamps files by its tick (up to 10 ms), so a file that is rewritten within the tick of its last change
    keeps its fingerprint. What is read once the ctime is `SETTLE_NS` old belongs to this fingerprint alone, or the
    fingerprint will differ afterwards. A ctime in the future (clocks jump, a server's differs) waits once as long:
    the clock that stamped it moves on meanwhile.
    """
    if (left := unsettled(seen)) > 0:
        time.sleep(left / 1e9)


def unsettled(seen: Fingerprint) -> int:
    """Nanoseconds until `seen` has settled, 0 to `SETTLE_NS`."""
    return min(max(seen.ctime_ns + SETTLE_NS - time.time_ns(), 0), SETTLE_NS)


class Source:
    """An open regular file. `fingerprint` is that of the open file, taken when it was opened."""

    def __init__(self, path: StrPath) -> None:
        """Raises `SourceError` as `fingerprint()` does."""
        self.path = os.fspath(path)
        try:
            _check_regular(path, os.stat(path))  # never opens a device, which may do something
            self._fd = _open(path)
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        try:
            self.fingerprint = _fingerprint_of(path, os.fstat(self._fd))
            if not self.fingerprint.size and self._has_a_byte():
                raise _sizeless(path)
        except BaseException:  # also a signal: nothing may stay held or half made
            self.close()
            raise

    def body(
        self, part: Part, *, on_bytes: OnBytes | None = None, whole: bool = False, piece: int = PIECE
    ) -> ChunkBody:
        """The bytes of one chunk, `piece` bytes at a time. `whole` computes their SHA-256 too."""
        return ChunkBody(self, part, on_bytes, whole, piece)

    def checksum(self, part: Part, on_bytes: OnBytes | None = None) -> str:
        """XXH3-128 (hex) of the bytes of one chunk."""
        hasher = xxhash.xxh3_128()
        for piece in self.pieces(part.offset, part.size):
            hasher.update(piece)
            if on_bytes:
                on_bytes(len(piece))
        return hasher.hexdigest()

    def digests(self, chunk_size: int, on_bytes: OnBytes | None = None, piece: int = PIECE) -> Digests:
        """All digests in one pass over the size the file had when it was opened, `piece` bytes at a time."""
        whole, chunks = hashlib.sha256(), []
        for offset in range(0, max(self.fingerprint.size, 1), chunk_size):
            chunk = xxhash.xxh3_128()
            for data in self.pieces(offset, min(chunk_size, self.fingerprint.size - offset), piece):
                whole.update(data)
                chunk.update(data)
                if on_bytes:
                    on_bytes(len(data))
            chunks.append(chunk.hexdigest())
        return Digests(f"sha256:{whole.hexdigest()}", chunks)

    def pieces(self, offset: int, size: int, piece: int = PIECE) -> Iterator[memoryview]:
        """Exactly `size` bytes from `offset`, in pieces of this thread's buffer: each is valid until the next. Raises
        `SourceError`: `changed` where the file ends before, `unreadable` where it cannot be read."""
        try:
            for got in pieces(self._fd, offset, size, piece):
                size -= len(got)
                yield got
        except OSError as error:
            raise _unreadable(self.path, error) from error
        if size:
            raise source_changed(f"{self.path} got shorter while it was sent")

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset`. Raises as `pieces`."""
        try:
            got = os.pread(self._fd, size, offset)
        except OSError as error:
            raise _unreadable(self.path, error) from error
        return got if len(got) == size else b"".join([bytes(piece) for piece in self.pieces(offset, size)])

    def _has_a_byte(self) -> bool:
        try:
            return bool(os.pread(self._fd, 1, 0))
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def close(self) -> None:
        """Repeatable."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def spool(stream: BinaryIO, path: Path, on_bytes: OnBytes | None = None) -> Fingerprint:
    """Copy `stream` up to its end into a new, durable 0600 file. Raises `SourceError` where the stream cannot
    be read and `Local` where the file cannot be written; nothing is left behind then."""
    doing = "keep a copy of the standard input"
    with local_io(doing):
        fd = disk.open_private(path, os.O_WRONLY | os.O_TRUNC)
    try:
        while piece := _read_stream(stream):
            with local_io(doing):
                disk.write_all(fd, piece)
            if on_bytes:
                on_bytes(len(piece))
        with local_io(doing):
            disk.fsync(fd)
            disk.fsync_dir(path.parent)
        return _fingerprint_of(path, os.fstat(fd))
    except BaseException:  # also a signal: nothing may stay held or half made
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    finally:
        os.close(fd)


def _read_stream(stream: BinaryIO) -> bytes:
    try:
        return stream.read(PIECE)
    except OSError as error:
        raise _unreadable("-", error) from error


def _open(path: StrPath) -> int:
    flags = os.O_RDONLY | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_NONBLOCK)  # should a FIFO have taken its place: do not wait for a writer
    except BlockingIOError:  # a lease (Samba oplock) is being broken: the plain open waits for it
        return os.open(path, flags)


def _fingerprint_of(path: StrPath, info: os.stat_result) -> Fingerprint:
    _check_regular(path, info)
    return Fingerprint(info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_dev)


def _check_regular(path: StrPath, info: os.stat_result) -> None:
    if stat.S_ISREG(info.st_mode):
        return
    kind = next((name for test, name in _OTHER_KINDS if test(info.st_mode)), "a special file")
    raise SourceError(
        f"{path} is {kind}, not a regular file.",
        hint="Name a regular file; a stream can be sent with `-` as the source.",
        reason="unreadable",
    )


def _unreadable(path: StrPath, error: OSError | ValueError) -> SourceError:
    """ValueError is what a path with a NUL byte gives."""
    if isinstance(error, FileNotFoundError | NotADirectoryError | ValueError):
        return SourceError(f"{path} does not exist.", hint="Check the path.", reason="missing")
    name = "The standard input" if path == "-" else str(path)
    return SourceError(
        f"{name} cannot be read: {error.strerror or error}.",
        hint="Check its permissions and the disk it is on, then run the same command again.",
        reason="unreadable",
    )


def _sizeless(path: StrPath) -> SourceError:
    """Files of the kernel, such as those in /proc, say that they are empty and are not."""
    return SourceError(
        f"{path} does not tell its size.",
        hint="Send what it prints: `cat FILE | ppcli put - --name NAME`.",
        reason="unreadable",
    )
