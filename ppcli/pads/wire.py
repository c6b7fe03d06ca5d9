"""Index operations and states as JSON: the lines of `index.jsonl`, and `index.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from ppcli import journal
from ppcli.pads.index import Commit, Drop, Hold, Op, Owner, Release, Remove, Reserve, Retake, State, Version, Wiped

FORMAT = "ppcli-pads-index/1"

_OPS: Mapping[str, Callable[..., Op]] = {
    op.__name__.lower(): op for op in (Reserve, Hold, Retake, Drop, Release, Remove, Wiped)
}


def encode(seq: int, op: Op) -> bytes:
    """The journal line of an operation."""
    values = {field.name: getattr(op, field.name) for field in fields(op)}
    if isinstance(op, Commit):
        values["version"] = _version_to_json(op.version)
    return _line({"seq": seq, "op": type(op).__name__.lower(), **values})


def decode(record: Mapping[str, Any]) -> Op:
    """The operation of a journal record. Raises `KeyError`, `TypeError` or `ValueError` where it is none."""
    values = {key: value for key, value in record.items() if key not in ("seq", "op")}
    if record["op"] == "commit":
        return Commit(values["owner"], values["name"], _version(values["version"]))
    frozen = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return _OPS[record["op"]](**frozen)


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
    records = journal.parse(data).records
    if len(records) != 1 or records[0].get("format") != FORMAT:
        return None
    (record,) = records
    owners = {
        key: Owner(owner["name"], set(owner["pads"]), set(owner["records"])) for key, owner in record["owners"].items()
    }
    names = {name: _version(version) for name, version in record["names"].items()}
    free, stale = dict.fromkeys(record["free"]), dict.fromkeys(record["stale"])
    return State(seq=record["seq"], next=record["next"], names=names, owners=owners, free=free, stale=stale)


def _line(values: Mapping[str, Any]) -> bytes:
    return journal.encode(json.dumps(values, separators=(",", ":"))[:-1])


def _version_to_json(version: Version) -> dict[str, Any]:
    return {field.name: getattr(version, field.name) for field in fields(version)}


def _version(values: Mapping[str, Any]) -> Version:
    pads = tuple((number, counter) for number, counter in values["pads"])
    return Version(**{**values, "pads": pads, "record": tuple(values["record"])})
