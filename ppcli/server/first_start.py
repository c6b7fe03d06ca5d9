"""The first user and the first token. The server keeps the token's hash, the client's config dir the token."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ppcli.errors import PpcliError
from ppcli.logins import Logins
from ppcli.origin import Origin
from ppcli.server.users import OWNER, Users


@dataclass(frozen=True, slots=True)
class Made:
    """`saved`: the file that keeps the token for clients of this computer; None where that failed, see `failure`."""

    email: str
    token: str
    saved: Path | None
    failure: str


def make_owner(users: Users, config_dir: Path, origin: str) -> Made | None:
    """Make the first user with one token, unless there is a user. The token is saved as a login for `origin`."""
    if users.any():
        return None
    token = users.new_token(users.add(OWNER, None))
    try:
        saved = _save_login(config_dir, origin, token)
    except (PpcliError, OSError) as error:
        return Made(OWNER, token, None, f"The token could not be saved for clients here: {error}")
    return Made(OWNER, token, saved, "")


def _save_login(config_dir: Path, origin: str, token: str) -> Path:
    logins = Logins(config_dir)
    logins.save(Origin.parse(origin), token)
    return logins.path
