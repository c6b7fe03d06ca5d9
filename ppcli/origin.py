"""Origins: scheme, host and port of an HTTP URL. What a token belongs to, and what a redirect must not leave. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}
_LOOPBACK_V4 = re.compile(r"127(\.\d{1,3}){3}")
_HOST = re.compile(r"[a-z0-9._~-]+|[0-9a-f:.]+")


@dataclass(frozen=True, slots=True)
class Origin:
    """`host` is in lower case and ASCII; an IPv6 address has no brackets."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> Origin:
        """The origin of `http(s)://host[:port]/...`, also behind a protocol's prefix (`putplace+https://...`). Raises
        ValueError, with a sentence's end that says why, for everything else."""
        parts = urlsplit(url)
        scheme = parts.scheme.rpartition("+")[2]
        if scheme not in _PORTS:
            raise ValueError("it is not an http(s) URL")
        host = (parts.hostname or "").lower()
        if not host.isascii():
            try:
                host = host.encode("idna").decode("ascii")
            except UnicodeError:
                raise ValueError("its host is no name") from None
        if not _HOST.fullmatch(host):
            raise ValueError("its host is no name" if host else "it names no host")
        port = parts.port
        return cls(scheme, host, _PORTS[scheme] if port is None else port)

    @property
    def secure(self) -> bool:
        return self.scheme == "https"

    @property
    def loopback(self) -> bool:
        """Whether it is this machine for certain: what goes there cannot be heard on a wire."""
        return self.host in ("localhost", "::1") or bool(_LOOPBACK_V4.fullmatch(self.host))

    @property
    def netloc(self) -> str:
        """As in the Host header: brackets round an IPv6 address, no default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc}"


def origin_of(url: str) -> Origin | None:
    """The origin of a target's URL; None where it is not reached over HTTP by its own URL."""
    try:
        return Origin.parse(url)
    except ValueError:
        return None
