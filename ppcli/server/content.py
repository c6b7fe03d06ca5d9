"""Files of the server: one partial file per unfinished upload, and finished content by its digest.

    partial/<upload id>             chunks at their final offsets
    partial/<upload id>.<n>.spool   a chunk that is on its way twice
    partial/whole.<n>.spool         a small file that came in one request
    content/<2 hex>/<sha256>        whole and verified; written by rename, never changed

No name here comes from a client: upload ids are the server's, digests are checked.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from ppcli import disk

_SPOOL = ".spool"
_COPY = 1 << 20


class Files:
    """Raises plain OSErrors."""

    def __init__(self, data: Path) -> None:
        self._partial = data / "partial"
        self._content = data / "content"
        for directory in (self._partial, self._content):
            disk.make_dir(directory)

    def partial(self, upload_id: str) -> Path:
        return self._partial / upload_id

    def content(self, sha256: str) -> Path:
        return self._content / sha256[:2] / sha256

    def create(self, upload_id: str) -> None:
        """Make an empty partial file. Its name is durable from the first `sync` on."""
        os.close(disk.open_private(self.partial(upload_id), os.O_RDWR | os.O_EXCL))

    def sync(self, upload_id: str, *, name: bool) -> None:
        """Make what was written to a partial file durable, with `name` its name, too."""
        fd = os.open(self.partial(upload_id), os.O_RDWR | os.O_CLOEXEC)
        try:
            disk.fsync(fd)
        finally:
            os.close(fd)
        if name:
            disk.fsync_dir(self._partial)

    def spool(self, upload_id: str) -> Path:
        """A new path for bytes that may not go to their place yet."""
        return self._partial / f"{upload_id}.{uuid.uuid4().hex}{_SPOOL}"

    def drop(self, upload_id: str) -> None:
        """Remove a partial file, if it is there."""
        self.partial(upload_id).unlink(missing_ok=True)

    def place(self, upload_id: str, sha256: str) -> None:
        """Turn a partial file into content, durably. That content may be there already: what was verified last is
        kept, since the other may have been damaged. Once more is fine. That the old name is gone need not be durable:
        no session is unfinished that has it."""
        content = self.content(sha256)
        disk.make_dir(content.parent)
        try:
            os.replace(self.partial(upload_id), content)
        except FileNotFoundError:
            if not content.exists():
                raise
        disk.fsync_dir(content.parent)

    def add(self, sha256: str, body: bytes) -> None:
        """Store content as a whole, durably. What is there already is replaced, as in `place`."""
        content, spool = self.content(sha256), self.spool("whole")
        disk.make_dir(content.parent)
        fd = disk.open_private(spool, os.O_WRONLY | os.O_EXCL)
        try:
            try:
                disk.write_all(fd, body)
                disk.fsync(fd)
            finally:
                os.close(fd)
            os.replace(spool, content)
        except BaseException:  # also a stop: nothing may stay half made
            with contextlib.suppress(OSError):
                spool.unlink()
            raise
        disk.fsync_dir(content.parent)

    def remove(self, sha256: str) -> None:
        self.content(sha256).unlink(missing_ok=True)

    def partials(self) -> Iterator[tuple[Path, str | None]]:
        """Every file among the partial ones, with its upload id; None for a spool."""
        for path in sorted(self._partial.iterdir()):
            yield path, None if path.name.endswith(_SPOOL) else path.name

    def contents(self) -> Iterator[str]:
        """The digests of all content on the disk."""
        for directory in sorted(self._content.iterdir()):
            for path in sorted(directory.iterdir()):
                yield path.name

    def free(self) -> int:
        """Bytes that the server may still write."""
        state = os.statvfs(self._partial)
        return state.f_bavail * state.f_frsize


def read_range(fd: int, start: int, end: int) -> Iterator[bytes]:
    """The bytes [start, end) in pieces of up to 1 MiB. Raises OSError where the file is shorter."""
    while start < end:
        piece = os.pread(fd, min(_COPY, end - start), start)
        if not piece:
            raise OSError(f"the file ends at {start}, {end} expected")
        start += len(piece)
        yield piece
