"""What was removed from PutPlace servers by us: putplace-server up to 0.11 marks a removed file as deleted and goes on
listing it, without the mark. One small sqlite file in the data dir, for any number of processes."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ppcli.errors import Local

FILE_NAME = "removed.sqlite"

_TABLE = "CREATE TABLE IF NOT EXISTS removed (place TEXT, entry TEXT, PRIMARY KEY (place, entry)) WITHOUT ROWID"
_LOCK_WAIT = 5.0


class Removed:
    """Entries, by the server's own ids, that were removed from one place. Opens nothing until it is asked."""

    def __init__(self, data_dir: Path, place: str) -> None:
        self._path = data_dir / FILE_NAME
        self._place = place
        self._known: frozenset[str] | None = None

    def add(self, entries: Iterable[str]) -> None:
        """Raises `Local` where it cannot be written."""
        if rows := [(self._place, entry) for entry in entries]:
            with self._database(create=True) as database:
                database.executemany("INSERT OR REPLACE INTO removed VALUES (?, ?)", rows)
            self._known = None

    def __contains__(self, entry: str | None) -> bool:
        if self._known is None:
            self._known = self._read()
        return entry in self._known

    def _read(self) -> frozenset[str]:
        if not self._path.exists():
            return frozenset()
        with self._database() as database:
            asked = database.execute("SELECT entry FROM removed WHERE place = ?", (self._place,))
            return frozenset(str(row[0]) for row in asked)

    @contextmanager
    def _database(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        try:
            if create:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._path.touch(mode=0o600)
            with contextlib.closing(sqlite3.connect(self._path, timeout=_LOCK_WAIT)) as database, database:
                database.execute(_TABLE)
                yield database
        except (sqlite3.Error, OSError) as error:
            raise Local(
                f"The list of removed files cannot be used: {error} ({self._path}).",
                hint="Check the data dir, or delete that file.",
                reason="io",
            ) from error
