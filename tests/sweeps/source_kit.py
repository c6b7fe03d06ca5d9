"""What may happen to a source at any moment of its upload."""

from __future__ import annotations

import errno
import itertools
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cli_kit import CHUNK
from harness import Faulty

from ppcli import source as source_module
from ppcli.app import workplace

STEPS = [
    *("find", "open", "lost:open", "reserve", "lost:reserve", "survey", "adopt"),
    *("upload", "lost:upload", "confirm", "complete", "lost:complete"),
]
READ = "read"
MOMENTS = [
    *((step, 1) for step in STEPS),
    *((step, nth) for step in ("upload", "lost:upload", "confirm") for nth in (2, 4)),
    *((READ, nth) for nth in (1, 2, 4, 6, 9, 12, 14, 18, 27)),
]
"""A call of the target, or a piece of the source that somebody reads, and which of them."""
_PIECE = 1000


@dataclass
class Source:
    """A file and all revisions that it had. `broken`: reading it fails, as on a dying disk."""

    path: Path
    revisions: list[bytes] = field(default_factory=list)
    broken: bool = False
    inode: int = 0

    def write(self, data: bytes) -> None:
        self.path.write_bytes(data)
        self.revisions.append(data)

    def append(self, rng: random.Random) -> None:
        more = rng.randbytes(rng.choice([1, CHUNK + 9]))
        self.revisions.append(self.revisions[-1] + more)
        with self.path.open("ab") as file:
            file.write(more)

    def truncate(self, rng: random.Random) -> None:
        size = rng.choice([0, 1, CHUNK, 2 * CHUNK + 7])
        self.revisions.append(self.revisions[-1][:size])
        os.truncate(self.path, size)

    def rewrite(self, rng: random.Random) -> None:
        """A part of it, in place, and the time is put back."""
        before, old = self.path.stat(), self.revisions[-1]
        start = rng.randrange(len(old))
        new = rng.randbytes(rng.randint(1, len(old) - start))
        self.revisions.append(old[:start] + new + old[start + len(new) :])
        with self.path.open("r+b") as file:
            file.seek(start)
            file.write(new)
        os.utime(self.path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def replace(self, rng: random.Random) -> None:
        """By another file of the same size and time."""
        before, new = self.path.stat(), rng.randbytes(len(self.revisions[-1]))
        other = self.path.with_name("other")
        other.write_bytes(new)
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.revisions.append(new)
        other.replace(self.path)

    def touch(self, rng: random.Random) -> None:
        os.utime(self.path)

    def delete(self, rng: random.Random) -> None:
        self.path.unlink()

    def forbid(self, rng: random.Random) -> None:
        self.path.chmod(0)

    def fail(self, rng: random.Random) -> None:
        self.broken, self.inode = True, self.path.stat().st_ino

    def mend(self, data: bytes) -> None:
        """It is there again, with this content."""
        self.broken = False
        self.path.unlink(missing_ok=True)
        self.write(data)


Change = Callable[[Source, random.Random], None]
CHANGES: list[Change] = [
    *(Source.append, Source.truncate, Source.rewrite, Source.replace, Source.touch),
    *(Source.delete, Source.forbid, Source.fail),
]
REASONS = {"changed", "missing", "unreadable"}


@contextmanager
def happens(source: Source, change: Callable[[], None], moment: str, nth: int) -> Iterator[list[int]]:
    """`change` takes place at the `nth` such moment, whichever thread is there. Gives a list that is empty until then.
    Sources are read in small pieces meanwhile."""
    seen, done, lock = itertools.count(1), list[int](), threading.Lock()
    connect, pieces = workplace.connect, source_module.pieces

    def at(step: str, *_: object) -> None:
        with lock:
            if step == moment and not done and next(seen) == nth:
                change()
                done.append(nth)

    def watched(fd: int, offset: int, size: int, piece: int) -> Iterator[memoryview]:
        for got in pieces(fd, offset, size, min(piece, _PIECE)):
            at(READ)
            if source.broken and os.fstat(fd).st_ino == source.inode:
                raise OSError(errno.EIO, "Input/output error")
            yield got

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workplace, "connect", lambda url, settings: Faulty(connect(url, settings), at))
        patch.setattr(source_module, "pieces", watched)
        yield done
