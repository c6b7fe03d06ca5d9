"""SQLite: what the server knows. One thread writes, in groups; a commit is durable when it returns."""

from __future__ import annotations

import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ppcli import disk
from ppcli.errors import Corrupt, local_error

T = TypeVar("T")

DATABASE = "server.sqlite3"
_GROUP = 64
"""How many writes share one commit, and so one fsync, at most."""
_VERSION = 1
_PATIENCE = 30.0
"""Seconds that another process (`--new-token`) may hold the write lock."""

_SCHEMA = """
CREATE TABLE users (
    id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, password TEXT, created_at REAL NOT NULL);
CREATE TABLE tokens (
    hash BLOB PRIMARY KEY, user_id INTEGER NOT NULL REFERENCES users, created_at REAL NOT NULL, expires_at REAL
) WITHOUT ROWID;
CREATE TABLE login_failures (email TEXT PRIMARY KEY, failures INTEGER NOT NULL, last REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE sessions (
    id TEXT PRIMARY KEY, user_id INTEGER NOT NULL REFERENCES users, filepath TEXT NOT NULL, hostname TEXT NOT NULL,
    sha256 TEXT NOT NULL, file_size INTEGER NOT NULL, chunk_size INTEGER, total_chunks INTEGER NOT NULL,
    file_mtime REAL NOT NULL, ip_address TEXT NOT NULL, state TEXT NOT NULL, uploaded INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL, expires_at REAL NOT NULL, ended_at REAL, file_id INTEGER) WITHOUT ROWID;
CREATE INDEX sessions_by_user ON sessions (user_id, state);
CREATE INDEX sessions_by_state ON sessions (state, expires_at);
CREATE TABLE chunks (
    session TEXT NOT NULL, chunk_num INTEGER NOT NULL, etag TEXT NOT NULL, size INTEGER NOT NULL,
    PRIMARY KEY (session, chunk_num)) WITHOUT ROWID;
CREATE TABLE contents (
    sha256 TEXT PRIMARY KEY, size INTEGER NOT NULL, unnamed_since REAL) WITHOUT ROWID;
CREATE INDEX contents_unnamed ON contents (unnamed_since) WHERE unnamed_since IS NOT NULL;
CREATE TABLE entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INTEGER NOT NULL REFERENCES users, filepath TEXT NOT NULL,
    hostname TEXT NOT NULL, sha256 TEXT NOT NULL, ip_address TEXT NOT NULL, file_size INTEGER NOT NULL,
    file_mode INTEGER NOT NULL, file_uid INTEGER NOT NULL, file_gid INTEGER NOT NULL, file_mtime REAL NOT NULL,
    file_atime REAL NOT NULL, file_ctime REAL NOT NULL, has_content INTEGER NOT NULL, uploaded_at REAL,
    created_at REAL NOT NULL, changed_at REAL NOT NULL, status TEXT NOT NULL, deleted_at TEXT,
    UNIQUE (user_id, sha256, hostname, filepath));
CREATE INDEX entries_by_sha256 ON entries (sha256, status);
CREATE INDEX entries_newest ON entries (user_id, status, changed_at DESC, id DESC);
"""


class Database:
    """Reads run side by side in the caller's thread; writes run one after the other in a thread of their own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._waiting: queue.SimpleQueue[tuple[Callable[[sqlite3.Connection], Any], Future[Any]] | None] = (
            queue.SimpleQueue()
        )
        try:
            for suffix in ("", "-wal", "-shm"):  # SQLite would make them with the umask
                os.close(disk.open_private(path.with_name(path.name + suffix), os.O_RDWR))
            self._connection = self._open()
            self._prepare()
        except OSError as error:
            raise local_error(error, f"open {path}") from error
        except sqlite3.DatabaseError as error:
            raise Corrupt(
                f"The server's database {path} cannot be used: {error}.",
                hint="Restore it from a backup, or choose another --data.",
            ) from error
        self._writer = threading.Thread(target=self._write_groups, name="database", daemon=True)
        self._writer.start()

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run `query` on a connection of its own. It sees every write that has returned."""
        try:
            connection = self._readers.get_nowait()
        except queue.Empty:
            connection = self._open()
        try:
            return query(connection)
        finally:
            self._readers.put(connection)

    def submit(self, change: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Run `change` in a transaction. The future is done when it is durable, or has its error and had no effect."""
        future: Future[T] = Future()
        self._waiting.put((change, future))
        return future

    def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        return self.submit(change).result()

    def close(self) -> None:
        """Finish the writes that wait, then close. Idempotent."""
        self._waiting.put(None)
        self._writer.join()
        with contextlib.suppress(queue.Empty):
            while True:
                self._readers.get_nowait().close()
        self._connection.close()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _prepare(self) -> None:
        with _transaction(self._connection):
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version={_VERSION}")
            elif version != _VERSION:
                raise sqlite3.DatabaseError(f"it has format {version}, this ppcli knows {_VERSION}")

    def _write_groups(self) -> None:
        """The writer thread: take what waits, run it in one transaction, commit, and only then tell anyone."""
        while (first := self._waiting.get()) is not None:
            group = [first]
            ended = False
            with contextlib.suppress(queue.Empty):
                while len(group) < _GROUP:
                    entry = self._waiting.get_nowait()
                    if entry is None:
                        ended = True
                        break
                    group.append(entry)
            self._write(group)
            if ended:
                return

    def _write(self, group: list[tuple[Callable[[sqlite3.Connection], Any], Future[Any]]]) -> None:
        results: list[tuple[Future[Any], Any]] = []
        try:
            with _transaction(self._connection):
                for change, future in group:
                    try:
                        with _savepoint(self._connection):
                            results.append((future, change(self._connection)))
                    except Exception as error:
                        future.set_exception(error)
        except Exception as error:  # nothing of the group is durable
            for future, _ in results:
                future.set_exception(error)
            return
        for future, result in results:
            future.set_result(result)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk may have rolled it back already
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _savepoint(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("SAVEPOINT change")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK TO change")
            connection.execute("RELEASE change")
        raise
    connection.execute("RELEASE change")
