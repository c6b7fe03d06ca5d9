"""What users have stored: one entry for each (user, digest, hostname, filepath). Deleting is a mark on the entry."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ppcli.server.database import Database
from ppcli.server.refusal import Refused
from ppcli.server.users import User


@dataclass(frozen=True, slots=True)
class Stat:
    """What the client tells about a file besides its content. Times are UTC seconds."""

    ip_address: str = ""
    file_mode: int = 0
    file_uid: int = 0
    file_gid: int = 0
    file_mtime: float = 0.0
    file_atime: float = 0.0
    file_ctime: float = 0.0


@dataclass(frozen=True, slots=True)
class Entry:
    """`has_content`: this user has sent or owned these very bytes, and the server holds them. Only that opens them."""

    id: int
    user_id: int
    filepath: str
    hostname: str
    sha256: str
    file_size: int
    stat: Stat
    has_content: bool
    uploaded_at: float | None
    created_at: float
    status: str
    deleted_at: str | None


@dataclass(frozen=True, slots=True)
class Deletion:
    """`deleted_at` is the client's time as RFC 3339 text."""

    sha256: str
    filepath: str
    hostname: str
    deleted_at: str


class Entries:
    """Thread-safe. A user only ever sees entries of their own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def newest(self, user: User, sha256: str) -> Entry | None:
        """The caller's newest entry with that digest; a deleted one only where there is no other."""
        found = self._select(
            "user_id = ? AND sha256 = ?", (user.id, sha256), "status = 'active' DESC, changed_at DESC, id DESC", 1, 0
        )
        return found[0] if found else None

    def clones(self, user: User, sha256: str) -> list[Entry]:
        """All of the caller's entries with that digest, the oldest first."""
        return self._select("user_id = ? AND sha256 = ? AND status = 'active'", (user.id, sha256), "id", -1, 0)

    def with_digests(self, user: User, digests: Sequence[str]) -> list[Entry]:
        """The caller's entries with any of these digests, the oldest first."""
        where = "user_id = ? AND sha256 IN (SELECT value FROM json_each(?)) AND status = 'active'"
        return self._select(where, (user.id, json.dumps(digests)), "id", -1, 0)

    def recent(self, user: User, prefix: str, hostname: str | None, limit: int, skip: int) -> list[Entry]:
        """The caller's entries whose filepath begins with `prefix`, the newest first."""
        where, values = "user_id = ? AND status = 'active'", [user.id]
        if prefix:
            where += " AND substr(filepath, 1, ?) = ?"
            values += [len(prefix), prefix]  # type: ignore[list-item]
        if hostname is not None:
            where += " AND hostname = ?"
            values.append(hostname)  # type: ignore[arg-type]
        return self._select(where, values, "changed_at DESC, id DESC", limit, skip)

    def readable(self, user: User, sha256: str) -> int | None:
        """The size of content that the caller may read, None where there is none."""
        row = self._database.read(
            lambda c: c.execute(
                "SELECT contents.size FROM entries JOIN contents USING (sha256)"
                " WHERE user_id = ? AND sha256 = ? AND status = 'active' AND has_content",
                (user.id, sha256),
            ).fetchone()
        )
        return None if row is None else int(row["size"])

    def register(self, user: User, filepath: str, hostname: str, sha256: str, size: int, stat: Stat) -> Entry:
        """Make an entry without sending content; it has content where the caller has that already.
        Raises `Refused` 422 for a size that this content does not have."""

        def change(connection: sqlite3.Connection) -> int:
            has = connection.execute(
                "SELECT size FROM entries JOIN contents USING (sha256)"
                " WHERE user_id = ? AND sha256 = ? AND status = 'active' AND has_content",
                (user.id, sha256),
            ).fetchone()
            if has is not None and has["size"] != size:
                raise Refused(422, f"The file with this digest has {has['size']} bytes")
            return record(connection, user.id, filepath, hostname, sha256, size, stat, has_content=has is not None)

        return self._get(self._database.write(change))

    def delete(self, user: User, deletions: Sequence[Deletion]) -> list[bool]:
        """Mark entries as deleted; tells for each whether there was one."""
        return self._database.write(lambda c: [mark_deleted(c, user, deletion) for deletion in deletions])

    def _get(self, number: int) -> Entry:
        return self._select("id = ?", (number,), "id", 1, 0)[0]

    def _select(self, where: str, values: Sequence[object], order: str, limit: int, skip: int) -> list[Entry]:
        query = f"SELECT * FROM entries WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?"
        rows = self._database.read(lambda c: c.execute(query, (*values, limit, skip)).fetchall())
        return [_entry(row) for row in rows]


