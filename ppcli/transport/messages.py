"""What is asked and what comes back: plain data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

from ppcli import records
from ppcli.errors import Transient
from ppcli.values import value

PATIENCE = 60.0
_HARMLESS = frozenset({"GET", "HEAD", "OPTIONS"})
_REPEATABLE = _HARMLESS | {"PUT", "DELETE"}


@value(frozen=True, slots=True)
class Request:
    """One request to the transport's origin.

    path       absolute path, percent-encoded, may hold a ?query
    headers    the caller's own; an `Authorization` among them replaces the transport's token
    content    a small body; a large one is given to `send` as a `Body`
    expect     statuses outside 2xx that the caller handles itself
    patience   seconds without a byte, in either direction, that end the attempt
    """

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    content: bytes = field(default=b"", repr=False)
    expect: frozenset[int] = frozenset()
    patience: float = PATIENCE

    @classmethod
    def json(
        cls, method: str, path: str, value: Any, *, expect: Iterable[int] = (), patience: float = PATIENCE
    ) -> Request:
        """A request whose body is `value` as JSON."""
        content = json.dumps(value).encode()
        return cls(method, path, {"Content-Type": "application/json"}, content, frozenset(expect), patience)

    @property
    def harmless(self) -> bool:
        """It changes nothing on the server, so a lost reply leaves no doubt."""
        return self.method in _HARMLESS

    @property
    def repeatable(self) -> bool:
        """Sent twice, one after the other, it has the effect of once."""
        return self.method in _REPEATABLE


@value(frozen=True, slots=True)
class Reply:
    """A whole reply; the keys of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        """The content, which should be JSON. Raises `Transient` where it is none, such as a proxy's page."""
        try:
            return records.loads(self.content)
        except ValueError as error:
            raise Transient(f"the reply ({self.status}) is no JSON") from error
