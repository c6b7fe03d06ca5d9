"""Ranges side by side, when the reading ends early."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import cast

import pytest

from ppcli.app.reading import RANGES, Reader
from ppcli.app.workplace import Workplace
from ppcli.halt import Halt
from ppcli.model import Remote
from ppcli.target import RANGE, Store

BIG = Remote("big", "big", 8 * RANGE)


class Calls:
    halt = Halt()

    def call(self, step: object, name: str, attempt: Callable[[], object]) -> object:
        return attempt()


class Held:
    """Gives ranges once it may."""

    def __init__(self) -> None:
        self.asked = threading.Semaphore(0)
        self.go = threading.Event()

    def range_size(self, remote: Remote) -> int | None:
        return RANGE

    def read_range(self, remote: Remote, offset: int, size: int) -> Iterator[memoryview]:
        self.asked.release()
        self.go.wait(30)
        yield memoryview(bytes(size))


def test_of_many_who_read_nobody_waits_for_ever_after_the_end() -> None:
    """Whoever waits for room gets it, and learns that nothing more is read."""
    store = Held()
    reader = Reader(cast(Workplace, Calls()), cast(Store, store))
    ended = threading.Semaphore(0)

    def read() -> None:
        with pytest.raises((RuntimeError, CancelledError)):
            for _ in reader.read(BIG, 0):
                pass
        ended.release()

    for _ in range(3 * RANGES):
        threading.Thread(target=read, daemon=True).start()
    for _ in range(RANGES):
        assert store.asked.acquire(timeout=20)
    reader.close()
    store.go.set()
    for _ in range(3 * RANGES):
        assert ended.acquire(timeout=20), "somebody waits for ever"
