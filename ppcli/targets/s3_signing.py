"""AWS Signature Version 4 for S3, in the Authorization header. Pure but for a cache of the signing key, which makes a
signature cost a few microseconds. Source: the signing process of the S3 API reference."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY = hashlib.sha256(b"").hexdigest()
_UNRESERVED = "-_.~"


@dataclass(frozen=True, slots=True)
class Key:
    """One set of credentials."""

    access: str
    secret: str
    token: str | None = None

    def __repr__(self) -> str:
        return "Key(...)"


def encoded(text: str, *, path: bool = False) -> str:
    """Percent-encoded as the signature wants it; the slashes of a `path` stay."""
    return quote(text, safe=_UNRESERVED + "/" if path else _UNRESERVED)


def query_of(options: Mapping[str, str]) -> str:
    """A query string in the order of the signature."""
    return "&".join(f"{encoded(name)}={encoded(value)}" for name, value in sorted(options.items()))


def signed(
    key: Key,
    region: str,
    method: str,
    host: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    payload: str,
    now: float,
) -> dict[str, str]:
    """The headers to send: `headers` and those of the signature. `path` and `query` are encoded already, `query` is in
    order; `payload` is a hex SHA-256 or `UNSIGNED`; `now` is in seconds since the epoch, by the server's clock."""
    stamp = _stamp(int(now))
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    sent = {**headers, "x-amz-content-sha256": payload, "x-amz-date": stamp}
    if key.token:
        sent["x-amz-security-token"] = key.token
    covered = {**sent, "host": host}
    order, names = _order(tuple(covered))
    canonical = "".join([f"{lower}:{' '.join(covered[name].split())}\n" for name, lower in order])
    asked = f"{method}\n{path}\n{query}\n{canonical}\n{names}\n{payload}"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(asked.encode()).hexdigest()}"
    signature = hmac.digest(_signing_key(key.secret, stamp[:8], region), text.encode(), "sha256").hex()
    sent["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={key.access}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return sent


@lru_cache(maxsize=64)
def _order(names: tuple[str, ...]) -> tuple[list[tuple[str, str]], str]:
    """Headers in the order of the signature, each also in lower case, and the list of them."""
    order = sorted([(name, name.lower()) for name in names], key=lambda one: one[1])
    return order, ";".join([lower for _, lower in order])


@lru_cache(maxsize=8)
def _stamp(now: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))


@lru_cache(maxsize=8)
def _signing_key(secret: str, day: str, region: str) -> bytes:
    made = f"AWS4{secret}".encode()
    for word in (day, region, "s3", "aws4_request"):
        made = hmac.digest(made, word.encode(), "sha256")
    return made
