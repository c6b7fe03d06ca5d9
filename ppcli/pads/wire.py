"""Index operations and states as JSON: the lines of `index.jsonl`, and `index.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, cast

from ppcli import journal, records
from ppcli.pads.index import Commit, Drop, Hold, Op, Owner, Release, Remove, Reserve, Retake, State, Version, Wiped

FORMAT = "ppcli-pads-index/1"

_OPS: Mapping[str, type[Any]] = {
    op.__name__.lower(): op for op in (Reserve, Hold, Retake, Drop, Release, Commit, Remove, Wiped)
}
_NUMBERS = range(1 << 63)
"""What a pad's number or counter may be."""


def encode(seq: int, op: Op) -> bytes:
    """The journal line of an operation."""
    values = {field.name: getattr(op, field.name) for field in fields(op)}
    if isinstance(op, Commit):
        values["version"] = _version_to_json(op.version)
    return _line({"seq": seq, "op": type(op).__name__.lower(), **values})


def decode(record: Mapping[str, Any]) -> Op:
    """The operation of a journal record. Raises `KeyError`, `TypeError` or `ValueError` where it is none."""
    op = cast(Op, records.build(_OPS[record["op"]], record))
    if isinstance(op, Commit):
        _sound(op.version)
    elif not isinstance(op, Remove):
        _numbers([*getattr(op, "pads", ()), *getattr(op, "records", ())])
    return op


def encode_state(state: State) -> bytes:
    """`index.json`: one line with its own checksum, as in a journal."""
    return _line(
        {
            "seq": state.seq,
            "format": FORMAT,
            "next": state.next,
            "names": {name: _version_to_json(version) for name, version in state.names.items()},
            "owners": {
                key: {"name": owner.name, "pads": list(owner.pads), "records": list(owner.records)}
                for key, owner in state.owners.items()
            },
            "free": list(state.free),
            "stale": list(state.stale),
        }
    )


def decode_state(data: bytes) -> State | None:
    """The state in an `index.json`, None where it is damaged."""
    found = journal.parse(data).records
    if len(found) != 1 or found[0].get("format") != FORMAT:
        return None
    (record,) = found
    owners = {
        key: Owner(str(owner["name"]), set(_numbers(owner["pads"])), set(_numbers(owner["records"])))
        for key, owner in record["owners"].items()
    }
    names = {name: _sound(records.build(Version, version)) for name, version in record["names"].items()}
    free, stale = dict.fromkeys(_numbers(record["free"])), dict.fromkeys(_numbers(record["stale"]))
    seq, following = _numbers([record["seq"], record["next"]])
    return State(seq=seq, next=following, names=names, owners=owners, free=free, stale=stale)


def _line(values: Mapping[str, Any]) -> bytes:
    return journal.encode(json.dumps(values, separators=(",", ":"))[:-1])


def _version_to_json(version: Version) -> dict[str, Any]:
    return {field.name: getattr(version, field.name) for field in fields(version)}


def _sound(version: Version) -> Version:
    """Raises `ValueError` where its numbers are none."""
    if any(len(pair) != 2 for pair in version.pads):
        raise ValueError("a pad without its counter")
    _numbers([*version.record, *(number for pair in version.pads for number in pair)])
    return version


def _numbers(values: Iterable[Any]) -> list[int]:
    """Raises `ValueError` where one is no number that a pad can have."""
    numbers = list(values)
    if not all(type(one) is int and one in _NUMBERS for one in numbers):
        raise ValueError("not the numbers of pads")
    return numbers
