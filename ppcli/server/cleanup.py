"""What nobody needs any more: expired uploads, stray files, and content that no entry names."""

from __future__ import annotations

import sqlite3
import time

from ppcli.server.completing import Completer
from ppcli.server.content import Files
from ppcli.server.database import Database
from ppcli.server.limits import ServerLimits
from ppcli.server.live import LiveSessions
from ppcli.server.placing import Placing
from ppcli.server.sessions import Sessions, load, moved, unfinished
from ppcli.server.states import EXPIRING, OPEN, RECEIVING, UNFINISHED, SessionState, sql

REMEMBERED = 7 * 86400.0
"""Seconds for which an ended session is still known, so that its owner is told how it ended."""
_ABANDONED = (
    "SELECT sha256 FROM contents WHERE unnamed_since <= ?"
    " AND sha256 NOT IN (SELECT sha256 FROM sessions WHERE state = 'assembled')"
)


class Cleanup:
    """`start` and `run` are called from one thread at a time."""

    def __init__(
        self,
        database: Database,
        files: Files,
        sessions: Sessions,
        completer: Completer,
        live: LiveSessions,
        placing: Placing,
        limits: ServerLimits,
    ) -> None:
        self._database = database
        self._files = files
        self._sessions = sessions
        self._completer = completer
        self._live = live
        self._placing = placing
        self._limits = limits

    def start(self) -> None:
        """Before any request is served: go on with what was being completed, and remove files that nothing names."""
        self._give_up_lost()
        self._completer.recover()
        for path, upload_id in list(self._files.partials()):
            if upload_id is None or not self._unfinished(upload_id):
                path.unlink(missing_ok=True)
        known = self._database.read(lambda c: {row[0] for row in c.execute("SELECT sha256 FROM contents")})
        for sha256 in list(self._files.contents()):
            if sha256 not in known:
                self._files.remove(sha256)
        self.run()

    def run(self) -> None:
        """One round."""
        now = self._sessions.clock.now()
        self._expire(now)
        self.remove_content()
        self._database.write(lambda c: _forget(c, now), lazy=True)
        for upload_id in self._live.idle():
            if not self._unfinished(upload_id):
                self._live.forget(upload_id)

    def _give_up_lost(self) -> None:
        """End sessions whose partial file somebody has removed: their owners are told 410 and begin anew."""
        for session in self._database.read(unfinished):
            placed = session.state is SessionState.ASSEMBLED and self._files.content(session.wanted.sha256).exists()
            if placed or self._files.partial(session.id).exists():
                continue
            if not session.uploaded and session.state in RECEIVING:  # its name was not durable yet, nor had it to be
                self._files.create(session.id)
            else:
                self._database.write(lambda c, i=session.id: _lose(c, i))  # type: ignore[misc]

    def _unfinished(self, upload_id: str) -> bool:
        session = self._database.read(lambda c: load(c, upload_id))
        return session is not None and session.state in UNFINISHED

    def _expire(self, now: float) -> None:
        """End sessions whose time is over, except while a chunk is on its way to one of them."""
        rows = self._database.read(
            lambda c: c.execute(
                f"SELECT id FROM sessions WHERE state IN {sql(EXPIRING)} AND expires_at <= ?", (now,)
            ).fetchall()
        )
        for (upload_id,) in rows:
            if self._live.busy(upload_id) or not self._database.write(lambda c, i=upload_id: _expire(c, i, now)):  # type: ignore[misc]
                continue
            self._files.drop(upload_id)
            self._live.forget(upload_id)

    def remove_content(self) -> None:
        """Remove content that no entry has named for longer than the grace time. Thread-safe."""
        before = time.time() - self._limits.content_grace
        for (sha256,) in self._database.read(lambda c: c.execute(_ABANDONED, (before,)).fetchall()):
            with self._placing.removing(sha256) as free:
                gone = free and self._database.write(
                    lambda c, s=sha256: (
                        c.execute(  # type: ignore[misc]
                            f"DELETE FROM contents WHERE sha256 = ? AND sha256 IN ({_ABANDONED})", (s, before)
                        ).rowcount
                    )
                )
                if gone:
                    self._files.remove(sha256)


def _expire(connection: sqlite3.Connection, upload_id: str, now: float) -> bool:
    session = load(connection, upload_id)
    if session is None or not session.expired or session.expires_at > now:
        return False
    moved(connection, upload_id, SessionState.EXPIRED)
    connection.execute("DELETE FROM chunks WHERE session = ?", (upload_id,))
    return True


def _lose(connection: sqlite3.Connection, upload_id: str) -> None:
    """The one way into a final state that no client takes, so it is not in the table of states; an asset's is there."""
    session = load(connection, upload_id)
    if session is not None and session.wanted.asset is not None and session.state in OPEN:
        moved(connection, upload_id, SessionState.FAILED)
    else:
        connection.execute(
            "UPDATE sessions SET state = ?, ended_at = ? WHERE id = ?", (SessionState.EXPIRED, time.time(), upload_id)
        )
    connection.execute("DELETE FROM chunks WHERE session = ?", (upload_id,))


def _forget(connection: sqlite3.Connection, now: float) -> None:
    connection.execute("DELETE FROM sessions WHERE ended_at <= ?", (now - REMEMBERED,))
    connection.execute("DELETE FROM tokens WHERE expires_at <= ?", (now,))
