"""Which URL scheme is spoken by which module. A new protocol is one new file here and one line below.

Each module has `connect(url, settings) -> Target`; it is imported only when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from ppcli.errors import Usage
from ppcli.target import Target

if TYPE_CHECKING:
    from ppcli.transport import Transport

SCHEMES: Mapping[str, str] = {
    "pads": "ppcli.targets.pads",
    "pads+http": "ppcli.targets.pads_http",
    "pads+https": "ppcli.targets.pads_http",
    "file": "ppcli.targets.file",
    "http": "ppcli.targets.putplace",
    "https": "ppcli.targets.putplace",
    "putplace+http": "ppcli.targets.putplace",
    "putplace+https": "ppcli.targets.putplace",
    "graphwiz+http": "ppcli.targets.graphwiz",
    "graphwiz+https": "ppcli.targets.graphwiz",
    "rufh+http": "ppcli.targets.rufh",
    "rufh+https": "ppcli.targets.rufh",
    "s3": "ppcli.targets.s3",
    "tus+http": "ppcli.targets.tus",
    "tus+https": "ppcli.targets.tus",
}


def _without_tokens(base: str) -> Transport:
    from ppcli.transport import Transport

    return Transport(base)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a target may need besides its URL. `chunk_size` is the one asked for (bytes); `file_digest` gives the
    `sha256:hex` of a local file from the digest cache, or reads it (`fresh=True`: always reads it); `known_digest` only
    looks into the cache. `http` gives the transport to an origin (`http(s)://host[:port]`), with the right credentials;
    who made the settings closes it."""

    data_dir: Path
    config_dir: Path
    file_digest: Callable[[Path, bool], str]
    chunk_size: int | None = None
    known_digest: Callable[[Path], str | None] = lambda _path: None
    http: Callable[[str], Transport] = _without_tokens


class _Module(Protocol):
    def connect(self, url: str, settings: Settings) -> Target: ...


def connect(url: str, settings: Settings) -> Target:
    """The target at a canonical URL. Raises `Usage` for an unknown scheme, listing the known ones."""
    scheme = url.partition(":")[0].lower()
    if scheme not in SCHEMES:
        known = ", ".join(sorted(SCHEMES))
        raise Usage(f"Unknown target scheme {scheme!r} in {url!r}.", hint=f"Known schemes: {known}.")
    return cast(_Module, import_module(SCHEMES[scheme])).connect(url, settings)
