"""What is where: the index of a pad store as a state that operations are folded into. Pure.

Every pad number below `next` is exactly one of: free; stale (it held a record, which is to be wiped before the pad is
free); a record pad of a version or of an owner; or a data pad with references. A reference is held by the version of a
name, or by an owner (a job's file, `job/key`). A data pad without references is free at once.

Live state and replayed state come from the same `fold`. An operation costs as much as the pads it names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeAlias

from ppcli.values import value


@value(frozen=True, slots=True)
class Version:
    """One complete version of a name. `owner` is the id of the session that wrote it, `pads` has one (number, counter)
    per chunk, `record` the numbers of the pads that hold its record."""

    version: int
    owner: str
    pads: tuple[tuple[int, int], ...]
    record: tuple[int, ...]
    size: int
    digest: str | None
    modified: float
    chunk_size: int


@dataclass(slots=True)
class Owner:
    """What a job's file holds for the name it will become: data pads, and pads for its record."""

    name: str
    pads: set[int] = field(default_factory=set)
    records: set[int] = field(default_factory=set)


@value(frozen=True, slots=True)
class Reserve:
    """Free or new pads become the owner's."""

    owner: str
    name: str
    pads: tuple[int, ...]
    records: tuple[int, ...]


@value(frozen=True, slots=True)
class Hold:
    """The owner gets a reference on every pad of the current version of `name`, to adopt those it needs."""

    owner: str
    name: str


@value(frozen=True, slots=True)
class Retake:
    """Pads that are free, or of the current version of `name`, are the owner's again (the index was rebuilt)."""

    owner: str
    name: str
    pads: tuple[int, ...]


@value(frozen=True, slots=True)
class Drop:
    """The owner gives up these data pads and goes on."""

    owner: str
    pads: tuple[int, ...]


@value(frozen=True, slots=True)
class Release:
    """The owner gives up everything and is forgotten."""

    owner: str


@value(frozen=True, slots=True)
class Commit:
    """`version` becomes what `name` is; the owner is forgotten, and so is what only the old version held."""

    owner: str
    name: str
    version: Version


@value(frozen=True, slots=True)
class Remove:
    names: tuple[str, ...]


@value(frozen=True, slots=True)
class Wiped:
    """Stale pads hold no record any more: they are free."""

    pads: tuple[int, ...]


Op: TypeAlias = Reserve | Hold | Retake | Drop | Release | Commit | Remove | Wiped


@dataclass(slots=True, kw_only=True)
class State:
    """The folded index. `seq` is the number of the last operation, `free` is ordered: the pad freed last is the first
    to be taken. Only `fold` changes it."""

    seq: int = 0
    next: int = 0
    names: dict[str, Version] = field(default_factory=dict)
    owners: dict[str, Owner] = field(default_factory=dict)
    free: dict[int, None] = field(default_factory=dict)
    stale: dict[int, None] = field(default_factory=dict)
    _references: dict[int, int] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for version in self.names.values():
            self._refer(number for number, _ in version.pads)
        for owner in self.owners.values():
            self._refer(owner.pads)

    def choose(self, count: int) -> tuple[int, ...]:
        """The pads that the next reservation takes: free ones first, then new ones. Changes nothing."""
        free = tuple(islice(reversed(self.free), count))
        return free + tuple(range(self.next, self.next + count - len(free)))

    def exclusive(self, owner: str, number: int) -> bool:
        """Whether the owner holds this data pad and nobody else does: only then may it be written."""
        held = self.owners.get(owner)
        return held is not None and number in held.pads and self._references.get(number) == 1

    def fold(self, op: Op) -> None:
        """Apply one operation. Raises `ValueError` or `KeyError` where it contradicts the state (a damaged index)."""
        match op:
            case Reserve():
                self._reserve(op)
            case Hold():
                self._join(self._owner(op.owner, op.name), (number for number, _ in self.names[op.name].pads))
            case Retake():
                self._retake(op)
            case Drop():
                self.owners[op.owner].pads.difference_update(op.pads)
                self._unrefer(op.pads)
            case Release():
                self._forget(self.owners.pop(op.owner))
            case Commit():
                self._commit(op)
            case Remove():
                for name in op.names:
                    self._retire(self.names.pop(name))
            case Wiped():
                for number in op.pads:
                    del self.stale[number]
                    self.free[number] = None
        self.seq += 1

    def _reserve(self, op: Reserve) -> None:
        for number in (*op.pads, *op.records):
            self._take(number)
        owner = self._owner(op.owner, op.name)
        owner.pads.update(op.pads)
        owner.records.update(op.records)
        self._refer(op.pads)

    def _retake(self, op: Retake) -> None:
        for number in op.pads:
            if number not in self._references:
                self._take(number)
        self._join(self._owner(op.owner, op.name), op.pads)

    def _commit(self, op: Commit) -> None:
        owner, old = self.owners.pop(op.owner), self.names.get(op.name)
        if not owner.records.issuperset(op.version.record) or any(n not in owner.pads for n, _ in op.version.pads):
            raise ValueError("a pad of the version is not the owner's")
        owner.records.difference_update(op.version.record)
        self._refer(number for number, _ in op.version.pads)
        self._forget(owner)
        self.names[op.name] = op.version
        if old:
            self._retire(old)

    def _forget(self, owner: Owner) -> None:
        self._unrefer(owner.pads)
        self.stale.update(dict.fromkeys(owner.records))

    def _retire(self, version: Version) -> None:
        self._unrefer(number for number, _ in version.pads)
        self.stale.update(dict.fromkeys(version.record))

    def _owner(self, owner: str, name: str) -> Owner:
        return self.owners.setdefault(owner, Owner(name))

    def _join(self, owner: Owner, numbers: Iterable[int]) -> None:
        new = [number for number in numbers if number not in owner.pads]
        owner.pads.update(new)
        self._refer(new)

    def _take(self, number: int) -> None:
        """Take a pad that is free or new; new ones that are jumped over become free."""
        if number >= self.next:
            self.free.update(dict.fromkeys(range(self.next, number)))
            self.next = number + 1
            return
        last, _ = self.free.popitem()  # from the end, as reservations go, this is cheap; `del` there is not
        if last != number:
            self.free[last] = None
            del self.free[number]

    def _refer(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._references[number] = self._references.get(number, 0) + 1

    def _unrefer(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            left = self._references[number] - 1
            if left:
                self._references[number] = left
            else:
                del self._references[number]
                self.free[number] = None
