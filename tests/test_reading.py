"""The bytes of stored objects: replies that end where they should not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest

from ppcli.app import fetching, partials
from ppcli.app.reading import Reader
from ppcli.app.receiving import Reception
from ppcli.app.workplace import Workplace
from ppcli.errors import Busy, Integrity, Interrupted, Transient
from ppcli.halt import Halt, Stopped
from ppcli.model import Remote
from ppcli.requests import GetRequest
from ppcli.retry import Step
from ppcli.target import RANGE, Store, Target

T = TypeVar("T")
DATA = os.urandom(2 * RANGE + 9)
REMOTE = Remote("a", "x#a", len(DATA))


class Place:
    """Tries twice."""

    def __init__(self) -> None:
        self.halt = Halt()
        self.warned: list[str] = []

    def warn(self, code: str, message: str) -> None:
        self.warned.append(code)

    def call(self, step: Step, name: str, attempt: Callable[[], T]) -> T:
        try:
            return attempt()
        except Transient:
            return attempt()


class Rough:
    """A store whose replies break off behind their last byte, or are too long."""

    def __init__(self, more: int) -> None:
        self._more = more

    def read(self, remote: Remote, offset: int) -> Iterator[memoryview]:
        raise NotImplementedError

    def range_size(self, remote: Remote) -> int | None:
        return RANGE

    def read_range(self, remote: Remote, offset: int, size: int) -> Iterator[memoryview]:
        assert size > 0, "a range of no bytes is all that follows, for many servers"
        yield memoryview(DATA)[offset : offset + size + self._more]
        raise Transient("it broke off")


def read(store: object) -> bytes:
    reader = Reader(cast("Workplace", Place()), cast("Store", store))
    try:
        return b"".join(bytes(piece) for piece in reader.read(REMOTE, 0))
    finally:
        reader.close()


def test_a_reply_that_breaks_off_behind_its_last_byte_was_whole() -> None:
    assert read(Rough(0)) == DATA


def test_a_reply_that_is_too_long_is_no_bug() -> None:
    with pytest.raises(Integrity):
        read(Rough(1))


def test_too_few_bytes_are_no_success_even_without_a_digest(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    short: Any = SimpleNamespace(read=lambda remote, offset: iter([memoryview(b"abc")]))
    target: Any = SimpleNamespace(digest=lambda remote: None)
    request = GetRequest(name="a", dest="-")
    fetch = fetching._Fetch(
        cast("Workplace", Place()), request, cast("Target", target), short, short, Reception(cast("Any", None))
    )
    with pytest.raises(Integrity):
        fetch._to_stdout(Remote("a", "x#a", 5))


def test_a_command_that_is_over_reads_nothing_more() -> None:
    place = Place()
    endless: Any = SimpleNamespace(read=lambda remote, offset: iter(lambda: memoryview(b"x"), b""))
    reader = Reader(cast("Workplace", place), endless)
    pieces = reader.read(Remote("a", "x#a", 1 << 20), 0)
    assert bytes(next(pieces)) == b"x"
    place.halt.request(Interrupted(130, job=False))
    with pytest.raises(Stopped):
        next(pieces)
    reader.close()


def test_two_runs_never_write_one_partial_file(tmp_path: Path) -> None:
    partial = tmp_path / ".ppcli-get-1.part"
    with partials.opened(partial) as fd:
        os.write(fd, b"begun")
        with pytest.raises(Busy), partials.opened(partial):
            pass
    with partials.opened(partial) as fd:
        assert os.read(fd, 9) == b"begun"
