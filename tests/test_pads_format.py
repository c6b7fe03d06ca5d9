"""The fixed encodings: keys, addresses, headers, records, index lines. What is on disk today must stay readable."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppcli import journal
from ppcli.errors import SessionLost
from ppcli.pads import header, record, wire
from ppcli.pads.header import Header, Kind, Stamp
from ppcli.pads.index import Commit, Drop, Hold, Op, Owner, Release, Remove, Reserve, Retake, State, Version, Wiped
from ppcli.pads.key import UserKey
from ppcli.pads.recover import assemble, newest
from ppcli.targets import slots

KEY = UserKey(bytes(range(32)))
STORE = bytes(range(16))
HEAD = Header(STORE, 4 << 20, Stamp(Kind.DATA, b"o" * 16, 7), 1000, b"d" * 16, 12345)
VERSION = Version(99, "6f" * 16, ((3, 11), (4, 12)), (5,), 100, "sha256:00", 1.5, 64)


def test_secret_and_address_as_the_contract_defines_them() -> None:
    pad = KEY.pad(STORE, 258)
    assert pad.secret == hmac.digest(bytes(range(32)), b"ppcli-pad/1" + STORE + b"\0\0\0\0\0\0\1\2", "sha256")
    assert pad.address == hashlib.sha256(pad.secret).hexdigest()


def test_vectors() -> None:
    assert KEY.pad(STORE, 0).address == "d2d2ad756f200b0004729a78153db202e84e1f4788963c9164c126078ac057eb"
    assert KEY.check(STORE, 4 << 20) == "21075358e9536654bf1c82604d2222e74d8c1c58f1a17e90d12da719eb8d63a0"
    assert (
        hashlib.sha256(header.pack(HEAD, b"s" * 32)).hexdigest()
        == "f051c64fe58fb5805ecd3b30d8b713ef19c4570829c9b55f7abab96f6ac801b2"
    )


def test_keys_and_pads_show_nothing() -> None:
    assert KEY.value.hex() not in repr(KEY)
    assert KEY.pad(STORE, 1).address not in repr(KEY.pad(STORE, 1))


def test_a_header_is_read_with_its_own_secret_only() -> None:
    raw = header.pack(HEAD, b"s" * 32)
    assert len(raw) == header.SIZE
    assert header.unpack(raw, b"s" * 32) == HEAD
    assert header.unpack(raw, b"t" * 32) is None
    assert header.claim(raw) == (STORE, 4 << 20)


@given(st.integers(0, header.SIZE * 8 - 1))
def test_any_flipped_bit_of_a_header_is_noticed(bit: int) -> None:
    raw = bytearray(header.pack(HEAD, b"s" * 32))
    raw[bit // 8] ^= 1 << bit % 8
    assert header.unpack(bytes(raw), b"s" * 32) is None


@given(st.binary(max_size=2 * header.SIZE))
def test_other_bytes_are_no_header(raw: bytes) -> None:
    assert header.unpack(raw, b"s" * 32) is None


@pytest.mark.parametrize("pad_size", [64, 200, 4 << 20])
@pytest.mark.parametrize("chunks", [1, 500])
def test_a_record_is_joined_from_its_parts(pad_size: int, chunks: int) -> None:
    version = replace(VERSION, size=64 * chunks, pads=tuple((n, 10**18 + n * 777) for n in range(chunks)))
    parts = record.encode("ä/name", version, pad_size)
    assert all(len(part) <= pad_size for part in parts)
    assert len(parts) <= record.expected_pads("ä/name", chunks, pad_size)
    assert {record.prefix(part) for part in parts} == {record.Prefix(99, len(parts))}
    numbers = tuple(range(70, 70 + len(parts)))
    assert record.decode(parts, VERSION.owner, numbers) == ("ä/name", replace(version, record=numbers))
    assert record.decode([*parts[:-1], parts[-1][:-1]], VERSION.owner, numbers) is None


@pytest.mark.parametrize(
    "op",
    [
        Reserve("j/0", "näme", (1, 2), (3,)),
        Hold("j/0", "x"),
        Retake("j/0", "x", (4,)),
        Drop("j/0", (1,)),
        Release("j/0"),
        Commit("j/0", "x", VERSION),
        Remove(("x", "y")),
        Wiped((5,)),
    ],
    ids=lambda op: type(op).__name__,
)
def test_operations_survive_the_journal(op: Op) -> None:
    (read,) = journal.parse(wire.encode(7, op)).records
    assert (read["seq"], wire.decode(read)) == (7, op)


def test_a_state_survives_its_snapshot() -> None:
    state = State(seq=5, next=9, names={"x": VERSION}, owners={"j/0": Owner("x", {3, 6}, {7})})
    state.free, state.stale = {8: None, 0: None, 1: None}, {2: None}
    data = wire.encode_state(state)
    assert wire.decode_state(data) == state
    assert list(wire.decode_state(data).free) == [8, 0, 1]  # type: ignore[union-attr]
    assert wire.decode_state(data.replace(b'"next":9', b'"next":8')) is None
    assert wire.decode_state(data[:-5]) is None


@pytest.mark.parametrize(
    "op",
    [
        Reserve("j/1", "y", (3,), ()),
        Hold("j/1", "y"),
        Drop("j/1", (3,)),
        Drop("j/0", (9,)),
        Release("j/1"),
        Commit("j/0", "x", replace(VERSION, pads=((8, 1),), record=())),
        Commit("j/0", "x", replace(VERSION, pads=(), record=(8,))),
        Remove(("y",)),
        Wiped((3,)),
    ],
    ids=lambda op: type(op).__name__,
)
def test_operations_that_contradict_the_state_are_refused(op: Op) -> None:
    state = State(next=9, names={"x": VERSION}, owners={"j/0": Owner("x", {3, 6})}, free={8: None})
    with pytest.raises((KeyError, ValueError)):
        state.fold(op)


def test_the_pad_freed_last_is_taken_first() -> None:
    state = State(next=4, free=dict.fromkeys([0, 2, 3]))
    assert state.choose(2) == (3, 2)
    assert state.choose(5) == (3, 2, 0, 4, 5)
    state.fold(Reserve("j/0", "x", (3, 2, 0, 4), (5,)))
    assert (state.next, state.free) == (6, {})


def test_recovery_takes_the_newest_version_whose_counters_match() -> None:
    def head(number: int, counter: int, kind: Kind = Kind.DATA) -> Header:
        return replace(HEAD, stamp=Stamp(kind, b"o" * 16, number), counter=counter)

    found = {0: head(0, 10), 1: head(1, 21), 2: None, 4: head(4, 5, Kind.RECORD), 5: head(5, 6, Kind.RECORD)}
    v1 = replace(VERSION, version=1, pads=((0, 10),), record=(4,))
    v2 = replace(VERSION, version=2, pads=((0, 10), (1, 21)), record=(5,))
    v3 = replace(VERSION, version=3, pads=((1, 22),), record=(6,))
    names = newest([("x", v3), ("x", v2), ("x", v1)], found)
    assert names == {"x": v2}
    state = assemble(names, found, None)
    assert (state.next, list(state.stale)) == (6, [4])
    assert list(state.free) == [2, 3], "never written pads are taken first"
    kept = assemble(names, found, State(owners={"j/0": Owner("x", {1, 3, 5}, {5, 7})}))
    assert kept.owners == {"j/0": Owner("x", {1, 3}, {7})}
    assert (kept.next, list(kept.free), list(kept.stale)) == (8, [2, 6], [4])


@pytest.mark.parametrize("number", ["7", 1.0, -1, 1 << 63, None, True])
def test_what_is_no_number_of_a_pad_is_damage(number: object) -> None:
    """Whatever the checksum of its line says."""
    with pytest.raises(ValueError, match=r"pads|unexpected"):
        wire.decode({"seq": 1, "op": "wiped", "pads": [number]})
    kept = {"seq": 1, "format": wire.FORMAT, "next": 9, "names": {}, "owners": {}, "free": [number], "stale": []}
    with pytest.raises(ValueError, match="pads"):
        wire.decode_state(journal.encode(json.dumps(kept)[:-1]))
    with pytest.raises(SessionLost):
        slots.number(number)  # type: ignore[arg-type]
