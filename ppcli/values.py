"""The decorator for plain data that nothing changes and of which a job of many files makes millions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["value"]

if TYPE_CHECKING:
    from dataclasses import dataclass as value
else:
    from dataclasses import dataclass

    def value(*, frozen: bool, slots: bool) -> Any:
        """`dataclass`, frozen for the type checker alone: to make a frozen one at run time takes three times as long,
        and nothing in the product sets what the checker would refuse."""
        return dataclass(slots=slots, unsafe_hash=frozen)
