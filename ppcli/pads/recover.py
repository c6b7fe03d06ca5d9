"""The index, made again from the pads and the user key alone.

The numbers are walked from 0: a pad is known by its address. The headers say which pads hold records, the records say
which versions there were, and the counters in a record say whether its pads still are what they were then. Of each
name the newest such version wins. Headers of data alone prove no version.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import xxhash

from ppcli.pads import record
from ppcli.pads.header import Kind
from ppcli.pads.index import Owner, State, Version
from ppcli.pads.medium import Found, Medium


def rebuild(pads: Medium, old: State | None, seq: int = 0) -> State:
    """The index of a store. Owners cannot be known from the pads; where `old` is given they keep what they held. Its
    numbering goes on behind that of `old`, and behind `seq`. Raises what the medium does."""
    found = pads.walk()
    return assemble(newest(_versions(pads, found), found), found, old, seq)


def newest(versions: Iterable[tuple[str, Version]], found: Found) -> dict[str, Version]:
    """Of each name, the newest version whose pads all carry the counters of its record."""
    names: dict[str, Version] = {}
    for name, version in versions:
        best = names.get(name)
        if (best is None or best.version < version.version) and _intact(version, found):
            names[name] = version
    return names


def assemble(names: Mapping[str, Version], found: Found, old: State | None, seq: int = 0) -> State:
    """The state of these versions. Pads of records that did not win are stale, the rest is free; pads that were never
    written are taken first, as what the others hold may still be wanted by a job that comes back for it."""
    owners = (
        {key: Owner(owner.name, set(owner.pads), set(owner.records)) for key, owner in old.owners.items()}
        if old
        else {}
    )
    records = {number for version in names.values() for number in version.record}
    used = {number for version in names.values() for number, _ in version.pads} | records
    for owner in owners.values():
        owner.records -= used
        owner.pads -= records
        used |= owner.pads | owner.records
    following = max([*found, *used], default=-1) + 1
    rest = [number for number in range(following) if number not in used]
    stale = [number for number in rest if (head := found.get(number)) and head.stamp.kind is Kind.RECORD]
    written = [number for number in rest if number in found]
    free = dict.fromkeys(written + [number for number in rest if number not in found])
    for number in stale:
        del free[number]
    seq = max(seq, old.seq if old else 0)
    return State(seq=seq, next=following, names=dict(names), owners=owners, free=free, stale=dict.fromkeys(stale))


def _intact(version: Version, found: Found) -> bool:
    return all((head := found.get(number)) and head.counter == counter for number, counter in version.pads)


@dataclass(frozen=True, slots=True)
class _Part:
    number: int
    data: bytes


def _versions(pads: Medium, found: Found) -> Iterator[tuple[str, Version]]:
    """Every version whose record is there whole."""
    groups: defaultdict[tuple[bytes, record.Prefix], dict[int, _Part]] = defaultdict(dict)
    records = {number: head for number, head in found.items() if head and head.stamp.kind is Kind.RECORD}
    for number, data in pads.payloads({number: head.length for number, head in records.items()}):
        head, prefix = records[number], record.prefix(data)
        if prefix and xxhash.xxh3_128_digest(data) == head.digest:
            groups[head.stamp.owner, prefix][head.stamp.chunk] = _Part(number, data)
    for (owner, prefix), parts in groups.items():
        ordered = [parts[index] for index in sorted(parts)]
        if sorted(parts) == list(range(prefix.parts)):
            decoded = record.decode([part.data for part in ordered], owner.hex(), [part.number for part in ordered])
            if decoded:
                yield decoded
