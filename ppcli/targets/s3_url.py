"""What a target URL says: `s3://bucket[/prefix][?endpoint=URL&region=R&...]`. Pure.

endpoint=URL            a server other than AWS; else AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or the profile's
region=R, profile=P     else what the profile or the environment says
addressing=path|virtual how the bucket is named in requests; path for an endpoint and for buckets with dots
adopt_after=SECONDS     an open upload of the same key that nobody has added to for so long is taken over (300)
storage_class=, acl=, cache_control=, sse=, sse_kms_key_id=, tagging=, meta.NAME=, content_type=
                        sent with every object; without content_type it is guessed from the name
requester_pays=true     and sign_payload=true, for servers that take no unsigned payload
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from ppcli.errors import Usage
from ppcli.origin import Origin

ADOPT_AFTER = 300.0
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_HEADERS = {
    "storage_class": "x-amz-storage-class",
    "acl": "x-amz-acl",
    "cache_control": "Cache-Control",
    "content_type": "Content-Type",
    "sse": "x-amz-server-side-encryption",
    "sse_kms_key_id": "x-amz-server-side-encryption-aws-kms-key-id",
    "tagging": "x-amz-tagging",
}
_PLACES = ("endpoint", "region", "profile", "addressing", "requester_pays", "sign_payload")
_ADOPT_AFTER = "adopt_after"
_KNOWN = {*_HEADERS, *_PLACES, _ADOPT_AFTER}
_META = "meta."


@dataclass(frozen=True)
class Wanted:
    """A parsed URL. `headers` go with every new object; `options` is the query as given, for the canonical URL."""

    bucket: str
    prefix: str
    endpoint: str | None
    region: str | None
    profile: str | None
    path_style: bool | None
    adopt_after: float
    requester_pays: bool
    sign_payload: bool
    headers: Mapping[str, str]
    options: Mapping[str, str]

    def at(self, endpoint: str) -> Wanted:
        """The same at an endpoint that was found elsewhere. Raises `Usage` where that is no URL."""
        found = _endpoint(self.url(), endpoint)
        return replace(self, endpoint=found, options={**self.options, "endpoint": found})

    def key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def name(self, key: str) -> str | None:
        """The name of a key; None where it is not below the prefix."""
        if not self.prefix:
            return key
        return key.removeprefix(f"{self.prefix}/") if key.startswith(f"{self.prefix}/") else None

    def url(self) -> str:
        """The canonical URL of the place: how long to wait for others is no part of it."""
        options = {name: text for name, text in self.options.items() if name != _ADOPT_AFTER}
        return f"s3://{self.bucket}{_path(self.prefix)}{_query(options)}"

    def location(self, key: str) -> str:
        """Where an object is: only what it takes to find it."""
        return f"s3://{self.bucket}{_path(key)}{self._place}"

    @cached_property
    def _place(self) -> str:
        return _query({name: text for name, text in self.options.items() if name in _PLACES})


def _path(key: str) -> str:
    return f"/{quote(key, safe='/~')}" if key else ""


def _query(options: Mapping[str, str]) -> str:
    return f"?{urlencode(sorted(options.items()), safe=':/')}" if options else ""


def parse(url: str) -> Wanted:
    """Raises `Usage` where it is no such URL."""
    parts = urlsplit(url)
    bucket = parts.netloc
    if not _BUCKET.fullmatch(bucket):
        raise _refused(url, f"{bucket!r} is no bucket" if bucket else "it names no bucket")
    given = parse_qsl(parts.query, keep_blank_values=True)
    options = dict(given)
    if len(options) != len(given):
        raise _refused(url, "an option comes twice")
    for name, value in options.items():
        if name not in _KNOWN and not (name.startswith(_META) and len(name) > len(_META)):
            raise _refused(url, f"{name!r} is no option")
        if not value or not value.isprintable():
            raise _refused(url, f"{name!r} needs a value")
    if "endpoint" in options:
        options["endpoint"] = _endpoint(url, options["endpoint"])
    return Wanted(
        bucket=bucket,
        prefix=unquote(parts.path).strip("/"),
        endpoint=options.get("endpoint"),
        region=options.get("region"),
        profile=options.get("profile"),
        path_style=_path_style(url, options.get("addressing")),
        adopt_after=_seconds(url, options.get(_ADOPT_AFTER)),
        requester_pays=_flag(url, options, "requester_pays"),
        sign_payload=_flag(url, options, "sign_payload"),
        headers=_headers(options),
        options=options,
    )


def _headers(options: Mapping[str, str]) -> dict[str, str]:
    named = {header: options[name] for name, header in _HEADERS.items() if name in options}
    own = {f"x-amz-meta-{name.removeprefix(_META)}": value for name, value in options.items() if name.startswith(_META)}
    return named | own


def _endpoint(url: str, text: str) -> str:
    try:
        origin = Origin.parse(text)
    except ValueError as error:
        raise _refused(url, f"its endpoint cannot be used: {error}") from error
    path = urlsplit(text).path.rstrip("/")
    if "@" in urlsplit(text).netloc or urlsplit(text).query:
        raise _refused(url, "its endpoint has more than a scheme, a host, a port and a path")
    return f"{origin}{path}"


def _path_style(url: str, text: str | None) -> bool | None:
    if text not in (None, "path", "virtual"):
        raise _refused(url, "addressing is path or virtual")
    return None if text is None else text == "path"


def _seconds(url: str, text: str | None) -> float:
    if text is None:
        return ADOPT_AFTER
    if not (text.isascii() and text.isdigit()):
        raise _refused(url, "adopt_after is a number of seconds")
    return float(text)


def _flag(url: str, options: Mapping[str, str], name: str) -> bool:
    if options.get(name, "false") not in ("true", "false"):
        raise _refused(url, f"{name} is true or false")
    return options.get(name) == "true"


def _refused(url: str, why: str) -> Usage:
    return Usage(f"{url!r} cannot be used: {why}.", hint="Write it like s3://bucket/prefix?region=eu-west-1.")
