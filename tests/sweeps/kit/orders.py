"""What is to happen at which call of a command. Calls are counted from 1, over all threads, in the order in which they
happen: while one is under way, the others wait."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from sweeps.kit.calls import Call


class When(Enum):
    """Of a kill: before a call, after half of its bytes (for one that has bytes), or when it has taken effect."""

    BEFORE = "before"
    HALF = "half"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL at call number `at`."""

    at: int
    when: When


@dataclass(frozen=True, slots=True)
class Fail:
    """Call number `at` of those that count fails with `errno`, and with `lasting` all after it. Those that count are
    the calls of these `kinds` (none: all) that concern a path below `roots`."""

    at: int
    errno: int
    lasting: bool = False
    roots: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()

    def counts(self, call: Call) -> bool:
        return (not self.kinds or call.kind in self.kinds) and call.below(self.roots)


@dataclass(frozen=True, slots=True)
class Order:
    """Run `ppcli` with these words. `patience`: seconds until it is killed for being late."""

    words: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str
    stdout: str
    stderr: str
    what: Kill | Fail | None = None
    patience: float = 150.0


@dataclass(slots=True)
class Report:
    """How it ended: the exit code, as `subprocess` gives it, the calls that were made, and `struck`: whether what was
    ordered has happened."""

    code: int
    calls: list[Call] = field(default_factory=list)
    struck: bool = False
