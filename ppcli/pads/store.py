"""One open pad store: every decision about which pad holds what, for whom, and when it is free again.

An owner is a job's file (`job/key`). Its pads are in the index before anyone else hears of them. A version becomes
visible by one operation, after its record is durable; that same operation releases what the old version held.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ppcli.errors import SessionLost, other_content
from ppcli.pads import record, recover
from ppcli.pads.header import Kind, Stamp
from ppcli.pads.identity import Identity
from ppcli.pads.index import Commit, Drop, Hold, Owner, Release, Remove, Reserve, Retake, State, Version, Wiped
from ppcli.pads.key import UserKey
from ppcli.pads.ledger import Ledger
from ppcli.pads.medium import Bytes, PadFiles
from ppcli.pads.proof import Proof


@dataclass(frozen=True, slots=True)
class Claim:
    """A pad that a job believes to be its own, and what its header says about that."""

    number: int
    state: Proof


class PadStore:
    """The pads of one store and their index. All methods may be called from several threads at once."""

    def __init__(self, root: Path, found: Identity, user_key: UserKey) -> None:
        self.root = root
        self.identity = found
        self.pads = PadFiles(root, found, user_key)
        self.rotten: set[int] = set()
        """Pads whose payload was found damaged: not to be adopted."""
        self._ledger = Ledger(root, lambda old: recover.rebuild(root, self.pads, old))

    @property
    def set_aside(self) -> Sequence[Path]:
        """Damaged index files that were replaced since this store was opened."""
        return self._ledger.set_aside

    def find(self, name: str) -> Version | None:
        with self._looking() as state:
            return state.names.get(name)

    def versions(self, prefix: str) -> list[tuple[str, Version]]:
        """The names that start with `prefix`, sorted."""
        with self._looking() as state:
            found = [(name, version) for name, version in state.names.items() if name.startswith(prefix)]
        return sorted(found, key=lambda pair: pair[0])

    def owners(self) -> list[tuple[str, str, int]]:
        """Owner, name and number of pads of everything that was begun and is not complete."""
        with self._looking() as state:
            return [(key, owner.name, len(owner.pads)) for key, owner in sorted(state.owners.items())]

    def reserve(self, owner: str, name: str, count: int, chunks: int) -> tuple[int, ...]:
        """Pads for `count` chunks. The first call for a file of `chunks` chunks takes those of its record as well."""
        with self._changing() as state:
            held = state.owners.get(owner)
            records = 0 if held and held.records else record.expected_pads(name, chunks, self.identity.pad_size)
            pads = state.choose(count + records)
            self._ledger.record(Reserve(owner, name, pads[:count], pads[count:]))
        return pads[:count]

    def may_write(self, owner: str, number: int) -> bool:
        """Whether a pad is the owner's alone, as of the last look at the index where that said so."""
        if self._ledger.state.exclusive(owner, number):
            return True
        with self._looking() as state:
            return state.exclusive(owner, number)

    def adoptable(self, owner: str, name: str, chunk: int, number: int) -> int | None:
        """The counter that a pad has in the current version of `name`, as its chunk `chunk`; None where it is not that.
        The owner has a durable reference then: the first call takes one on every pad of the version."""
        held = self._ledger.state.owners.get(owner)
        if held is None or number not in held.pads:
            with self._changing() as state:
                if _counter(state, name, chunk, number) is None:
                    return None
                self._ledger.record(Hold(owner, name))
        return _counter(self._ledger.state, name, chunk, number)

    def settle(self, owner: str, name: str, claims: Sequence[Claim]) -> set[int]:
        """Make the owner hold what it claims and nothing else; gives back the claimed numbers that it holds. Pads that
        a rebuilt index does not know as the owner's are taken back where nobody else has them."""
        claimed = {claim.number for claim in claims}
        with self._changing() as state:
            held = state.owners.get(owner, Owner(name)).pads
            unknown = [claim for claim in claims if claim.number not in held]
            if back := tuple(_takeable(state, name, unknown)):
                self._ledger.record(Retake(owner, name, back))
                held = state.owners[owner].pads
            if surplus := tuple(held - claimed):
                self._ledger.record(Drop(owner, surplus))
            return claimed & held

    def release(self, owner: str) -> None:
        """Free what an owner holds. Repeatable."""
        with self._looking() as state:
            if owner not in state.owners:  # nobody else makes it one: the job is locked
                return
        with self._changing() as state:
            self._release(state, owner)

    def committed(self, owner: str, name: str, session_id: str) -> Version | None:
        """The version of `name`, if this session made it. What a survey took back before that was known is freed."""
        version = self.find(name)
        if version is None or version.owner != session_id:
            return None
        self.release(owner)
        return version

    def commit(self, owner: str, name: str, draft: Version, *, immutable: bool) -> Version:
        """Make `draft` what `name` is; its version number and record pads are decided here. Gives back what is there
        where the same session did it before. Raises `SessionLost` where a pad is not the owner's, `Rejected` (reason
        `exists`) where `immutable` forbids it."""
        with self._changing() as state:
            old = state.names.get(name)
            if old and old.owner == draft.owner:
                self._release(state, owner)
                return old
            held = state.owners.get(owner, Owner(name))
            if any(number not in held.pads for number, _ in draft.pads):
                raise SessionLost("the index does not know its pads any more")
            if old and immutable and (old.digest is None or old.digest != draft.digest):
                raise other_content(name)
            version = max(time.time_ns(), old.version + 1 if old else 0)
            done = self._write_record(state, owner, name, draft, version)
            self._ledger.record(Commit(owner, name, done))
            self._wipe(state)
            return done

    def remove(self, names: Sequence[str]) -> list[str]:
        """Remove these names and overwrite their records; gives back those that were there."""
        with self._changing() as state:
            there = [name for name in dict.fromkeys(names) if name in state.names]
            if there:
                self._ledger.record(Remove(tuple(there)))
                self._wipe(state)
            return there

    def recover(self) -> int:
        """Make the index again from the pads; gives the number of names found."""
        with self._ledger.transaction():
            self._ledger.start_over()
            self._wipe(self._ledger.state)
            return len(self._ledger.state.names)

    def close(self) -> None:
        self._ledger.close()

    @contextmanager
    def _looking(self) -> Iterator[State]:
        """The state for reading; what a process before us had no time for is finished first."""
        with self._ledger.look() as state:
            if not state.stale:
                yield state
                return
        with self._changing() as state:
            yield state

    @contextmanager
    def _changing(self) -> Iterator[State]:
        """A transaction, with no stale pads left by others."""
        with self._ledger.transaction() as state:
            self._wipe(state)
            yield state

    def _release(self, state: State, owner: str) -> None:
        if owner in state.owners:
            self._ledger.record(Release(owner))
            self._wipe(state)

    def _wipe(self, state: State) -> None:
        """Free the stale pads. Only under the lock: a pad that is free may be somebody's at once."""
        if state.stale:
            stale = tuple(state.stale)
            self.pads.wipe(stale)
            self._ledger.record(Wiped(stale))

    def _write_record(self, state: State, owner: str, name: str, draft: Version, version: int) -> Version:
        """Write the record pads of a version, taking more pads where those of the owner are too few."""
        numbered = replace(draft, version=version)
        parts = record.encode(name, numbered, self.identity.pad_size)
        held = state.owners.get(owner)
        missing = len(parts) - (len(held.records) if held else 0)
        if missing > 0:
            self._ledger.record(Reserve(owner, name, (), state.choose(missing)))
        numbers = tuple(sorted(state.owners[owner].records))[: len(parts)]
        for index, (number, part) in enumerate(zip(numbers, parts, strict=True)):
            self.pads.write(number, Stamp(Kind.RECORD, bytes.fromhex(draft.owner), index), Bytes(part))
        return replace(numbered, record=numbers)


def _counter(state: State, name: str, chunk: int, number: int) -> int | None:
    version = state.names.get(name)
    if version is None or chunk >= len(version.pads):
        return None
    found, counter = version.pads[chunk]
    return counter if found == number else None


def _takeable(state: State, name: str, claims: Sequence[Claim]) -> set[int]:
    """The claimed numbers that may be the owner's though the index does not say so: free, or not given out yet, or,
    with the right content, a pad of the version that is being replaced."""
    end = state.next + recover.GAP
    current = state.names.get(name)
    of_name = {number for number, _ in current.pads} if current else set()
    return {
        claim.number
        for claim in claims
        if (claim.state is not Proof.WRONG and (claim.number in state.free or state.next <= claim.number < end))
        or (claim.state is Proof.CONTENT and claim.number in of_name)
    }
