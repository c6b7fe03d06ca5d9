"""Reading open files piece by piece, without an allocation per piece."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

from ppcli.target import PIECE

ALONE = 2 * PIECE
"""Bytes at a time for the one thread that reads a whole file beside the workers: the less often it waits its turn."""


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.view = memoryview(bytearray(PIECE))


_buffers = _Buffers()


def pieces(fd: int, offset: int, size: int, piece: int = PIECE) -> Iterator[memoryview]:
    """`size` bytes from `offset`, fewer where the file ends before, in pieces of at most `piece`.

    Reads are positional, so any number of threads may read one file at once. Each thread has one buffer for good, as
    large as the largest `piece` it asked for: a piece is valid until the next one that this thread reads, from whatever
    file. Errors are plain OSErrors."""
    if piece > len(_buffers.view):
        _buffers.view = memoryview(bytearray(piece))
    buffer = _buffers.view[:piece]
    while size:
        window = buffer[:size] if size < piece else buffer
        got = os.preadv(fd, (window,), offset)
        if not got:
            return
        offset += got
        size -= got
        yield window[:got] if got < len(window) else window
