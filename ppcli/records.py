"""Dataclasses to and from JSON objects, every field checked against its annotation.

What comes from a disk or a server is never trusted: a missing or ill-typed field is a `ValueError`, unknown keys are
ignored. Known annotations: int, float, str, bool, None, enums of str, unions, `tuple[X, ...]`, `list[X]`,
`Mapping[str, X]` and dataclasses.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from ppcli.garbage import without_gc

T = TypeVar("T")

dumps = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode
"""JSON text without spaces, ASCII only (so that names with undecodable bytes survive)."""


def loads(data: str | bytes) -> Any:
    """The value of a JSON text. Raises `ValueError`, also for one that is nested too deeply: at the bottom of it
    finalizers would fail, and Python would say so on stderr, so that no garbage is collected meanwhile."""
    with without_gc():
        try:
            return json.loads(data)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def text(value: Any) -> str:
    """The JSON text of dataclasses (fields in order), mappings, sequences and plain values, however they are nested."""
    return _WRITERS[type(value)](value)


def names(cls: Any) -> tuple[str, ...]:
    """The field names of a dataclass, in order."""
    return tuple(f.name for f in fields(cls))


@cache
def writer(cls: Any, words: tuple[str, ...] | None = None) -> Callable[[Any], str]:
    """Writes these fields (None: all) of a dataclass as the members of a JSON object, without its braces. Those that
    the class calls `RARE` come last, and only where they have not their default. Compiled for the class, as
    `dataclasses` does with constructors: this is where a journal's time goes."""
    hints, rare = get_type_hints(cls), getattr(cls, "RARE", ())
    chosen = words or names(cls)
    usual = [word for word in chosen if word not in rare]
    template = ",".join(f'"{word}":%s' for word in usual)
    values = "".join(_expression(hints[word]).format(f"value.{word}") + "," for word in usual)
    code, scope = f"{template!r} % ({values})", dict(_SCOPE)
    for field in fields(cls):
        if field.name in chosen and field.name in rare:
            here = f"value.{field.name}"
            scope[f"default_{field.name}"] = _default(cls, field)()
            told = f"',\"{field.name}\":' + str({_expression(hints[field.name]).format(here)})"
            code += f" + ('' if {here} == default_{field.name} else {told})"
    return cast(Callable[[Any], str], eval(f"lambda value: {code}", scope))


def _expression(hint: Any) -> str:
    """What gives the JSON text of a value with this annotation."""
    if isinstance(hint, type) and issubclass(hint, str):
        return "quote({0})"
    return _EXPRESSIONS.get(hint, "writers[type({0})]({0})")


_EXPRESSIONS: Mapping[Any, str] = {
    int: "{0}",
    int | None: '("null" if {0} is None else {0})',
    str | None: '("null" if {0} is None else quote({0}))',
    bool: '("true" if {0} else "false")',
}


@cache
def builder(cls: type[T]) -> Callable[[Any], T]:
    """Makes the dataclass `cls` from a JSON object; raises `ValueError`. Compiled as `writer` is."""
    scope: dict[str, Any] = {"cls": cls}
    lines = ["def build(_json):", "  if type(_json) is not dict: raise ValueError(f'{cls.__name__}: not an object')"]
    arguments = []
    for field, kinds, check in _checks(cast(Any, cls)):
        name, plain = field.name, field.default is not MISSING
        default = field.default if plain else _default(cls, field)
        scope |= {f"kinds_{name}": kinds, f"check_{name}": check, f"default_{name}": default}
        lines += [
            f"  if {name!r} not in _json: {name} = default_{name}{'' if plain else '()'}",
            f"  elif type({name} := _json[{name!r}]) not in kinds_{name}: {name} = check_{name}({name})",
        ]
        arguments.append(f"{name}={name}" if field.kw_only else name)
    lines.append(f"  return cls({', '.join(arguments)})")
    exec("\n".join(lines), scope)
    return cast(Callable[[Any], T], scope["build"])


