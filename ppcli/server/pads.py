"""Pads: slots at addresses, each held for the store that reserved it. A store belongs to one user and one user key.

    address   SHA-256 of a pad's secret: who knows it, of the same user, may read
    secret    proves that a pad is one's own: only with it can a pad be written
    index     which index of a store counts now: the others are refused, so that a store has one writer
    seq       how far that index has come: a client with an old copy of it is told so

What a pad holds is a file (see `pad_files`), which carries its own counter and digest; here are only the names.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ppcli.pads import header
from ppcli.pads.header import Header
from ppcli.server.database import Database
from ppcli.server.limits import ServerLimits
from ppcli.server.pad_files import PadFiles
from ppcli.server.quota import check_quota
from ppcli.server.refusal import Refused
from ppcli.server.users import User

_MANY = 500
"""Addresses in one query."""


@dataclass(frozen=True, slots=True)
class PadStore:
    """`pads` says how many it has."""

    id: int
    store_id: bytes
    pad_size: int
    index: str
    seq: int
    pads: int


@dataclass(frozen=True, slots=True)
class Held:
    """A pad that its owner may write, as long as `index` counts."""

    id: int
    store: int
    index: str
    pad_size: int
    secret: bytes


class Pads:
    """Thread-safe. A user only ever reads or writes pads of their own."""

    def __init__(self, database: Database, files: PadFiles, limits: ServerLimits) -> None:
        self.files = files
        self._database = database
        self._limits = limits
        self._most = limits.chunk_max - header.SIZE

    def find(self, user: User, tag: str) -> PadStore:
        """Raises `Refused` 404."""
        return self._database.read(lambda c: _store(c, user, tag))

    def make(self, user: User, tag: str, pad_size: int, index: str) -> PadStore:
        """The store with this tag; made where there is none, else as it is. Raises `Refused` 413."""
        if pad_size > self._most:
            raise Refused(413, f"Pads must not have more than {self._most} bytes here")
        row = (user.id, tag, os.urandom(16), pad_size, index, 0, time.time())

        def change(connection: sqlite3.Connection) -> PadStore:
            connection.execute(
                "INSERT INTO pad_stores (user_id, tag, store_id, pad_size, current, seq, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (user_id, tag) DO NOTHING",
                row,
            )
            return _store(connection, user, tag)

        return self._database.write(change)

    def take_over(self, user: User, tag: str, index: str, instead_of: str) -> PadStore:
        """From now on `index` counts, and what another one has under way reaches no pad any more. Once more is fine.
        Raises `Refused` 404, or 412 where another one counts than `instead_of`."""

        def change(connection: sqlite3.Connection) -> PadStore:
            store = _store(connection, user, tag)
            if store.index not in (index, instead_of):
                raise _superseded()
            connection.execute("UPDATE pad_stores SET current = ? WHERE id = ?", (index, store.id))
            return _store(connection, user, tag)

        with self.files.nothing_placed():
            return self._database.write(change)

    def reserve(self, user: User, tag: str, index: str, seq: int, addresses: Sequence[bytes]) -> int:
        """Hold pads at these addresses, durably; gives how many are new. Raises `Refused` 403, 404, 412 or 507."""

        def change(connection: sqlite3.Connection) -> int:
            store = _current(connection, user, tag, index, seq)
            there = _rows(connection, addresses)
            if any(row["store"] != store.id for row in there.values()):
                raise Refused(403, "A pad belongs to another user or store")
            new = [address for address in dict.fromkeys(addresses) if address not in there]
            self._check_room(connection, user, len(new) * store.pad_size)
            connection.executemany("INSERT INTO pads (store, address) VALUES (?, ?)", [(store.id, a) for a in new])
            return len(new)

        return self._database.write(change)

    def erasable(self, user: User, tag: str, index: str, seq: int, secrets: Sequence[bytes]) -> list[Held | None]:
        """Pads that are to be overwritten, None for those that are not there. Raises `Refused` 403, 404 or 412."""

        def change(connection: sqlite3.Connection) -> list[Held | None]:
            store = _current(connection, user, tag, index, seq)
            rows = _rows(connection, [_address(secret) for secret in secrets])
            if any(row["store"] != store.id for row in rows.values()):
                raise Refused(403, "A pad belongs to another user or store")
            found = [(rows.get(_address(secret)), secret) for secret in secrets]
            return [Held(row["id"], store.id, index, store.pad_size, secret) if row else None for row, secret in found]

        return self._database.write(change)

    def writable(self, user: User, secret: bytes, index: str) -> Held:
        """The pad of this secret. Raises `Refused` 403, 404 or 412."""
        row = self._database.read(lambda c: _rows(c, [_address(secret)])).get(_address(secret))
        if row is None:
            raise Refused(404, "No pad is held that this secret opens")
        if row["user_id"] != user.id:
            raise Refused(403, "This pad belongs to another user")
        if row["current"] != index:
            raise _superseded()
        return Held(row["id"], row["store"], index, row["pad_size"], secret)

    def place(self, held: Held, incoming: Path, head: Header) -> None:
        """Make a file what a pad holds, see `PadFiles.place`. Raises `Refused` 409, or 412."""
        self.files.place(held.id, incoming, head, held.secret, lambda: self._check_counts(held))

    def erase(self, held: Held, head: Header, raw: bytes) -> None:
        """Leave nothing in a pad but this header. Raises `Refused` 409, or 412."""
        self.files.erase(held.id, head, raw, held.secret, lambda: self._check_counts(held))

    def _check_counts(self, held: Held) -> None:
        """A request may take long: another index may count by now."""
        asked = "SELECT current FROM pad_stores WHERE id = ?"
        if self._database.read(lambda c: c.execute(asked, (held.store,)).fetchone())["current"] != held.index:
            raise _superseded()

    def readable(self, user: User, addresses: Sequence[bytes]) -> list[int | None]:
        """The ids of the pads at these addresses; None where the user has none."""
        rows = self._database.read(lambda c: _rows(c, addresses))
        ours = [rows.get(address) for address in addresses]
        return [row["id"] if row and row["user_id"] == user.id else None for row in ours]

    def _check_room(self, connection: sqlite3.Connection, user: User, size: int) -> None:
        if size:
            check_quota(connection, user.id, size, self._limits)
        if size > self.files.free():
            raise Refused(507, "There is not enough space left for these pads")


def _store(connection: sqlite3.Connection, user: User, tag: str) -> PadStore:
    row = connection.execute(
        "SELECT *, (SELECT count(*) FROM pads WHERE store = pad_stores.id) AS held FROM pad_stores"
        " WHERE user_id = ? AND tag = ?",
        (user.id, tag),
    ).fetchone()
    if row is None:
        raise Refused(404, "There is no such store")
    return PadStore(row["id"], row["store_id"], row["pad_size"], row["current"], row["seq"], row["held"])


def _current(connection: sqlite3.Connection, user: User, tag: str, index: str, seq: int) -> PadStore:
    """The store, if `index` counts; it has come to `seq` then."""
    row = connection.execute("SELECT * FROM pad_stores WHERE user_id = ? AND tag = ?", (user.id, tag)).fetchone()
    if row is None:
        raise Refused(404, "There is no such store")
    if row["current"] != index:
        raise _superseded()
    connection.execute("UPDATE pad_stores SET seq = max(seq, ?) WHERE id = ?", (seq, row["id"]))
    return PadStore(row["id"], row["store_id"], row["pad_size"], row["current"], row["seq"], 0)


def _rows(connection: sqlite3.Connection, addresses: Sequence[bytes]) -> dict[bytes, sqlite3.Row]:
    """Those of these pads that are there, with what their stores say."""
    found: dict[bytes, sqlite3.Row] = {}
    for start in range(0, len(addresses), _MANY):
        some = addresses[start : start + _MANY]
        marks = ", ".join("?" * len(some))
        rows = connection.execute(
            "SELECT pads.id, pads.address, pads.store, user_id, pad_size, current FROM pads"
            f" JOIN pad_stores ON pad_stores.id = pads.store WHERE address IN ({marks})",
            tuple(some),
        )
        found |= {row["address"]: row for row in rows}
    return found


def _address(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def _superseded() -> Refused:
    return Refused(412, "Another index of these pads counts now")
