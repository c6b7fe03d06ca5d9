"""SQLite: what the server knows. One thread writes, in groups; a commit is durable when it returns, unless lazy."""

from __future__ import annotations

import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ppcli import disk
from ppcli.errors import Busy, Corrupt, Local, PpcliError, local_error

T = TypeVar("T")

DATABASE = "server.sqlite3"
_GROUP = 64
"""How many writes share one commit, and so one fsync, at most."""
_VERSION = 2
_PATIENCE = 30.0
"""Seconds that another process (`--new-token`) may hold the write lock."""
_MACHINE = {
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}  # fmt: skip

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
    asset TEXT, created_at REAL NOT NULL, expires_at REAL NOT NULL, ended_at REAL, file_id INTEGER) WITHOUT ROWID;
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
CREATE INDEX entries_by_name ON entries (user_id, filepath, hostname);
CREATE INDEX entries_newest ON entries (user_id, status, changed_at DESC, id DESC);
"""
_SINCE_2 = """
CREATE TABLE IF NOT EXISTS assets (
    id TEXT PRIMARY KEY, entry INTEGER NOT NULL UNIQUE REFERENCES entries, about TEXT NOT NULL,
    asset_type TEXT NOT NULL, created_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pad_stores (
    id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL REFERENCES users, tag TEXT NOT NULL, store_id BLOB NOT NULL,
    pad_size INTEGER NOT NULL, current TEXT NOT NULL, seq INTEGER NOT NULL, created_at REAL NOT NULL,
    UNIQUE (user_id, tag));
CREATE TABLE IF NOT EXISTS pads (
    id INTEGER PRIMARY KEY AUTOINCREMENT, store INTEGER NOT NULL REFERENCES pad_stores, address BLOB NOT NULL UNIQUE);
CREATE INDEX IF NOT EXISTS pads_by_store ON pads (store);
"""


@dataclass(frozen=True, slots=True)
class _Write:
    change: Callable[[sqlite3.Connection], Any]
    lazy: bool
    future: Future[Any] = field(default_factory=Future)


class Database:
    """Reads run side by side in the caller's thread; writes run one after the other in a thread of their own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._syncs = True
        self._closing = threading.Lock()
        self._closed = False
        self._readers: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._waiting: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        with database_errors(path):
            for suffix in ("", "-wal", "-shm"):  # SQLite would make them with the umask
                os.close(disk.open_private(path.with_name(path.name + suffix), os.O_RDWR))
            self._connection = self._open()
            self._prepare()
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

    def submit(self, change: Callable[[sqlite3.Connection], T], *, lazy: bool = False) -> Future[T]:
        """Run `change` in a transaction. The future is done when it is durable, or has its error and had no effect.

        `lazy`: done when it is committed. It survives the process at once, a power cut from the next write on that is
        not lazy: no later change is ever kept without it.
        """
        write = _Write(change, lazy)
        with self._closing:
            if self._closed:
                raise sqlite3.ProgrammingError("The database is closed")
            self._waiting.put(write)
        return write.future

    def write(self, change: Callable[[sqlite3.Connection], T], *, lazy: bool = False) -> T:
        return self.submit(change, lazy=lazy).result()

    def close(self) -> None:
        """Finish the writes that wait, then close. Idempotent."""
        with self._closing:
            self._closed = True
            self._waiting.put(None)
        self._writer.join()
        with contextlib.suppress(queue.Empty):
            while True:
                self._readers.get_nowait().close()
        self._connection.close()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _prepare(self) -> None:
        with _transaction(self._connection):
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if version == _VERSION:
                return
            if version not in (0, 1):
                raise sqlite3.DatabaseError(f"it has format {version}, this ppcli knows {_VERSION}")
            if version == 0:
                self._execute(_SCHEMA)
            elif not any(row["name"] == "asset" for row in self._connection.execute("PRAGMA table_info(sessions)")):
                self._execute("ALTER TABLE sessions ADD COLUMN asset TEXT")
            self._execute(_SINCE_2)
            self._execute(f"PRAGMA user_version={_VERSION}")

    def _execute(self, statements: str) -> None:
        for statement in filter(str.strip, statements.split(";")):
            self._connection.execute(statement)

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

    def _write(self, group: list[_Write]) -> None:
        """Every future of the group gets its result or an error, whatever happens: somebody waits for each."""
        group = [write for write in group if write.future.set_running_or_notify_cancel()]
        results: list[tuple[Future[Any], Any]] = []
        try:
            self._sync_commits(not all(write.lazy for write in group))
            with _transaction(self._connection):
                for write in group:
                    try:
                        with _savepoint(self._connection):
                            results.append((write.future, write.change(self._connection)))
                    except Exception as error:  # whatever it is, it belongs to who asked for this change
                        if not self._connection.in_transaction:  # a full disk has rolled all of it back
                            raise
                        write.future.set_exception(error)
        except BaseException as error:  # nothing of the group is durable
            for write in group:
                if not write.future.done():
                    write.future.set_exception(error)
            return
        for future, result in results:
            future.set_result(result)

    def _sync_commits(self, wanted: bool) -> None:
        """Whether the next commit syncs the log; one that does syncs all that was committed before, too."""
        if wanted != self._syncs:
            self._connection.execute(f"PRAGMA synchronous={'FULL' if wanted else 'NORMAL'}")
            self._syncs = wanted


@contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """What goes wrong with the database at `path` as an error of ours: `Busy`, `Local` or `Corrupt`."""
    try:
        yield
    except OSError as error:
        raise local_error(error, f"open {path}") from error
    except sqlite3.Error as error:
        raise _told(error, path) from error


def _told(error: sqlite3.Error, path: Path) -> PpcliError:
    what = f"The server's database {path} cannot be used: {error}."
    code = error_code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Busy(what, hint="Try again when the other process has ended.", reason="locked")
    if code in _MACHINE:
        full, read_only = code == sqlite3.SQLITE_FULL, code == sqlite3.SQLITE_READONLY
        reason = "disk_full" if full else "read_only" if read_only else None
        return Local(what, hint="Check the disk, or choose another --data.", reason=reason)
    return Corrupt(what, hint="Restore it from a backup, or choose another --data.")


def error_code(error: sqlite3.Error) -> int | None:
    """The primary code that SQLite gave; None where it was none of its own."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:  # also a stop: the connection goes on, so nothing may stay half done
        if connection.in_transaction:  # a full disk may have rolled it back already
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _savepoint(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("SAVEPOINT change")
    try:
        yield
    except BaseException:  # as above, for this change alone
        if connection.in_transaction:
            connection.execute("ROLLBACK TO change")
            connection.execute("RELEASE change")
        raise
    connection.execute("RELEASE change")
