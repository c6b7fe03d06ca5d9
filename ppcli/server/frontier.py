"""The digest of a whole file, taken while its chunks arrive."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING

from ppcli.server.content import read_range

if TYPE_CHECKING:
    from hashlib import _Hash as Hash


class Frontier:
    """Hashes a partial file forward, chunk after chunk, as soon as a chunk and all before it are stored.

    The bytes are read back: they were written a moment ago, so they come from memory. It knows the chunks of this
    process only; after a restart `finish` reads the file from its beginning.
    """

    def __init__(self, path: Path, executor: Executor, stopped: Callable[[], bool]) -> None:
        self._path = path
        self._executor = executor
        self._stopped = stopped
        self._changed = threading.Condition()
        self._ready: dict[int, tuple[int, int]] = {}  # chunk -> its range
        self._next = 0
        self._at = 0
        self._hash = hashlib.sha256()
        self._running = False
        self._useless = False

    def add(self, chunk: int, start: int, end: int, hashed: Hash | None = None) -> None:
        """A chunk is stored. `hashed`: all of it and nothing else, which for the first chunk is where to go on from."""
        with self._changed:
            if self._useless:
                return
            if chunk == self._next == 0 and not self._running and hashed is not None:
                self._hash, self._at, self._next = hashed.copy(), end, 1
            else:
                self._ready[chunk] = (start, end)
            if not self._running and self._next in self._ready:
                self._running = True
                self._executor.submit(self._run)

    def forget(self, chunk: int) -> None:
        """A stored chunk changes. When it was hashed already, `finish` has to read everything."""
        with self._changed:
            self._ready.pop(chunk, None)
            self._useless = self._useless or chunk < self._next or (chunk == self._next and self._running)

    def finish(self, size: int) -> str:
        """The digest of the whole file, all of whose `size` bytes are stored. Raises OSError; InterruptedError when the
        server stops."""
        with self._changed:
            while self._running:
                self._changed.wait()
            if self._useless:
                self._hash, self._at = hashlib.sha256(), 0
            self._useless = True  # whoever comes after a failure reads everything
        whole = self._hash
        self._feed(self._at, size)
        return whole.hexdigest()

    def _run(self) -> None:
        while True:
            with self._changed:
                span = None if self._useless else self._ready.pop(self._next, None)
                if span is None:
                    self._running = False
                    self._changed.notify_all()
                    return
            try:
                self._feed(*span)
            except OSError:  # complete reads it all again, and fails there if it must
                with self._changed:
                    self._useless = True
            with self._changed:
                self._next += 1

    def _feed(self, start: int, end: int) -> None:
        fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for piece in read_range(fd, start, end):
                if self._stopped():
                    raise InterruptedError("the server stops")
                self._hash.update(piece)
        finally:
            os.close(fd)
        self._at = end
