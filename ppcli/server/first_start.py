"""The first user and the first token. The server keeps the token's hash, the client's config dir the token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ppcli.errors import PpcliError
from ppcli.logins import Logins
from ppcli.origin import Origin
from ppcli.server.users import OWNER, Users

_EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Made:
    """`saved`: the file that keeps the token for clients of this computer; None where that failed, see `failure`."""

    email: str
    token: str
    saved: Path | None
    failure: str


def origins_of(url: str) -> Sequence[Origin]:
    """What clients of this computer may call a server at `url`: on loopback, and on all addresses, it has two names
    here."""
    origin = Origin.parse(url)
    if not (origin.loopback or origin.host in _EVERYWHERE):
        return (origin,)
    numbers = "[::1]" if ":" in origin.host else "127.0.0.1"
    names = dict.fromkeys((origin.netloc, f"{numbers}:{origin.port}", f"localhost:{origin.port}"))
    return tuple(dict.fromkeys(Origin.parse(f"{origin.scheme}://{name}") for name in names))


def make_owner(users: Users, config_dir: Path, url: str) -> Made | None:
    """Make the first user with one token, unless there is a user. The token is saved as a login for the server's
    origins."""
    if users.any():
        return None
    token = users.new_token(users.add(OWNER, None))
    logins = Logins(config_dir)
    try:
        for origin in origins_of(url):
            logins.save(origin, token)
    except (PpcliError, OSError) as error:
        return Made(OWNER, token, None, f"The token could not be saved for clients here: {error}")
    return Made(OWNER, token, logins.path, "")


def follow(users: Users, config_dir: Path, url: str) -> None:
    """A server that was known here under another port or name is known under this one, too. Only a token that it takes
    already goes from one origin to another, and only within this computer. Raises PpcliError and OSError."""
    logins = Logins(config_dir)
    kept = logins.all()
    good = [token for origin, token in kept.items() if origin.loopback and users.owner_of(token) is not None]
    for origin in origins_of(url):
        if good and origin.loopback and kept.get(origin) not in good:
            logins.save(origin, good[0])
