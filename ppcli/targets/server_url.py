"""Servers that know files by name: `[PROTOCOL+]http(s)://host[:port][/prefix][?OPTION=...]`, and `#NAME` behind it for
a file there. What PutPlace and GraphWiz share. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from ppcli.errors import Usage
from ppcli.origin import Origin


@dataclass(frozen=True, slots=True)
class ServerPlace:
    """`url` is the one form of the URL; `prefix` is its path, without a slash at its end, fit for requests."""

    url: str
    origin: Origin
    prefix: str
    options: Mapping[str, str]

    @classmethod
    def parse(cls, url: str, kind: str, example: str, known: Sequence[str]) -> ServerPlace:
        """Raises `Usage` for what is no URL of a `kind` ("PutPlace") server, or has options that are not `known`."""
        hint = f"Write it like {example}."
        try:
            parts, origin = urlsplit(url), Origin.parse(url)
        except ValueError as error:
            raise Usage(f"{url!r} is no {kind} server: {error}.", hint=hint) from error
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if query.keys() - set(known) or parts.username is not None or "" in query.values():
            allowed = " and ".join(f"{name}=..." for name in known)
            raise Usage(f"{url!r} has more than a host, a path and {allowed}.", hint=hint)
        options = {name: query[name] for name in known if name in query}
        prefix = quote(unquote(parts.path), safe="/").rstrip("/")
        wanted = f"?{urlencode(options)}" if options else ""
        return cls(f"{parts.scheme.lower()}://{origin.netloc}{prefix}{wanted}", origin, prefix, options)

    def location(self, name: str) -> str:
        return f"{self.url}#{quote(name, safe='/')}"
