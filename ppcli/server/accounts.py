"""Users and tokens from the command line; the server may run meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ppcli import disk
from ppcli.config import Dirs
from ppcli.errors import NotFound, Usage, local_io
from ppcli.events import TokenCreated, TokenListed, TokenRevoked, UserAdded
from ppcli.server.database import DATABASE, Database, database_errors
from ppcli.server.users import OWNER, Users, token_id


def data_dir(given: Path | None, dirs: Dirs) -> Path:
    """The server's data dir: the one given, else below ppcli's own."""
    return dirs.data / "server" if given is None else given.absolute()


def add_user(dirs: Dirs, data: Path | None, email: str, password: str) -> UserAdded:
    """Make a user, or change the password of one. Raises `Usage` for an e-mail or a password that cannot be one."""
    if "@" not in email.strip().strip("@") or not email.isprintable() or len(email) > 254:
        raise Usage(f"{email!r} is no e-mail address.", hint="Write it like you@example.org.", reason="email")
    if not 8 <= len(password) <= 1024:
        raise Usage("The password must have 8 to 1024 characters.", hint="Choose another.", reason="password")
    with _users(data_dir(data, dirs)) as users:
        return UserAdded(users.add(email, password).email)


def new_token(dirs: Dirs, data: Path | None, email: str) -> TokenCreated:
    """Another token of a user, which does not end. The owner is made where there is none. Raises `NotFound`."""
    with _users(data_dir(data, dirs)) as users:
        user = users.find(email)
        if user is None and email == OWNER:
            user = users.add(OWNER, None)
        if user is None:
            raise NotFound(f"There is no user {email}.", hint=f"Run 'ppcli serve --add-user {email}'.")
        token = users.new_token(user)
        return TokenCreated(user.email, token, saved=None, id=token_id(token))


def tokens(dirs: Dirs, data: Path | None) -> list[TokenListed]:
    """All tokens that are good now, the oldest first."""
    with _users(data_dir(data, dirs)) as users:
        return [
            TokenListed(
                token.id,
                token.email,
                _told(token.created_at),
                None if token.expires_at is None else _told(token.expires_at),
            )
            for token in users.tokens()
        ]


def revoke_token(dirs: Dirs, data: Path | None, prefix: str) -> TokenRevoked:
    """End the one token whose id starts with `prefix`. Raises `NotFound`, or `Usage` where several do."""
    with _users(data_dir(data, dirs)) as users:
        found = [token for token in users.tokens() if prefix and token.id.startswith(prefix.lower())]
        hint = "'ppcli serve --tokens' lists them."
        if not found:
            raise NotFound(f"There is no token {prefix!r}.", hint=hint, reason="token")
        if len(found) > 1:
            raise Usage(f"{prefix!r} could be any of {len(found)} tokens.", hint=hint, reason="ambiguous")
        users.revoke(found[0].id)
        return TokenRevoked(found[0].id, found[0].email)


def _told(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def _users(data: Path) -> Iterator[Users]:
    with local_io(f"use {data}"):
        disk.make_dir(data)
    database = Database(data / DATABASE)
    try:
        with database_errors(database.path):
            yield Users(database)
    finally:
        database.close()
