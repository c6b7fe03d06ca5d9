"""Fields of JSON replies. What is missing or makes no sense is `Transient`: the reply may be a proxy's."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from ppcli.errors import Transient
from ppcli.transport import Reply

_LATEST = datetime(9000, 1, 1, tzinfo=UTC).timestamp()


def record_of(reply: Reply) -> Mapping[str, Any]:
    value = reply.json()
    if not isinstance(value, dict):
        raise Transient("the server's reply makes no sense")
    return value


def text(record: Any, key: str) -> str:
    """A string that is not empty."""
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, str) or not value:
        raise Transient(f"the server's reply has no {key}")
    return value


def number(record: Any, key: str) -> int:
    """A count."""
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Transient(f"the server's reply has no {key}")
    return value


def when(value: Any) -> float | None:
    """Seconds since the epoch of a server's time: without a zone it is UTC."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return sane((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def by_our_clock(record: Mapping[str, Any], reply: Reply) -> float | None:
    """When a session ends: the server's clock may differ from ours, and its reply says by how much."""
    ends = when(record.get("expires_at"))
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        now = parsedate_to_datetime(reply.headers.get("date", "")).timestamp()
        return None if ends is None else sane(ends - now + time.time())
    return ends


def sane(seconds: Any) -> float | None:
    """A time that every part of the program can show."""
    known = isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 < seconds < _LATEST
    return float(seconds) if known else None
