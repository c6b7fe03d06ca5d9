"""One open pad store: every decision about which pad holds what, for whom, and when it is free again.

An owner is a job's file (`job/key`). Its pads are in the index before anyone else hears of them. A version becomes
visible by one operation, after its record is durable; that same operation releases what the old version held.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

from ppcli.errors import PpcliError, SessionLost, StepFailure, other_content
from ppcli.pads import record, recover
from ppcli.pads.header import Kind, Stamp
from ppcli.pads.identity import Identity
from ppcli.pads.index import Commit, Drop, Hold, Owner, Release, Remove, Reserve, Retake, State, Version, Wiped
from ppcli.pads.key import GAP
from ppcli.pads.ledger import Ledger
from ppcli.pads.medium import Bytes, Medium
from ppcli.pads.proof import Proof
from ppcli.values import value


@value(frozen=True, slots=True)
class Claim:
    """A pad that a job believes to be its own, and what its header says about that."""

    number: int
    state: Proof


class PadStore:
    """The pads of one store and their index. All methods may be called from several threads at once."""

    def __init__(self, root: Path, found: Identity, pads: Medium, seq: int = 0) -> None:
        """`root` holds the index, `pads` the pads. `seq`: how far the index had come at least, should it have to be
        made again."""
        self.root = root
        self.identity = found
        self.pads = pads
        self.rotten: set[int] = set()
        """Pads whose payload was found damaged: not to be adopted."""
        self._tidied = False
        self._ledger = Ledger(root, lambda old: recover.rebuild(pads, old, seq))

    @property
    def set_aside(self) -> Sequence[Path]:
        """Damaged index files that were replaced since this store was opened."""
        return self._ledger.set_aside

    @property
    def seq(self) -> int:
        """The number of the last operation of the index."""
        with self._ledger.look() as state:
            return state.seq

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

    def spare(self, count: int) -> int:
        """How many of the next `count` pads that are reserved will be ones that exist already: not every number that is
        free has a pad, as its reservation may have failed."""
        with self._looking() as state:
            numbers = tuple(islice(chain(reversed(state.free), state.stale), count))
        return len(self.pads.heads(numbers))

    def reserve(self, owner: str, name: str, count: int, chunks: int) -> tuple[int, ...]:
        """Pads for `count` chunks. The first call for a file of `chunks` chunks takes those of its record as well.
        They are in the index before the medium hears of them, and free again where it does not give them."""
        expected = record.expected_pads(name, chunks, self.identity.pad_size)
        with self._changing(count + expected) as state:
            held = state.owners.get(owner)
            records = 0 if held and held.records else expected
            pads = state.choose(count + records)
            self._ledger.record(Reserve(owner, name, pads[:count], pads[count:]))
            wanted, seq = (*pads[:count], *state.owners[owner].records), state.seq
        try:
            self.pads.reserve(wanted, seq)
        except (StepFailure, PpcliError):
            self._give_back(owner, pads[:count])
            raise
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
            if owner not in state.owners and not state.stale:  # nobody else makes it one: the job is locked
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
        while True:  # once more for every other version of the name that came in between
            with self._changing(1) as state:
                if done := self._done(state, owner, name, draft):
                    return done
                _check(state, owner, name, draft, immutable=immutable)
                numbered, parts, new = self._numbered(state, owner, name, draft)
                seq = state.seq
            if new:
                self.pads.reserve(new, seq)
            self._write_record(numbered, parts)
            with self._changing() as state:
                if done := self._done(state, owner, name, draft):
                    return done
                _check(state, owner, name, numbered, immutable=immutable)
                old = state.names.get(name)
                if old is None or old.version < numbered.version:
                    self._ledger.record(Commit(owner, name, numbered))
                    self._wipe(state)
                    return numbered

    def remove(self, names: Sequence[str]) -> list[str]:
        """Remove these names and overwrite their records; gives back those that were there."""
        with self._changing() as state:
            there = [name for name in dict.fromkeys(names) if name in state.names]
            if there:
                self._ledger.record(Remove(tuple(there)))
            self._wipe(state, all_of_it=True)
            return there

    def recover(self) -> int:
        """Make the index again from the pads; gives the number of names found."""
        with self._ledger.transaction():
            self._ledger.start_over()
            self._wipe(self._ledger.state, all_of_it=True)
            return len(self._ledger.state.names)

    def close(self) -> None:
        self._ledger.close()

    @contextmanager
    def _looking(self) -> Iterator[State]:
        """The state for reading; what a process before us had no time for is finished first, if that can be done."""
        with self._ledger.look() as state:
            if self._tidied or not state.stale:
                self._tidied = True
                yield state
                return
        with self._ledger.transaction() as state:
            self._tidied = True
            with suppress(StepFailure, PpcliError):  # on a full disk, say; whoever writes meets it again
                self._wipe(state, all_of_it=True)
            yield state

    @contextmanager
    def _changing(self, wanted: int = 0) -> Iterator[State]:
        """A transaction, in which `wanted` free pads are there if there are any to free."""
        with self._ledger.transaction() as state:
            self._wipe(state, all_of_it=len(state.free) < wanted)
            yield state

    def _release(self, state: State, owner: str) -> None:
        if owner in state.owners:
            self._ledger.record(Release(owner))
        self._wipe(state, all_of_it=True)

    def _wipe(self, state: State, *, all_of_it: bool = False) -> None:
        """Free the stale pads; a few may wait where the medium is slow. What a name or a job gave up must not wait: its
        record would be found again. Only under the lock: a pad that is free may be somebody's at once."""
        if len(state.stale) >= (1 if all_of_it else self.pads.wipe_at):
            stale = tuple(state.stale)
            self.pads.wipe(stale, state.seq)
            self._ledger.record(Wiped(stale))

    def _give_back(self, owner: str, numbers: tuple[int, ...]) -> None:
        with self._changing() as state:
            held = state.owners.get(owner)
            if back := tuple(number for number in reversed(numbers) if held and number in held.pads):
                self._ledger.record(Drop(owner, back))

    def _done(self, state: State, owner: str, name: str, draft: Version) -> Version | None:
        """The version that this session made of the name before."""
        old = state.names.get(name)
        if old is None or old.owner != draft.owner:
            return None
        self._release(state, owner)
        return old

    def _numbered(
        self, state: State, owner: str, name: str, draft: Version
    ) -> tuple[Version, list[bytes], tuple[int, ...]]:
        """The version with its number and record pads, the parts of its record, and the pads that had to be taken since
        those of the owner were too few."""
        old = state.names.get(name)
        numbered = replace(draft, version=max(time.time_ns(), old.version + 1 if old else 0))
        parts = record.encode(name, numbered, self.identity.pad_size)
        held = state.owners.get(owner)
        missing = len(parts) - (len(held.records) if held else 0)
        new = state.choose(missing) if missing > 0 else ()
        if new:
            self._ledger.record(Reserve(owner, name, (), new))
        numbers = tuple(sorted(state.owners[owner].records))[: len(parts)]
        return replace(numbered, record=numbers), parts, new

    def _write_record(self, version: Version, parts: Sequence[bytes]) -> None:
        for index, (number, part) in enumerate(zip(version.record, parts, strict=True)):
            self.pads.write(number, Stamp(Kind.RECORD, bytes.fromhex(version.owner), index), Bytes(part))


def _check(state: State, owner: str, name: str, draft: Version, *, immutable: bool) -> None:
    """Whether the owner may make this version of the name."""
    held = state.owners.get(owner, Owner(name))
    if any(number not in held.pads for number, _ in draft.pads) or not held.records.issuperset(draft.record):
        raise SessionLost("the index does not know its pads any more")
    old = state.names.get(name)
    if old and immutable and (old.digest is None or old.digest != draft.digest):
        raise other_content(name)


def _counter(state: State, name: str, chunk: int, number: int) -> int | None:
    version = state.names.get(name)
    if version is None or chunk >= len(version.pads):
        return None
    found, counter = version.pads[chunk]
    return counter if found == number else None


def _takeable(state: State, name: str, claims: Sequence[Claim]) -> set[int]:
    """The claimed numbers that may be the owner's though the index does not say so: free, or not given out yet, or,
    with the right content, a pad of the version that is being replaced."""
    end = state.next + GAP
    current = state.names.get(name)
    of_name = {number for number, _ in current.pads} if current else set()
    return {
        claim.number
        for claim in claims
        if (claim.state is not Proof.WRONG and (claim.number in state.free or state.next <= claim.number < end))
        or (claim.state is Proof.CONTENT and claim.number in of_name)
    }
