"""The limits of the server: table `[server]` of `config.toml`. Sizes are bytes (or text such as `10MiB`), times are
seconds."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ppcli.errors import Usage, local_error
from ppcli.units import parse_size

_LARGEST = 2**62


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What the server accepts.

    max_body          bytes of a JSON body
    max_file_size     bytes of one file
    chunk_min/max     bytes of a chunk; PutPlace's own bounds are the defaults
    sessions_per_user unfinished uploads of one user at a time
    session_lifetime  seconds without a stored chunk after which an upload is dropped
    cleanup_interval  seconds between two clean-ups
    body_timeout      seconds in which a body that is being sent must get further, see `bounds`
    quota             bytes that one user may store, unfinished uploads included; None: no bound
    content_grace     seconds for which content that no entry names is kept

    Of GraphWiz sessions and assets:

    asset_chunk_min/max   bytes of a chunk
    max_model, ...        bytes of one file, by asset type
    asset_lifetime        seconds without a stored chunk after which an upload is dropped
    uploads_per_hour      uploads that one user may begin in an hour
    """

    max_body: int = 16 << 20
    max_file_size: int = 1 << 40
    chunk_min: int = 1 << 10
    chunk_max: int = 10 << 20
    sessions_per_user: int = 1000
    session_lifetime: float = 3600.0
    cleanup_interval: float = 60.0
    body_timeout: float = 30.0
    quota: int | None = None
    content_grace: float = 30 * 86400.0
    asset_chunk_min: int = 5 << 20
    asset_chunk_max: int = 20 << 20
    max_model: int = 100 << 20
    max_texture: int = 10 << 20
    max_audio: int = 50 << 20
    max_video: int = 200 << 20
    asset_lifetime: float = 86400.0
    uploads_per_hour: int = 100


def load_limits(config_dir: Path) -> ServerLimits:
    """The limits in `config.toml` of the config dir. Raises `Usage` for a table that makes no sense."""
    path = config_dir / "config.toml"
    try:
        table = tomllib.loads(path.read_text("utf-8")).get("server", {})
    except FileNotFoundError:
        return ServerLimits()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Usage(f"{path} cannot be read: {error}.", hint="Mend or remove it.", reason="config") from error
    except OSError as error:
        raise local_error(error, f"read {path}") from error
    return parse_limits(table)


def parse_limits(table: Any) -> ServerLimits:
    """The limits that a parsed `[server]` table means. Raises `Usage`, naming the key."""
    if not isinstance(table, Mapping):
        raise _senseless("[server] is no table")
    readers: dict[str, Callable[[Any], float | None]] = {
        "sessions_per_user": _count,
        "session_lifetime": _seconds,
        "cleanup_interval": _seconds,
        "body_timeout": _seconds,
        "content_grace": _maybe_zero,
        "asset_lifetime": _seconds,
        "uploads_per_hour": _count,
    }
    known = {field.name for field in fields(ServerLimits)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise _senseless(f"[server] has no key {key!r} (known: {', '.join(sorted(known))})")
        try:
            reader = readers.get(key) or _size
            values[key] = reader(value)
        except (ValueError, TypeError):
            raise _senseless(f"{key} of [server] cannot be {value!r}") from None
    limits = ServerLimits(**values)
    for kind in ("", "asset_"):
        if getattr(limits, f"{kind}chunk_min") > getattr(limits, f"{kind}chunk_max"):
            raise _senseless(f"{kind}chunk_min of [server] is above {kind}chunk_max")
    return limits


def _senseless(what: str) -> Usage:
    return Usage(f"{what} in config.toml.", hint="Mend it there.", reason="config")


def _size(value: Any) -> int:
    size = parse_size(value) if isinstance(value, str) else _count(value)
    if size > _LARGEST:
        raise ValueError(size)
    return size


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(value)
    return value


def _maybe_zero(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError(value)
    return float(value)


def _seconds(value: Any) -> float:
    seconds = _maybe_zero(value)
    if seconds == 0:
        raise ValueError(value)
    return seconds
