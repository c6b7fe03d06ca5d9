"""Calls in two halves: what is sent, and what becomes of the reply."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Call: TypeAlias = Generator[int, None, T]
"""A call under way. Where it has sent all it has to say and would wait for the reply, it yields the descriptor on which
that comes: whoever has more to send does that first. What it returns or raises in the end is the outcome; closed
before, it gives up what it holds."""


def outcome(call: Call[T]) -> T:
    """Make a call at one go."""
    try:
        while True:
            next(call)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        call.close()  # a signal may come between its halves
