"""A cache of whole-file digests, so that a file that did not change need not be read again.

One sqlite file in the data dir, used by any number of threads and processes at once. It is only ever a shortcut: when
it is damaged it is set aside, when it is locked or not writable this process does without.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from pathlib import Path
from types import TracebackType

from ppcli import checksums, disk
from ppcli.disk import StrPath
from ppcli.model import Fingerprint

FILE_NAME = "digests.sqlite"

_BATCH = 500
_FLUSH_AFTER = 1.0
_LOCK_WAIT = 0.5
_KEEP_DAYS = 365

_TABLE = "CREATE TABLE IF NOT EXISTS digest (path BLOB PRIMARY KEY, stamp TEXT, digest TEXT, day INT) WITHOUT ROWID"
_GET = "SELECT digest FROM digest WHERE path = ? AND stamp = ?"
_PUT = "INSERT OR REPLACE INTO digest VALUES (?, ?, ?, ?)"
_PRUNE = "DELETE FROM digest WHERE day < ?"

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class DigestCache:
    """`algorithm:hex` by absolute path, algorithm and fingerprint. None of its methods fails because of the cache."""

    def __init__(self, data_dir: Path) -> None:
        """Opens nothing yet; `get` alone never creates the file."""
        self._path = data_dir / FILE_NAME
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._pending: dict[bytes, tuple[str, str]] = {}
        self._flushed = time.monotonic()
        self._usable = True
        self._pruned = False

    def get(self, path: StrPath, seen: Fingerprint, algorithm: str = checksums.SHA256) -> str | None:
        """The digest that was recorded for exactly this revision."""
        key, stamp = _key(path, algorithm), _stamp(seen)
        with self._lock:
            if key in self._pending:
                known, digest = self._pending[key]
                return digest if known == stamp else None
            return self._read(key, stamp)

    def put(self, path: StrPath, seen: Fingerprint, digest: str) -> None:
        """Record a digest of content that was read after `seen` had settled and before it changed. Kept in memory for
        up to a second's worth of calls; `close` writes the rest."""
        with self._lock:
            if not self._usable:
                return
            self._pending[_key(path, digest.partition(":")[0])] = (_stamp(seen), digest)
            if len(self._pending) >= _BATCH or time.monotonic() - self._flushed >= _FLUSH_AFTER:
                self._flush()

    def close(self) -> None:
        """Write what is pending. Repeatable."""
        with self._lock:
            self._flush()
            self._disconnect()

    def __enter__(self) -> DigestCache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # The lock is held in everything below.

    def _read(self, key: bytes, stamp: str) -> str | None:
        if not self._usable or (not self._database and not self._path.exists()):
            return None
        try:
            row = self._connect().execute(_GET, (key, stamp)).fetchone()
        except (sqlite3.Error, OSError) as error:
            self._do_without(error)
            return None
        return row[0] if row and isinstance(row[0], str) else None

    def _flush(self) -> None:
        if not self._pending:
            return
        day = int(time.time() // 86400)
        rows = [(key, stamp, digest, day) for key, (stamp, digest) in self._pending.items()]
        self._pending.clear()
        for _ in range(2):  # once more after a damaged file was set aside
            if not self._usable:
                return
            try:
                self._write(rows)
                break
            except (sqlite3.Error, OSError) as error:
                self._do_without(error)
        self._flushed = time.monotonic()

    def _write(self, rows: list[tuple[bytes, str, str, int]]) -> None:
        with self._connect() as database:  # commits, or rolls back
            if not self._pruned:  # once a process, and only where something is written anyway
                database.execute(_PRUNE, (rows[0][3] - _KEEP_DAYS,))
            database.executemany(_PUT, rows)
        self._pruned = True

    def _connect(self) -> sqlite3.Connection:
        if self._database:
            return self._database
        disk.make_dir(self._path.parent)
        os.close(disk.open_private(self._path, os.O_RDWR))  # sqlite gives its side files the same mode
        self._database = database = sqlite3.connect(self._path, timeout=_LOCK_WAIT, check_same_thread=False)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute(_TABLE)
        return database

    def _disconnect(self) -> None:
        if self._database:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _do_without(self, error: sqlite3.Error | OSError) -> None:
        """Set a damaged file aside and begin a new one; after anything else, and where that fails, use none."""
        self._disconnect()
        code = getattr(error, "sqlite_errorcode", None) or 0
        try:
            if code & 0xFF not in _DAMAGE:
                raise OSError
            disk.set_aside(self._path)
            for suffix in ("-wal", "-shm"):
                self._path.with_name(FILE_NAME + suffix).unlink(missing_ok=True)
        except OSError:
            self._usable = False


def _key(path: StrPath, algorithm: str) -> bytes:
    place = os.fsencode(path if str(path).startswith(os.sep) else Path(path).absolute())
    return place if algorithm == checksums.SHA256 else place + b"\0" + algorithm.encode()


def _stamp(seen: Fingerprint) -> str:
    """As text: inode and device numbers may be larger than sqlite's integers."""
    return f"{seen.size} {seen.mtime_ns} {seen.ctime_ns} {seen.inode} {seen.device}"