def build(cls: type[T], record: Any) -> T:
    """The dataclass `cls` from a JSON object. Raises `ValueError`."""
    return cast(T, builder(cast(Any, cls))(record))


class _Writers(dict[type, Callable[[Any], str]]):
    """What writes the values of a type, worked out once a type: this is where a journal's time goes."""

    def __missing__(self, cls: type) -> Callable[[Any], str]:
        self[cls] = found = _writer_for(cls)
        return found


def _writer_for(cls: type) -> Callable[[Any], str]:
    if is_dataclass(cls):
        inner = writer(cls)
        return lambda value: f"{{{inner(value)}}}"
    if issubclass(cls, str):
        return json.encoder.encode_basestring_ascii
    if issubclass(cls, list | tuple):
        return lambda value: f"[{','.join([_WRITERS[type(one)](one) for one in value])}]"
    if issubclass(cls, Mapping):
        return lambda value: f"{{{','.join([f'{dumps(key)}:{text(one)}' for key, one in value.items()])}}}"
    return dumps


_WRITERS = _Writers(
    {int: int.__repr__, types.NoneType: lambda _: "null", bool: lambda value: "true" if value else "false"}
)


_SCOPE = {"quote": json.encoder.encode_basestring_ascii, "writers": _WRITERS}


def _checks(cls: Any) -> Iterator[tuple[Field[Any], frozenset[type], Callable[[Any], Any]]]:
    """For each field: the types that are taken as they are, and the check for all others."""
    hints = get_type_hints(cls)
    for field in fields(cls):
        if field.init:
            yield field, _kinds(hints[field.name]), _check(hints[field.name])


def _default(cls: Any, field: Field[Any]) -> Callable[[], Any]:
    if field.default_factory is not MISSING:
        return field.default_factory
    if field.default is not MISSING:
        return lambda: field.default

    def missing() -> Any:
        raise ValueError(f"{cls.__name__}: {field.name} is missing")

    return missing


def _kinds(hint: Any) -> frozenset[type]:
    if get_origin(hint) in (Union, types.UnionType):
        return frozenset().union(*(_kinds(arg) for arg in get_args(hint)))
    if hint is float:
        return frozenset({float, int})
    return frozenset({hint} if hint in (int, str, bool, types.NoneType) else ())


def _check(hint: Any) -> Callable[[Any], Any]:
    """Converts a value that is not of one of the `_kinds` of the annotation, or raises `ValueError`."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        checks = tuple(_check(arg) for arg in args if not _kinds(arg))
        return checks[0] if len(checks) == 1 else _either(checks)
    if origin in (tuple, list):
        return _sequence(origin, _item(args[0]))
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(_item(args[1]))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _member({one.value: one for one in hint})
    if isinstance(hint, type) and is_dataclass(hint):
        return builder(hint)
    return _refuse


def _item(hint: Any) -> Callable[[Any], Any]:
    kinds, check = _kinds(hint), _check(hint)
    return (lambda value: value if type(value) in kinds else check(value)) if kinds else check


def _refuse(value: Any) -> Any:
    raise ValueError(f"unexpected {type(value).__name__}")


def _member(members: Mapping[str, Enum]) -> Callable[[Any], Any]:
    def member(value: Any) -> Any:
        try:
            return members[value]
        except (KeyError, TypeError):  # no such word, or no word at all
            return _refuse(value)

    return member


def _either(checks: tuple[Callable[[Any], Any], ...]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        for one in checks:
            try:
                return one(value)
            except ValueError:
                continue
        return _refuse(value)

    return check


def _sequence(kind: type[Any], item: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, list):
            raise ValueError(f"{type(value).__name__} is no list")
        return kind([item(one) for one in value])

    return check


def _mapping(item: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"{value!r} is no object")
        return {key: item(one) for key, one in value.items()}

    return check
