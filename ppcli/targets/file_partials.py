"""The unfinished files of a `file:` target while they are written: hidden, beside their final place."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import xxhash

from ppcli import disk
from ppcli.errors import Local, SessionLost
from ppcli.groupsync import GroupSync
from ppcli.model import Receipt
from ppcli.pieces import pieces
from ppcli.target import Body
from ppcli.targets import slots
from ppcli.targets.file_tree import disk_io

_KEPT_OPEN = 64
_MODE = 0o600
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)


class Partial:
    """An open partial. `pool` counts its users; the file descriptor is closed when it is dropped and nobody uses it."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.users = 0
        self.dropped = False
        self._sync = GroupSync(lambda: disk.fsync(fd))
        # The system lets one thread at a time write a file, and those that wait in there keep a processor busy.
        self._writing = threading.Lock()

    def write(self, body: Body, offset: int) -> None:
        """Write a chunk and make it durable, together with other threads."""
        for piece in body:
            with disk_io(f"write {self.path}"), self._writing:
                disk.write_all(self.fd, piece, offset)
            offset += len(piece)
        self.sync()

    def sync(self) -> None:
        with disk_io(f"write {self.path}"):
            self._sync.wait()

    def finish(self, mode: int, modified: float) -> None:
        """Give it the final permissions and modification time, durably. Some file systems (FAT, CIFS) have none to
        give; that is no reason to fail."""
        with contextlib.suppress(PermissionError, NotImplementedError):
            if os.fstat(self.fd).st_mode & 0o7777 != mode:
                os.fchmod(self.fd, mode)
        with contextlib.suppress(PermissionError, NotImplementedError):
            seconds, rest = divmod(modified, 1)
            os.utime(self.fd, ns=(int(seconds) * 10**9 + round(rest * 1e9),) * 2)
        self.sync()


class Partials:
    """Partials by path, so that all workers share one file descriptor and one fsync per file. At most `_KEPT_OPEN` stay
    open while nobody uses them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Path, Partial] = {}

    def create(self, path: Path, size: int) -> int:
        """A new partial of `size` zero bytes, in place of what was there; gives its inode."""
        self.drop(path)
        with disk_io(f"create {path}"):
            path.unlink(missing_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
            return self._take(path, fd, size)

    def reattach(self, path: Path, expected: int, size: int) -> int:
        """Go on with a partial of `expected` bytes, cut or grown to `size`; gives its inode. Raises `SessionLost` where
        it is gone, somebody else cut it, or it has a second name: writing would change what is there."""
        self.drop(path)
        fd = _reopen(path)
        info = os.fstat(fd)
        if info.st_nlink > 1 or info.st_size not in (expected, size):
            os.close(fd)
            raise SessionLost(f"{path} " + ("has a second name" if info.st_nlink > 1 else "has another size"))
        with disk_io(f"resize {path}"):
            return self._take(path, fd, size)

    def _take(self, path: Path, fd: int, size: int) -> int:
        try:
            info = os.fstat(fd)
            _check_space(path, fd, size - info.st_blocks * 512)
            if info.st_size != size:
                os.ftruncate(fd, size)
        except BaseException:  # also a signal: nothing may stay held or half made
            os.close(fd)
            raise
        with self._lock:
            self._open[path] = Partial(path, fd)
            self._close_idle()
        return info.st_ino

    @contextlib.contextmanager
    def using(self, path: Path) -> Iterator[Partial]:
        """The partial, open while the block runs. Raises `SessionLost` where it is gone."""
        with self._lock:
            partial = self._open.pop(path, None) or Partial(path, _reopen(path))
            self._open[path] = partial  # the most recently used is last
            partial.users += 1
            self._close_idle()
        try:
            yield partial
        finally:
            with self._lock:
                partial.users -= 1
                _close(partial)

    def drop(self, path: Path) -> None:
        """Forget a partial: it is closed as soon as nobody uses it."""
        with self._lock:
            self._drop(path)

    def close(self) -> None:
        with self._lock:
            for path in tuple(self._open):
                self._drop(path)

    def _drop(self, path: Path) -> None:
        if partial := self._open.pop(path, None):
            partial.dropped = True
            _close(partial)

    def _close_idle(self) -> None:
        if len(self._open) > _KEPT_OPEN:
            idle = [path for path, partial in self._open.items() if not partial.users]
            for path in idle[: len(self._open) - _KEPT_OPEN]:
                self._drop(path)


def checksum(fd: int, offset: int, size: int) -> str | None:
    """XXH3-128 (hex) of a range as it is stored; None where the file ends before."""
    hasher = xxhash.xxh3_128()
    for piece in pieces(fd, offset, size):
        hasher.update(piece)
        size -= len(piece)
    return None if size else hasher.hexdigest()


def holds(path: Path, size: int, receipts: Sequence[Receipt]) -> bool:
    """Whether the file at `path` is exactly `size` bytes long and has every chunk of `receipts` (slots are offsets)."""
    with disk_io(f"read {path}"):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return os.fstat(fd).st_size == size and all(
                checksum(fd, slots.number(receipt.slot), receipt.size) == receipt.checksum for receipt in receipts
            )
        finally:
            os.close(fd)


def link_new(partial: Path, final: Path) -> bool:
    """Give a file its name unless the name is taken; says whether it was given."""
    try:
        final.hardlink_to(partial)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        return _rename_new(partial, final)
    return True


def _rename_new(partial: Path, final: Path) -> bool:
    """`link_new` for file systems without hard links (FAT): a lock keeps other ppcli processes out meanwhile."""
    directory = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        if os.path.lexists(final):
            return False
        partial.replace(final)
        return True
    finally:
        os.close(directory)


def _reopen(path: Path) -> int:
    try:
        with disk_io(f"open {path}"):
            return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except Local as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise SessionLost(f"{path} is gone") from error
        raise


def _close(partial: Partial) -> None:
    if partial.dropped and not partial.users:
        os.close(partial.fd)


def _check_space(path: Path, fd: int, needed: int) -> None:
    """A full disk shows before the bytes are sent. Not by posix_fallocate: where a file system (NFS, FAT) lacks it, the
    C library writes to every block."""
    room = os.fstatvfs(fd)
    if room.f_blocks and needed > room.f_bfree * room.f_frsize:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
