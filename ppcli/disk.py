"""Durable files: what is written here survives a power cut once the call has returned. Errors are plain OSErrors."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

StrPath: TypeAlias = str | Path

PRIVATE_FILE = 0o600
PRIVATE_DIR = 0o700
_BLOCK = 1 << 18
_RUN = 1 << 17
"""Bytes that are written at once. Linux looks for memory in one run as long as the write: runs of a MiB are scarce, and
where a hypervisor has to give them they cost ten times what the copy does. Shorter ones lie about."""


if sys.platform == "darwin":
    import fcntl

    def fsync(fd: int) -> None:
        """Flush to the medium. On macOS plain fsync stops at the drive's cache, F_FULLFSYNC does not."""
        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        except OSError:  # network and some external file systems do not know it
            os.fsync(fd)

else:

    def fsync(fd: int) -> None:
        """Flush to the medium."""
        os.fsync(fd)


def fsync_dir(path: Path) -> None:
    """Make creations, renames and removals in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fsync(fd)
    finally:
        os.close(fd)


def make_dir(path: Path, mode: int = PRIVATE_DIR) -> None:
    """Create a directory and its missing parents with exactly `mode`, durably. One that exists stays as it is."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=mode)
            directory.chmod(mode)
        fsync_dir(directory.parent)


def open_private(path: Path, flags: int) -> int:
    """`os.open` with O_CREAT that gives exactly 0600, whatever the umask."""
    fd = os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    if os.fstat(fd).st_mode & 0o777 != PRIVATE_FILE:
        os.fchmod(fd, PRIVATE_FILE)
    return fd


def write_atomic(path: Path, pieces: Iterable[bytes]) -> None:
    """Replace a file as a whole: temporary file, fsync, rename, fsync of the directory. One caller at a time; what a
    killed one left is taken over by the next."""
    temporary = path.with_name(f".{path.name}.tmp")
    fd = open_private(temporary, os.O_WRONLY | os.O_TRUNC)
    try:
        try:
            for block in _blocks(pieces):
                write_all(fd, block)
            fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:  # also a signal: nothing may stay held or half made
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    fsync_dir(path.parent)


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, in pieces that are worth a system call."""
    gathered: list[bytes] = []
    size = 0
    for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= _BLOCK:
            yield b"".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)


def write_all(fd: int, data: bytes | memoryview, offset: int | None = None) -> None:
    """Write every byte, at `offset` where it is given (the file position stays)."""
    view = memoryview(data)
    while view:
        done = os.write(fd, view[:_RUN]) if offset is None else os.pwrite(fd, view[: _RUN - offset % _RUN], offset)
        view = view[done:]
        if offset is not None:
            offset += done


def set_aside(path: Path) -> Path:
    """Rename a damaged file so that it is kept and no longer in the way; gives its new name."""
    kept = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
    os.replace(path, kept)
    fsync_dir(path.parent)
    return kept
