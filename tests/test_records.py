"""JSON of a stranger's: what cannot be read is one kind of error, and nothing else goes wrong on the way."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator

import pytest

from ppcli import records
from ppcli.model import Chunk

DEEP = b"[" * 100_000


def called() -> int:
    return len([DEEP])


def suspended() -> Iterator[None]:
    try:
        yield
    finally:
        called()


def garbage() -> None:
    """A cycle whose end takes a few calls."""
    cycle: list[object] = [suspended()]
    next(cycle[0])  # type: ignore[call-overload]
    cycle.append(cycle)


def test_no_garbage_is_collected_at_the_bottom_of_a_nesting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end would need more depth than is left there."""
    seen: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    before = gc.get_threshold()
    gc.freeze()
    try:
        for threshold in range(500, 1000):
            gc.set_threshold(before[0])
            gc.collect()
            gc.set_threshold(threshold)
            garbage()
            with pytest.raises(ValueError, match="nested too deeply"):
                records.loads(DEEP)
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
    assert not seen


def test_garbage_is_collected_again_however_many_threads_read(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        readers = [
            threading.Thread(target=lambda: [records.loads(b'{"a":[1,2,3]}') for _ in range(3000)]) for _ in range(4)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    finally:
        sys.setswitchinterval(before)
    assert gc.isenabled()


@pytest.mark.parametrize("depth", range(930, 1000, 3))
def test_what_is_nested_too_deeply_to_be_told_is_refused_too(depth: int) -> None:
    """It may be read at a depth at which it cannot be written into the error's text."""
    text = b'{"index":0,"offset":0,"size":1,"state":' + b"[" * depth + b"]" * depth + b"}"
    with pytest.raises(ValueError, match=r"nested too deeply|unexpected list"):
        records.build(Chunk, records.loads(text))
