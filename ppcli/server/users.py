"""Users, their passwords and tokens. At rest there are only hashes: scrypt of passwords, SHA-256 of random tokens."""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import secrets
import sqlite3
import threading
import time
from dataclasses import dataclass

from ppcli.server.database import Database
from ppcli.server.refusal import Refused

OWNER = "owner@localhost"
"""The user that the first start makes."""
LOGIN_LIFETIME = 7200.0
"""Seconds that a token from a login is good for; tokens of `--new-token` do not end."""
ATTEMPTS = 5
LOCKOUT = 900.0
"""After so many wrong passwords for one e-mail in a row, the next are not looked at for so many seconds."""
_N, _R, _P = 1 << 14, 8, 1  # 16 MiB and about 50 ms for one password
LOGINS = 2
"""Passwords that are hashed at the same time."""
_TRUSTED = 10.0
"""Seconds that a token is believed without asking the database again."""
_ID_LENGTH = 16
_ID = f"lower(substr(hex(hash), 1, {_ID_LENGTH}))"
_REMEMBERED = 4096
_CACHED = 1024


@dataclass(frozen=True, slots=True)
class User:
    id: int
    email: str


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token: never the token itself. Times are UTC seconds; `expires_at` None: it does not end."""

    id: str
    email: str
    created_at: float
    expires_at: float | None


class Users:
    """Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._cache: dict[bytes, tuple[User, float, float]] = {}
        self._hashing = threading.BoundedSemaphore(LOGINS)  # or many logins at once would take all memory

    def add(self, email: str, password: str | None) -> User:
        """Make a user, or change the password of one that is there: then logins with the old one are over, and wrong
        guesses are forgotten."""
        address = _address(email)
        hashed = None if password is None else self._hash(password)

        def change(connection: sqlite3.Connection) -> User:
            connection.execute(
                "INSERT INTO users (email, password, created_at) VALUES (?, ?, ?)"
                " ON CONFLICT (email) DO UPDATE SET password = coalesce(excluded.password, password)",
                (address, hashed, time.time()),
            )
            _renounce(connection, address)
            row = connection.execute("SELECT id, email FROM users WHERE email = ?", (address,)).fetchone()
            return User(row["id"], row["email"])

        return self._database.write(change)

    def find(self, email: str) -> User | None:
        row = self._database.read(
            lambda c: c.execute("SELECT id, email FROM users WHERE email = ?", (_address(email),)).fetchone()
        )
        return None if row is None else User(row["id"], row["email"])

    def any(self) -> bool:
        return self._database.read(lambda c: c.execute("SELECT 1 FROM users").fetchone()) is not None

    def new_token(self, user: User, lifetime: float | None = None) -> str:
        """A new token of 256 random bits; nobody can be told it again."""
        token = secrets.token_urlsafe(32)
        now = time.time()
        row = (_digest(token), user.id, now, None if lifetime is None else now + lifetime)
        self._database.write(lambda c: c.execute("INSERT INTO tokens VALUES (?, ?, ?, ?)", row))
        return token

    def tokens(self) -> list[Token]:
        """All that are good now, the oldest first."""
        rows = self._database.read(
            lambda c: c.execute(
                f"SELECT {_ID}, email, tokens.created_at, expires_at FROM tokens JOIN users ON users.id = user_id"
                " WHERE expires_at IS NULL OR expires_at > ? ORDER BY tokens.created_at",
                (time.time(),),
            ).fetchall()
        )
        return [Token(*row) for row in rows]

    def revoke(self, token: str) -> None:
        """End the token with this id. A server that runs may still take it for a few seconds."""
        self._database.write(lambda c: c.execute(f"DELETE FROM tokens WHERE {_ID} = ?", (token,)))

    def known(self, token: str) -> User | None:
        """The user of a token, if that was looked up a moment ago. Never blocks."""
        user, ends, until = self._cache.get(_digest(token), (None, 0.0, 0.0))
        return user if time.time() < ends and time.monotonic() < until else None

    def owner_of(self, token: str) -> User | None:
        """The user of a token that is good now."""
        digest = _digest(token)
        row = self._database.read(
            lambda c: c.execute(
                "SELECT users.id, users.email, tokens.expires_at FROM tokens"
                " JOIN users ON users.id = tokens.user_id WHERE tokens.hash = ?",
                (digest,),
            ).fetchone()
        )
        now = time.time()
        ends = math.inf if row is None or row["expires_at"] is None else row["expires_at"]
        if row is None or ends <= now:
            return None
        if len(self._cache) >= _CACHED:
            self._cache.clear()
        user = User(row["id"], row["email"])
        self._cache[digest] = (user, ends, time.monotonic() + _TRUSTED)
        return user

    def login(self, email: str, password: str) -> str:
        """A token that lasts two hours. Raises `Refused` 401, or 429 after too many wrong passwords."""
        address = _address(email)
        self._count_attempt(address)  # before the password is looked at, or parallel guesses would all get through
        row = self._database.read(
            lambda c: c.execute("SELECT id, email, password FROM users WHERE email = ?", (address,)).fetchone()
        )
        stored = None if row is None else row["password"]
        if not self._matches(password, stored or _NOBODY) or stored is None:
            raise Refused(401, "Wrong e-mail or password")
        self._database.write(lambda c: c.execute("DELETE FROM login_failures WHERE email = ?", (address,)))
        return self.new_token(User(row["id"], row["email"]), LOGIN_LIFETIME)

    def _count_attempt(self, email: str) -> None:
        now = time.time()

        def change(connection: sqlite3.Connection) -> float | None:
            row = connection.execute("SELECT failures, last FROM login_failures WHERE email = ?", (email,)).fetchone()
            failures, last = (0, now) if row is None or row["last"] + LOCKOUT <= now else (row["failures"], row["last"])
            locked = failures >= ATTEMPTS
            last = min(last, now) if locked else now  # somebody may have set the clock back
            failures += not locked
            connection.execute("INSERT OR REPLACE INTO login_failures VALUES (?, ?, ?)", (email, failures, last))
            if locked:
                return float(last + LOCKOUT - now)
            connection.execute(
                "DELETE FROM login_failures WHERE email IN"
                " (SELECT email FROM login_failures ORDER BY last DESC LIMIT -1 OFFSET ?)",
                (_REMEMBERED,),
            )
            return None

        wait = self._database.write(change, lazy=True)
        if wait is not None:
            raise Refused(429, "Too many wrong passwords, try again later", retry_after=wait)

    def _hash(self, password: str) -> str:
        salt = os.urandom(16)
        with self._hashing:
            key = hashlib.scrypt(password.encode(), salt=salt, n=_N, r=_R, p=_P)
        return f"scrypt${_N}${_R}${_P}${salt.hex()}${key.hex()}"

    def _matches(self, password: str, stored: str) -> bool:
        _, n, r, p, salt, key = stored.split("$")
        with self._hashing:
            made = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=int(n), r=int(r), p=int(p))
        return hmac.compare_digest(made, bytes.fromhex(key))


def token_id(token: str) -> str:
    """What a token is called in lists: the start of its hash, which opens nothing."""
    return _digest(token).hex()[:_ID_LENGTH]


def _renounce(connection: sqlite3.Connection, email: str) -> None:
    """Forget what was begun with an old password. Tokens of `--new-token` do not end and stay."""
    connection.execute("DELETE FROM login_failures WHERE email = ?", (email,))
    connection.execute(
        "DELETE FROM tokens WHERE expires_at IS NOT NULL AND user_id = (SELECT id FROM users WHERE email = ?)", (email,)
    )


_NOBODY = f"scrypt${_N}${_R}${_P}${'00' * 16}${'00' * 64}"
"""Stands for the password of a user that is not there: the reply takes as long as for one that is."""


def _address(email: str) -> str:
    return email.strip().lower()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
