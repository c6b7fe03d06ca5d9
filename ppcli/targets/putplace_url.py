"""The URL of a PutPlace server: `[putplace+]http(s)://host[:port][/prefix][?hostname=NAME]`."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from ppcli.errors import Usage
from ppcli.origin import Origin

_HOSTNAME = "hostname"


@dataclass(frozen=True, slots=True)
class Place:
    """`url` is its one form; `prefix` the path of the API, without a slash at its end."""

    url: str
    origin: Origin
    prefix: str
    hostname: str | None

    @classmethod
    def parse(cls, url: str) -> Place:
        """Raises `Usage` where it is no such URL."""
        try:
            parts, origin = urlsplit(url), Origin.parse(url)
        except ValueError as error:
            raise Usage(f"{url!r} is no PutPlace server: {error}.", hint="Write it like https://host.") from error
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        hostname = query.pop(_HOSTNAME, None)
        if query or parts.username is not None or hostname == "":
            raise Usage(f"{url!r} has more than a host, a path and hostname=NAME.", hint="Write it like https://host.")
        prefix = quote(unquote(parts.path), safe="/").rstrip("/")
        wanted = f"?{urlencode({_HOSTNAME: hostname})}" if hostname else ""
        return cls(f"{parts.scheme.lower()}://{origin.netloc}{prefix}{wanted}", origin, prefix, hostname)
