"""The types of single fields in requests: digests, names, times."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Path, Query
from pydantic import AfterValidator, Field, JsonValue

SHA256 = r"^[0-9a-f]{64}$"
LARGEST = 2**53 - 1
"""The largest whole number that every reader of JSON keeps exactly."""
_PLAIN = r"^(?!(.*[/\\])?\.\.([/\\]|$))[^\x00-\x1f\x7f-\x9f]*$"
"""What `_plain` checks, for readers of the OpenAPI document; surrogates cannot come in JSON that is valid."""
_SHOWN: dict[str, JsonValue] = {"pattern": _PLAIN}
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def _plain(name: str) -> str:
    """Names are data and never become a path here; these would still hurt whoever makes one of them."""
    if _CONTROL.search(name):
        raise ValueError("must not hold control characters")
    if ".." in re.split(r"[/\\]", name):
        raise ValueError("must not have a component '..'")
    return name


def _utc(time: datetime) -> datetime:
    try:
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is out of range") from error


def rfc3339(seconds: float) -> datetime:
    """UTC seconds as replies give them: RFC 3339 with Z."""
    return datetime.fromtimestamp(seconds, UTC)


Sha256 = Annotated[str, Field(pattern=SHA256, description="SHA-256 of the whole file, 64 lower-case hex digits")]
Sha256InPath = Annotated[str, Path(pattern=SHA256, description="SHA-256 of the file, 64 lower-case hex digits")]
FilePath = Annotated[
    str,
    Field(min_length=1, max_length=4096, description="Name of the file on its host", json_schema_extra=_SHOWN),
    AfterValidator(_plain),
]
HostName = Annotated[
    str,
    Field(min_length=1, max_length=255, description="The host that has the file", json_schema_extra=_SHOWN),
    AfterValidator(_plain),
]
FilePathInQuery = Annotated[
    str,
    Query(min_length=1, max_length=4096, description="Name of the file on its host", json_schema_extra=_SHOWN),
    AfterValidator(_plain),
]
HostNameInQuery = Annotated[
    str,
    Query(min_length=1, max_length=255, description="The host that has the file", json_schema_extra=_SHOWN),
    AfterValidator(_plain),
]
SecondsInQuery = Annotated[float, Query(allow_inf_nan=False, ge=-1e15, le=1e15, description="UTC seconds")]
Short = Annotated[str, Field(max_length=255, json_schema_extra=_SHOWN), AfterValidator(_plain)]
Moment = Annotated[datetime, AfterValidator(_utc)]
Size = Annotated[int, Field(ge=0, le=LARGEST)]
Seconds = Annotated[float, Field(allow_inf_nan=False, ge=-1e15, le=1e15)]
