"""The index, made again from the pads and the user key alone.

The numbers are walked from 0: a pad is known by its address. The headers say which pads hold records, the records say
which versions there were, and the counters in a record say whether its pads still are what they were then. Of each
name the newest such version wins. Headers of data alone prove no version.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ppcli.errors import local_io
from ppcli.pads import header, identity, medium, record
from ppcli.pads.header import Header, Kind
from ppcli.pads.identity import Identity
from ppcli.pads.index import Owner, State, Version
from ppcli.pads.key import UserKey
from ppcli.pads.medium import PadFiles

GAP = 10_000
"""So many numbers in a row without a pad, and the walk is over."""

Found = Mapping[int, Header | None]
"""Every pad that exists, by number, with its header where that is authentic."""


def rebuild(root: Path, pads: PadFiles, old: State | None) -> State:
    """The index of a store. Owners cannot be known from the pads; where `old` is given they keep what they held. Raises
    `Local` where pads cannot be read."""
    addresses = {path.name for path in medium.files(root)}
    found = {number: pads.head(number) for number in _numbers(pads, addresses)}
    names = newest(_versions(pads, found), found)
    return assemble(names, found, old)


def newest(versions: Iterable[tuple[str, Version]], found: Found) -> dict[str, Version]:
    """Of each name, the newest version whose pads all carry the counters of its record."""
    names: dict[str, Version] = {}
    for name, version in versions:
        best = names.get(name)
        if (best is None or best.version < version.version) and _intact(version, found):
            names[name] = version
    return names


def assemble(names: Mapping[str, Version], found: Found, old: State | None) -> State:
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
    return State(next=following, names=dict(names), owners=owners, free=free, stale=dict.fromkeys(stale))


def identify(root: Path, key: UserKey) -> Identity | None:
    """The identity of a store whose `store.json` is lost, from any pad that this key made; None where there is none."""
    tried: set[tuple[bytes, int]] = set()
    for path in medium.files(root):
        with local_io("look through the pads"), path.open("rb") as file:
            claimed = header.claim(file.read(header.SIZE))
        if claimed and claimed not in tried:
            tried.add(claimed)
            made = identity.make(key, *claimed)
            if _proves(root, PadFiles(root, made, key)):
                return made
    return None


def _proves(root: Path, pads: PadFiles) -> bool:
    addresses = {path.name for path in medium.files(root)}
    return any(pads.head(number) for number in _numbers(pads, addresses))


def _numbers(pads: PadFiles, addresses: set[str]) -> Iterator[int]:
    """The numbers whose pads exist, in order."""
    left = len(addresses)
    number = last = 0
    while left and number - last <= GAP:
        if pads.address(number) in addresses:
            left, last = left - 1, number
            yield number
        number += 1


def _intact(version: Version, found: Found) -> bool:
    return all((head := found.get(number)) and head.counter == counter for number, counter in version.pads)


@dataclass(frozen=True, slots=True)
class _Part:
    number: int
    data: bytes


def _versions(pads: PadFiles, found: Found) -> Iterator[tuple[str, Version]]:
    """Every version whose record is there whole."""
    groups: defaultdict[tuple[bytes, record.Prefix], dict[int, _Part]] = defaultdict(dict)
    for number, head in found.items():
        if head and head.stamp.kind is Kind.RECORD:
            data = b"".join(bytes(piece) for piece in pads.payload(number, head.length))
            prefix = record.prefix(data)
            if prefix and pads.checksum(number, head.length) == head.digest.hex():
                groups[head.stamp.owner, prefix][head.stamp.chunk] = _Part(number, data)
    for (owner, prefix), parts in groups.items():
        ordered = [parts[index] for index in sorted(parts)]
        if sorted(parts) == list(range(prefix.parts)):
            decoded = record.decode([part.data for part in ordered], owner.hex(), [part.number for part in ordered])
            if decoded:
                yield decoded
