"""URLs of uploads, and of the places where they are created: what tus and the IETF draft share. Pure.

A token belongs to one origin, so an upload must be at the origin where it was created. Errors name origins only: the
rest of an upload's URL may be all it takes to write there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urljoin, urlsplit

from ppcli.errors import Rejected, Usage
from ppcli.origin import Origin, origin_of

_KEPT = "/%:@!$&'()*+,;=-._~"


@dataclass(frozen=True, slots=True)
class Creation:
    """A target's URL: `url` is its canonical form, `path` is fit for a request."""

    url: str
    origin: Origin
    path: str

    @classmethod
    def parse(cls, url: str) -> Creation:
        """Raises `Usage` for what is not `SCHEME+http(s)://host[:port]/path`."""
        scheme = url.partition("+")[0].lower()
        hint = f"Write it like {scheme}+https://host/files/."
        try:
            parts, origin = urlsplit(url), Origin.parse(url)
        except ValueError as error:
            raise Usage(f"{url!r} cannot be used: {error}.", hint=hint) from error
        if parts.query or parts.fragment or parts.username is not None:
            raise Usage(f"{url!r} has more than a host and a path.", hint=hint)
        path = quote(unquote(parts.path), safe="/:@!$&'()*+,;=~") or "/"
        return cls(f"{parts.scheme.lower()}://{origin.netloc}{path}", origin, path)


def resolve(origin: Origin, path: str, location: str) -> str:
    """The URL of an upload that was created at `path`. Raises `Rejected` where it is at another origin."""
    try:
        url = urljoin(f"{origin}{path}", location)
    except ValueError:
        raise _elsewhere(origin, None) from None
    path_of(origin, url)
    return url


def path_of(origin: Origin, url: str) -> str:
    """The path of an upload, for a request to `origin`. Raises `Rejected` where it is at another one."""
    there = origin_of(url)
    if there != origin:
        raise _elsewhere(origin, there)
    parts = urlsplit(url)
    path = quote(parts.path or "/", _KEPT)
    return f"{path}?{quote(parts.query, _KEPT + '?')}" if parts.query else path


def number(headers: Mapping[str, str], name: str) -> int | None:
    """A header that is a count of bytes; None where it is missing or is none."""
    text = headers.get(name, "").strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None


def _elsewhere(here: Origin, there: Origin | None) -> Rejected:
    return Rejected(
        f"{here} wants its uploads sent to {there or 'no URL'}, and a token belongs to one scheme, host and port.",
        hint="Behind a proxy, the server must be told its public URL (X-Forwarded-Proto, X-Forwarded-Host).",
        reason="redirect",
    )
