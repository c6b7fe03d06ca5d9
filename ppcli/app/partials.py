"""The hidden file that an object grows in while it is fetched, and how it gets its name."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

from ppcli import disk
from ppcli.errors import Busy, Rejected
from ppcli.model import Remote
from ppcli.target import PIECE


def path_of(path: Path, remote: Remote, digest: str | None) -> Path:
    """A hidden file beside `path`, named after exactly this version of the object: another version starts anew."""
    version = f"{remote.location}\n{remote.size}\n{digest}\n{remote.version}"
    return path.with_name(f".ppcli-get-{xxhash.xxh3_64_hexdigest(version.encode(errors='surrogateescape'))}.part")


@contextmanager
def opened(partial: Path) -> Iterator[int]:
    """The partial file, for this process alone: who has it open may truncate it, even once it has its name. Raises
    `Busy`."""
    fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = _leads_to(partial, fd)  # else whoever had it has put it in place meanwhile
        except BlockingIOError:
            ours = False
        except OSError:  # a file system without locks
            ours = True
        if not ours:
            raise Busy(
                f"{partial.parent} is being filled by another process, with the same object.",
                hint="Wait for it to finish.",
                reason="locked",
            )
        yield fd
    finally:
        os.close(fd)


def _leads_to(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def hash_start(fd: int, size: int, update: Callable[[memoryview], None]) -> int:
    """Hash what is there already; gives the offset to go on from. A file that is too long is no start at all."""
    if os.fstat(fd).st_size > size:
        os.ftruncate(fd, 0)
    buffer, offset = memoryview(bytearray(PIECE)), 0
    while got := os.preadv(fd, (buffer,), offset):
        update(buffer[:got])
        offset += got
    return offset


def put_in_place(partial: Path, path: Path, *, force: bool) -> None:
    """Rename into place; without `force` a file that appeared meanwhile is not replaced."""
    if force:
        partial.replace(path)
    else:
        try:
            os.link(partial, path)
        except FileExistsError:
            raise exists(path) from None
        except OSError:  # a file system without links
            partial.rename(path)
        else:
            partial.unlink()
    disk.fsync_dir(path.parent)


def exists(path: Path) -> Rejected:
    return Rejected(
        f"{path} is there already, with other content.",
        hint="Use --force to replace it, or give another DEST.",
        reason="exists",
    )
