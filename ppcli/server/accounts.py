"""Users and tokens from the command line; the server may run meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ppcli import disk
from ppcli.config import Dirs
from ppcli.errors import NotFound, Usage, local_io
from ppcli.events import TokenCreated, UserAdded
from ppcli.server.database import DATABASE, Database, database_errors
from ppcli.server.users import OWNER, Users


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
        return TokenCreated(user.email, users.new_token(user), saved=None)


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
