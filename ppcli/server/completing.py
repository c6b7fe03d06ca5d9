"""The end of an upload: every chunk there, the whole digest right, then content and an entry. Safe to kill anywhere."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import replace

from ppcli.server import assets
from ppcli.server.content import Files
from ppcli.server.database import Database
from ppcli.server.entries import Stat, record
from ppcli.server.live import Live, LiveSessions
from ppcli.server.placing import Placing
from ppcli.server.refusal import Refused
from ppcli.server.sessions import Session, Sessions, keep_content, moved, unfinished
from ppcli.server.states import SessionState
from ppcli.server.users import User


class Completer:
    """Thread-safe; blocks as long as hashing takes.

    The order: `completing` (no chunk changes any more; a power cut may forget it) - verify - `assembled`, durable -
    rename - entry and `completed`, durable. `recover` goes on after a kill; what was not yet `assembled` is
    `uploading` again.
    """

    def __init__(
        self, database: Database, files: Files, sessions: Sessions, live: LiveSessions, placing: Placing
    ) -> None:
        self._database = database
        self._files = files
        self._sessions = sessions
        self._live = live
        self._placing = placing

    def complete(self, user: User, upload_id: str, etags: Mapping[int, str]) -> Session:
        """Finish an upload; once more is fine. `etags`: what the client believes it sent, may be empty.

        Raises `Refused` 400 (chunks are missing or differ, wrong digest), 403, 404, 410, 503.
        """
        session = self._sessions.owned(user, upload_id)
        if session.state is SessionState.COMPLETED:
            return session
        if session.expired:
            raise Refused(410, "Upload session has expired")
        live = self._live.get(upload_id)
        with live.completing:
            session = self._sessions.owned(user, upload_id)
            if session.state is SessionState.COMPLETED:
                return session
            if session.state is not SessionState.ASSEMBLED:
                self._compare(upload_id, etags)
                session = self._database.write(lambda c: _begin(c, upload_id), lazy=True)
                session = self._verify(live, session)
            done = self.place(session)
        self._live.forget(upload_id)
        return done

    def recover(self) -> None:
        """Go on where a killed server was. To be called before any request is served."""
        for session in self._database.read(unfinished):
            if session.state is SessionState.ASSEMBLED:
                self.place(session)
            elif session.state is SessionState.COMPLETING:
                self._back(session)

    def _compare(self, upload_id: str, etags: Mapping[int, str]) -> None:
        if not etags:
            return
        stored = {chunk.chunk_num: chunk.etag for chunk in self._sessions.chunks(upload_id)}
        for chunk, etag in etags.items():
            if chunk not in stored:
                raise Refused(400, f"Chunk {chunk} not found in session")
            if stored[chunk] != etag:
                raise Refused(400, f"ETag mismatch for chunk {chunk}")

    def _verify(self, live: Live, session: Session) -> Session:
        """Hash what is not hashed yet; a wrong digest leaves the session open, so that chunks can be replaced. Where
        none was told, the session has it from now on."""
        try:
            if not session.uploaded:  # an empty file without chunks, which nothing has made durable
                self._files.sync(session.id, name=True)
            digest = live.frontier.finish(session.wanted.file_size)
            if session.wanted.sha256 not in ("", digest):
                raise Refused(400, f"SHA256 mismatch: expected {session.wanted.sha256}, got {digest}")
            verified = replace(session, wanted=replace(session.wanted, sha256=digest))
            self._database.write(lambda c: _assembled(c, verified))
            return verified
        except BaseException:  # also a stop: a session must not stay `completing` for ever
            self._back(session)
            raise

    def _back(self, session: Session) -> None:
        open_again = SessionState.UPLOADING if session.wanted.asset is None else SessionState.GATHERED
        self._database.write(lambda c: moved(c, session.id, open_again), lazy=True)

    def place(self, session: Session) -> Session:
        """Give an assembled file its place and its entry. Once more is fine."""
        with self._placing.adding(session.wanted.sha256):
            self._files.place(session.id, session.wanted.sha256)
            return self._database.write(lambda c: _completed(c, session))


def _begin(connection: sqlite3.Connection, upload_id: str) -> Session:
    session = moved(connection, upload_id, SessionState.COMPLETING)
    if session.uploaded != session.wanted.total_chunks:
        raise Refused(400, f"Not all chunks uploaded: {session.uploaded}/{session.wanted.total_chunks}")
    return session


def _assembled(connection: sqlite3.Connection, session: Session) -> None:
    moved(connection, session.id, SessionState.ASSEMBLED)
    connection.execute("UPDATE sessions SET sha256 = ? WHERE id = ?", (session.wanted.sha256, session.id))
    keep_content(connection, session.wanted)


def _completed(connection: sqlite3.Connection, session: Session) -> Session:
    moved(connection, session.id, SessionState.COMPLETED)
    wanted = session.wanted
    stat = Stat(ip_address=wanted.ip_address, file_mtime=wanted.file_mtime)
    number = record(
        connection,
        session.user_id,
        wanted.filepath,
        wanted.hostname,
        wanted.sha256,
        wanted.file_size,
        stat,
        has_content=True,
    )
    if wanted.asset is not None:
        assets.record(connection, number, wanted.asset)
    connection.execute("UPDATE sessions SET file_id = ? WHERE id = ?", (number, session.id))
    connection.execute("DELETE FROM chunks WHERE session = ?", (session.id,))
    return replace(session, state=SessionState.COMPLETED, file_id=number)
