"""Upload sessions: who owns them, which chunks they hold, when they end. All of it durable in the database."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from ppcli.server.clock import Clock
from ppcli.server.content import Files
from ppcli.server.database import Database
from ppcli.server.limits import ServerLimits
from ppcli.server.plan import Wanted, check_plan, implied_chunk_size
from ppcli.server.quota import STANDING, begun, check_quota
from ppcli.server.refusal import Refused
from ppcli.server.states import EXPIRING, FINAL, UNFINISHED, SessionState, check, check_receiving, sql
from ppcli.server.users import User

TOO_MANY = "Too many unfinished uploads; complete or abort some"
_ASK_AGAIN = 10.0
"""Seconds after which somebody with too many unfinished uploads may ask again: one may be completed any time."""


@dataclass(frozen=True, slots=True)
class Session:
    """One upload. `expires_at` (UTC seconds) is one lifetime after the last stored chunk."""

    id: str
    user_id: int
    wanted: Wanted
    state: SessionState
    uploaded: int
    created_at: float
    expires_at: float
    file_id: int | None

    @property
    def expired(self) -> bool:
        return self.state in EXPIRING and self.expires_at <= time.time()

    def size_of(self, chunk: int) -> int:
        """The exact length of a chunk; the chunk size must be known."""
        size = self.wanted.chunk_size
        assert size is not None
        return min(size, self.wanted.file_size - chunk * size)


@dataclass(frozen=True, slots=True)
class StoredChunk:
    chunk_num: int
    etag: str
    size: int


_COLUMNS = tuple(field.name for field in fields(Session) if field.name not in ("wanted", "state"))


class Sessions:
    """Thread-safe. `store_chunk` and `forget_chunk` are for whoever writes to the database, the others block. A new
    session is durable with its first chunk: what a power cut forgets before that is begun anew."""

    def __init__(self, database: Database, files: Files, limits: ServerLimits) -> None:
        self._database = database
        self._files = files
        self._limits = limits
        self.clock = Clock(self._shift)

    def initiate(self, user: User, wanted: Wanted) -> Session:
        """Open a session. Raises `Refused` 413, 422, 429 or 507."""
        check_plan(wanted, self._limits)
        return self.begin(user, wanted)

    def begin(self, user: User, wanted: Wanted) -> Session:
        """Open a session whose sizes were checked. Raises `Refused` 429 or 507."""
        if wanted.file_size > self._files.free():
            raise Refused(507, "There is not enough space left for this file")
        now = self.clock.now()
        state = SessionState.INITIATED
        ends = now + self._lifetime(wanted)
        session = Session(str(uuid.uuid4()), user.id, wanted, state, 0, now, ends, None)
        self._files.create(session.id)
        try:
            self._database.write(lambda connection: self._insert(connection, session, now), lazy=True)
        except BaseException:  # also a stop: no file may stay that no session names
            self._files.drop(session.id)
            raise
        return session

    def get(self, user: User, upload_id: str) -> Session:
        """A PutPlace session of this user. Raises `Refused` 404 or 403."""
        session = self.owned(user, upload_id)
        if session.wanted.asset is not None:
            raise Refused(404, "Upload session not found")
        return session

    def owned(self, user: User, upload_id: str) -> Session:
        """A session of this user, whatever protocol it is of. Raises `Refused` 404 or 403."""
        self.clock.now()
        session = self._database.read(lambda connection: load(connection, upload_id))
        if session is None:
            raise Refused(404, "Upload session not found")
        if session.user_id != user.id:
            raise Refused(403, "This upload session belongs to another user")
        return session

    def admit(self, user: User, upload_id: str, chunk: int) -> Session:
        """The session, if a chunk may be sent to it now. Raises `Refused` 400, 403, 404, 409, 410 or 503."""
        session = self.get(user, upload_id)
        check_open(session)
        if not 0 <= chunk < session.wanted.total_chunks:
            most = session.wanted.total_chunks - 1
            raise Refused(400, f"Invalid chunk number: {chunk} (must be 0-{most})")
        return session

    def learn_chunk_size(self, session: Session, chunk: int, length: int | None) -> Session:
        """Take the chunk size of a session that was opened without one from the first chunk's Content-Length."""
        size = implied_chunk_size(session.wanted, chunk, length, self._limits)

        def change(connection: sqlite3.Connection) -> int:
            connection.execute(
                "UPDATE sessions SET chunk_size = ? WHERE id = ? AND chunk_size IS NULL", (size, session.id)
            )
            row = connection.execute("SELECT chunk_size FROM sessions WHERE id = ?", (session.id,)).fetchone()
            return int(row["chunk_size"])

        return replace(session, wanted=replace(session.wanted, chunk_size=self._database.write(change)))

    def stored(self, upload_id: str, chunk: int) -> str | None:
        """The etag of a stored chunk."""
        row = self._database.read(
            lambda c: c.execute(
                "SELECT etag FROM chunks WHERE session = ? AND chunk_num = ?", (upload_id, chunk)
            ).fetchone()
        )
        return None if row is None else str(row["etag"])

    def chunks(self, upload_id: str, first: int = 0, most: int = -1) -> Iterator[StoredChunk]:
        """The stored chunks from number `first` on, in order, `most` of them."""
        rows = self._database.read(
            lambda c: c.execute(
                "SELECT chunk_num, etag, size FROM chunks WHERE session = ? AND chunk_num >= ?"
                " ORDER BY chunk_num LIMIT ?",
                (upload_id, first, most),
            ).fetchall()
        )
        return (StoredChunk(*row) for row in rows)

    def chunk_numbers(self, upload_id: str) -> list[int]:
        """The numbers of the stored chunks, in order."""
        asked = "SELECT chunk_num FROM chunks WHERE session = ? ORDER BY chunk_num"
        return self._database.read(lambda c: [row[0] for row in c.execute(asked, (upload_id,))])

    def store_chunk(self, connection: sqlite3.Connection, upload_id: str, chunk: StoredChunk) -> Session:
        """A change for the database: the chunk's bytes are durable, count them. Moves `expires_at` on."""
        session = moved(connection, upload_id, SessionState.UPLOADING)
        connection.execute(
            "INSERT INTO chunks VALUES (?, ?, ?, ?)", (upload_id, chunk.chunk_num, chunk.etag, chunk.size)
        )
        expires_at, uploaded = time.time() + self._lifetime(session.wanted), session.uploaded + 1
        connection.execute(
            "UPDATE sessions SET uploaded = uploaded + 1, expires_at = ? WHERE id = ?", (expires_at, upload_id)
        )
        state = SessionState.UPLOADING
        if session.wanted.asset is not None and uploaded == session.wanted.total_chunks:
            state = SessionState.GATHERED
            moved(connection, upload_id, state)
        return replace(session, state=state, uploaded=uploaded, expires_at=expires_at)

    def forget_chunk(self, connection: sqlite3.Connection, upload_id: str, chunk: int) -> None:
        """A change for the database: the chunk is about to be replaced."""
        _receiving(connection, upload_id)
        connection.execute("DELETE FROM chunks WHERE session = ? AND chunk_num = ?", (upload_id, chunk))
        connection.execute("UPDATE sessions SET uploaded = uploaded - 1 WHERE id = ?", (upload_id,))

    def unfinished(self, user: User, after: str, most: int) -> list[Session]:
        """The user's sessions that take chunks or are being completed, by id, from behind `after` on."""
        now = self.clock.now()
        rows = self._database.read(
            lambda c: c.execute(
                f"SELECT * FROM sessions WHERE user_id = ? AND {STANDING} AND id > ? ORDER BY id LIMIT ?",
                (user.id, now, after, most),
            ).fetchall()
        )
        return [from_row(row) for row in rows]

    def abort(self, user: User, upload_id: str) -> Session:
        """End a session and drop its bytes; one that has ended without a file stays as it is. Gives it as it was."""
        before = self.owned(user, upload_id)
        if before.state in (SessionState.ABORTED, SessionState.EXPIRED):
            return before
        before = self._database.write(lambda c: _aborted(c, upload_id))
        self._files.drop(upload_id)
        return before

    def pause(self, user: User, upload_id: str) -> Session:
        """Mark an asset's session as paused: the next chunk goes on with it."""
        before = self.owned(user, upload_id)
        self._database.write(lambda c: moved(c, upload_id, SessionState.PAUSED))
        return replace(before, state=SessionState.PAUSED)

    def adopt(self, user: User, wanted: Wanted, upload_id: str) -> Session:
        """A session for a partial file that is whole, verified and durable: it is `assembled`, and has only to be put
        to its place. Raises `Refused` 429 or 507."""
        now = self.clock.now()
        state, ends = SessionState.ASSEMBLED, now + self._lifetime(wanted)
        session = Session(upload_id, user.id, wanted, state, 0, now, ends, None)

        def change(connection: sqlite3.Connection) -> None:
            self._insert(connection, session, now)
            keep_content(connection, wanted)

        self._database.write(change)
        return session

    def _lifetime(self, wanted: Wanted) -> float:
        return self._limits.session_lifetime if wanted.asset is None else self._limits.asset_lifetime

    def _shift(self, seconds: float) -> None:
        """The clock was set: what ends at a time ends that much later, or earlier."""

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(
                f"UPDATE sessions SET expires_at = expires_at + ? WHERE state IN {sql(UNFINISHED)}", (seconds,)
            )
            connection.execute(
                "UPDATE contents SET unnamed_since = unnamed_since + ? WHERE unnamed_since IS NOT NULL", (seconds,)
            )

        self._database.write(change)

    def _insert(self, connection: sqlite3.Connection, session: Session, now: float) -> None:
        open_now = begun(connection, session.user_id)
        if open_now.uploads >= self._limits.sessions_per_user:
            wait = max(open_now.first_end - now, 1.0)
            raise Refused(429, TOO_MANY, retry_after=min(wait, _ASK_AGAIN))
        wanted = session.wanted
        check_quota(connection, session.user_id, wanted.file_size, self._limits, sha256=wanted.sha256)
        connection.execute(
            "INSERT INTO sessions (id, user_id, filepath, hostname, sha256, file_size, chunk_size, total_chunks,"
            " file_mtime, ip_address, asset, state, created_at, expires_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (session.id, session.user_id, wanted.filepath, wanted.hostname, wanted.sha256, wanted.file_size,
             wanted.chunk_size, wanted.total_chunks, wanted.file_mtime, wanted.ip_address, wanted.asset,
             session.state, now, session.expires_at),
        )  # fmt: skip


