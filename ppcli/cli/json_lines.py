"""The JSON listener: one object per line on stdout, each flushed."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from ppcli.cli.streams import Stream
from ppcli.events import Event

_KEPT_WHEN_QUIET = frozenset(
    (
        *("warning", "job", "object", "incomplete", "job_finished", "result"),
        *("serving", "token", "token_listed", "token_revoked", "user"),
    )
)
_NOT_UTF8 = re.compile("[\ud800-\udfff]")


class JsonLines:
    """Writes every event that has a word; with `quiet` only what is a result, a failure or a warning. `clock` gives
    UTC seconds."""

    def __init__(self, out: Stream, *, quiet: bool = False, clock: Callable[[], float] = time.time) -> None:
        self._out = out
        self._quiet = quiet
        self._clock = clock
        self._keys: dict[type[Event], tuple[str, ...]] = {}
        self._second = -1
        self._second_text = ""

    def hear(self, event: Event) -> None:
        word = event.event
        if not word or (self._quiet and word not in _KEPT_WHEN_QUIET and not word.startswith("file_")):
            return
        keys = self._keys.get(type(event)) or self._learn(type(event))
        record: dict[str, Any] = {"v": 1, "event": word, "time": self._now()}
        for key in keys:
            record[key] = getattr(event, key)
        self._out.line(_encoded(record))

    def tick(self) -> None:
        """Time changes nothing here."""

    def close(self) -> None:
        """Every line is out already."""

    def last_words(self) -> None:
        """Stderr stays empty, and stdout may be in the middle of a line."""

    def _learn(self, kind: type[Event]) -> tuple[str, ...]:
        """The keys of an event, `job` first; looked up once, as 100,000 chunks come by."""
        names = [field.name for field in fields(kind)]
        self._keys[kind] = tuple(sorted(names, key=lambda name: name != "job"))
        return self._keys[kind]

    def _now(self) -> str:
        now = self._clock()
        second = int(now)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{int((now - second) * 1000):03}Z"


def _structure(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


_encoder = json.JSONEncoder(default=_structure, separators=(",", ":"), allow_nan=False)


def _encoded(record: dict[str, Any]) -> str:
    """ASCII alone, so that the locale does not matter, and valid for strict readers too."""
    try:
        line = _encoder.encode(record)
    except ValueError:  # a rate that is no number
        return _encoder.encode(_strict(record))
    return line if "\\ud" not in line else _encoder.encode(_strict(record))


def _strict(value: Any) -> Any:
    """Without what strict readers refuse: infinities become null, bytes that are not UTF-8 become `%FF` as in names."""
    if isinstance(value, str):
        return _NOT_UTF8.sub(_percent, value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    return value if value is None or isinstance(value, int) else _strict(_structure(value))


def _percent(match: re.Match[str]) -> str:
    byte = ord(match[0]) - 0xDC00
    return f"%{byte:02X}" if 0x80 <= byte <= 0xFF else "\ufffd"
