"""What is remembered of servers: a small sqlite file in the data dir, for any number of processes. It only ever saves
work: where it cannot be used, everything goes on without it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LOCK_WAIT = 2.0


class Memory:
    """Opens nothing until it is asked. `tables` are the statements that make what is not there yet."""

    def __init__(self, path: Path, tables: str) -> None:
        self._path = path
        self._tables = tables

    def _get(self, asked: str, *values: object) -> tuple[Any, ...] | None:
        if not self._path.exists():
            return None
        with contextlib.suppress(sqlite3.Error, OSError), self._database() as database:
            row: tuple[Any, ...] | None = database.execute(asked, values).fetchone()
            return row
        return None

    def _put(self, told: str, *values: object) -> None:
        with contextlib.suppress(sqlite3.Error, OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path.touch(mode=0o600)
            with self._database() as database:
                database.execute(told, values)

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self._path, timeout=_LOCK_WAIT)) as database, database:
            database.execute("PRAGMA synchronous=NORMAL")
            database.executescript(self._tables)
            yield database