def check_open(session: Session) -> None:
    """Raises `Refused` 400, 409, 410 or 503 for a session that takes no chunks now."""
    if session.expired:
        raise Refused(410, "Upload session has expired")
    check_receiving(session.state)


def load(connection: sqlite3.Connection, upload_id: str) -> Session | None:
    row = connection.execute("SELECT * FROM sessions WHERE id = ?", (upload_id,)).fetchone()
    return None if row is None else from_row(row)


def unfinished(connection: sqlite3.Connection) -> list[Session]:
    """All sessions that have not ended."""
    rows = connection.execute(f"SELECT * FROM sessions WHERE state IN {sql(UNFINISHED)}").fetchall()
    return [from_row(row) for row in rows]


def from_row(row: sqlite3.Row) -> Session:
    wanted = Wanted(**{key: row[key] for key in Wanted.__slots__})
    state = SessionState(row["state"])
    return Session(wanted=wanted, state=state, **{key: row[key] for key in _COLUMNS})


def moved(connection: sqlite3.Connection, upload_id: str, new: SessionState) -> Session:
    """Take a session to its next state; gives it as it was before. Raises `Refused` where the table forbids it."""
    session = load(connection, upload_id)
    if session is None:
        raise Refused(404, "Upload session not found")
    check(session.state, new)
    if session.state is not new:
        ended = time.time() if new in FINAL else None
        connection.execute("UPDATE sessions SET state = ?, ended_at = ? WHERE id = ?", (new, ended, upload_id))
    return session


def keep_content(connection: sqlite3.Connection, wanted: Wanted) -> None:
    """The content's row comes before the file gets its name, or a clean-up would take the file for a stray."""
    connection.execute(
        "INSERT INTO contents (sha256, size) VALUES (?, ?) ON CONFLICT DO UPDATE SET unnamed_since = NULL",
        (wanted.sha256, wanted.file_size),
    )


def _aborted(connection: sqlite3.Connection, upload_id: str) -> Session:
    before = moved(connection, upload_id, SessionState.ABORTED)
    connection.execute("DELETE FROM chunks WHERE session = ?", (upload_id,))
    return before


def _receiving(connection: sqlite3.Connection, upload_id: str) -> Session:
    """The session, now `uploading`. Raises `Refused` where it takes no chunks."""
    session = load(connection, upload_id)
    if session is None:
        raise Refused(404, "Upload session not found")
    check_receiving(session.state)
    return moved(connection, upload_id, SessionState.UPLOADING)
