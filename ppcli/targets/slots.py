"""Slots that are numbers, as a manifest gives them back."""

from __future__ import annotations

from ppcli.errors import SessionLost
from ppcli.model import Slot

_NUMBERS = range(1 << 63)


def number(slot: Slot) -> int:
    """Raises `SessionLost` for what is none: the manifest was damaged."""
    if type(slot) is not int or slot not in _NUMBERS:
        raise SessionLost("a slot of it is no number")
    return slot
