"""Replies outside 2xx, as errors: the only place that knows what a status means where the caller does not."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from ppcli import records
from ppcli.errors import Rejected, StepFailure, Transient
from ppcli.origin import Origin
from ppcli.transport.messages import Reply
from ppcli.transport.redaction import HIDDEN

LONGEST_WORDS = 200
"""Characters of a server's own words that are shown."""

_TEMPORARY = frozenset({408, 425, 429})
_REASONS = {402: "quota", 403: "forbidden", 404: "not_found", 409: "conflict", 410: "gone", 413: "too_large"}
_HINTS = {
    "quota": "Free space there, or ask who runs it for more; then run 'ppcli resume'.",
    "forbidden": "Check which account the token is of, or ask who runs the server.",
    "too_large": "Choose another target, or ask who runs the server for a higher limit.",
}
_MARKUP = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)


def refusal(origin: Origin, reply: Reply, secret: str | None = None) -> Rejected | StepFailure:
    """The error for a reply that is neither 2xx nor expected. `secret` is kept out of it, should the server repeat it.
    The path is not named: it may be one that logs must not hold."""
    status = reply.status
    said = f"{status} {_phrase(status)}".strip()
    words = own_words(reply, secret)
    told = f"{said}: {words}" if words else said
    if status in _TEMPORARY or (status >= 500 and status != 507):
        return Transient(f"{origin.netloc} answers {told}", retry_after=retry_after(reply.headers))
    reason = "quota" if status == 507 else _REASONS.get(status, f"http_{status}")
    hint = _HINTS.get(reason, "Check the target and the name, and whether the server speaks this protocol.")
    return Rejected(f"{origin.netloc} refuses: {told}.", hint=hint, reason=reason)


def own_words(reply: Reply, *secrets: str | None) -> str:
    """What the server says about it, on one line, without the stop at its end; empty where it says nothing. `secrets`
    are kept out of it, should the server repeat them."""
    text = reply.content[: 1 << 16].decode("utf-8", "replace")
    if reply.headers.get("content-type", "").partition(";")[0].strip().endswith("json") or text[:1] in ("{", "["):
        with contextlib.suppress(ValueError, RecursionError):
            text = _from_json(records.loads(reply.content))
    else:
        text = _MARKUP.sub(" ", text)
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = " ".join(text.split())
    if len(text) > LONGEST_WORDS:
        text = f"{text[: LONGEST_WORDS - 3]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text).rstrip(". ")


def _from_json(value: Any) -> str:
    """`detail` (a string, or a list of faults), `message`, `error`, ... What was sent is not repeated: it may be a
    password (`input` of a fault)."""
    match value:
        case str():
            return value
        case list():
            return "; ".join(filter(None, map(_from_json, value[:5])))
        case {"msg": str(said), "loc": list(place)}:
            return f"{'.'.join(map(str, place))}: {said}"
        case dict():
            for key in ("detail", "message", "error_description", "error", "title", "msg"):
                if value.get(key):
                    return _from_json(value[key])
    return ""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, from either form of Retry-After; None where it does not say."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        at = _date(text)
        now = _date(headers.get("date", ""))  # by the server's clock, which may not be ours
        seconds = math.nan if at is None else at - (time.time() if now is None else now)
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _date(text: str) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
