"""How many files are open at once."""

from __future__ import annotations

_MOST = 64


class Room:
    """A target that turns a file away is not offered more than are open, until as many have ended. The feed's lock is
    held by the callers of every method."""

    def __init__(self) -> None:
        self.open = 0
        self._most = _MOST
        self._ended_since = 0

    @property
    def left(self) -> int:
        """Files that may be opened now."""
        return self._most - self.open

    def take(self, files: int) -> None:
        self.open += files

    def ended(self) -> None:
        """A file is closed. Where the target was crowded, one file more is tried after as many as were open have
        ended."""
        self.open -= 1
        self._ended_since += 1
        if self._ended_since >= self._most < _MOST:
            self._most, self._ended_since = self._most + 1, 0

    def crowded(self) -> bool:
        """A file was turned away. False for the last one, which never gives way, or all would wait for each other."""
        if self.open == 1:
            return False
        self.open -= 1
        self._most, self._ended_since = self.open, 0
        return True
