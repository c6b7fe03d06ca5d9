"""JSON of a stranger's: what cannot be read is one kind of error, and nothing else goes wrong on the way."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from ppcli import records

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