def record(
    connection: sqlite3.Connection,
    user_id: int,
    filepath: str,
    hostname: str,
    sha256: str,
    size: int,
    stat: Stat,
    *,
    has_content: bool,
) -> int:
    """Write an entry, or renew the one that is there; gives its id. A change for the database."""
    now = time.time()
    (number,) = connection.execute(
        "INSERT INTO entries (user_id, filepath, hostname, sha256, file_size, ip_address, file_mode, file_uid,"
        " file_gid, file_mtime, file_atime, file_ctime, has_content, uploaded_at, created_at, changed_at, status)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'active')"
        " ON CONFLICT (user_id, sha256, hostname, filepath) DO UPDATE SET"
        " file_size = excluded.file_size, ip_address = excluded.ip_address, file_mode = excluded.file_mode,"
        " file_uid = excluded.file_uid, file_gid = excluded.file_gid, file_mtime = excluded.file_mtime,"
        " file_atime = excluded.file_atime, file_ctime = excluded.file_ctime, has_content = excluded.has_content,"
        " uploaded_at = coalesce(excluded.uploaded_at, uploaded_at), changed_at = excluded.changed_at,"
        " status = 'active', deleted_at = NULL RETURNING id",
        (user_id, filepath, hostname, sha256, size, stat.ip_address, stat.file_mode, stat.file_uid, stat.file_gid,
         stat.file_mtime, stat.file_atime, stat.file_ctime, has_content, now if has_content else None, now, now),
    ).fetchone()  # fmt: skip
    if has_content:
        connection.execute("UPDATE contents SET unnamed_since = NULL WHERE sha256 = ?", (sha256,))
    return int(number)


def mark_deleted(connection: sqlite3.Connection, user: User, deletion: Deletion) -> bool:
    """A change for the database; tells whether there was such an entry."""
    changed = connection.execute(
        "UPDATE entries SET status = 'deleted', deleted_at = ?, changed_at = ?"
        " WHERE user_id = ? AND sha256 = ? AND hostname = ? AND filepath = ? AND status = 'active'",
        (deletion.deleted_at, time.time(), user.id, deletion.sha256, deletion.hostname, deletion.filepath),
    ).rowcount
    connection.execute(
        "UPDATE contents SET unnamed_since = ? WHERE sha256 = ? AND unnamed_since IS NULL AND NOT EXISTS"
        " (SELECT 1 FROM entries WHERE entries.sha256 = contents.sha256 AND status = 'active' AND has_content)",
        (time.time(), deletion.sha256),
    )
    return changed > 0


def _entry(row: sqlite3.Row) -> Entry:
    active = row["status"] == "active"
    return Entry(
        id=row["id"],
        user_id=row["user_id"],
        filepath=row["filepath"],
        hostname=row["hostname"],
        sha256=row["sha256"],
        file_size=row["file_size"],
        stat=Stat(**{key: row[key] for key in Stat.__slots__}),
        has_content=bool(row["has_content"]) and active,
        uploaded_at=row["uploaded_at"],
        created_at=row["created_at"],
        status=row["status"],
        deleted_at=row["deleted_at"],
    )
