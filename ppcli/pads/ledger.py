"""The index on disk: a snapshot (`index.json`), the operations since then (`index.jsonl`), and a lock for whoever reads
or writes them. It follows what other processes append, and reads everything again only where one of them compacted.

A snapshot and a journal are there from the start, so a missing one is damage. What is damaged is set aside, the
snapshot first: without one the next process knows that the index is to be rebuilt.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ppcli import disk, journal
from ppcli.errors import local_error, local_io
from ppcli.lock import Lock
from ppcli.pads import wire
from ppcli.pads.index import Op, State

SNAPSHOT = "index.json"
JOURNAL = "index.jsonl"
LOCK = "index.lock"

PATIENCE = 60.0
"""Seconds to wait for another process: it holds the lock for one operation only."""

COMPACT_AT = 1 << 20
"""Bytes of journal, at least, before a new snapshot is written; and never less than the last snapshot had."""

_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the lock of the store in `root`. Raises `Busy` where that takes longer than `PATIENCE`."""
    lock = Lock(root / LOCK)
    lock.acquire(f"The pad store {root}", PATIENCE)
    try:
        yield
    finally:
        lock.release()


def create(root: Path) -> None:
    """An empty index. The caller holds the lock."""
    with local_io("create the pad index"):
        disk.write_atomic(root / JOURNAL, ())
        disk.write_atomic(root / SNAPSHOT, [wire.encode_state(State())])


class Ledger:
    """The index of one store, as of the last transaction. `rebuild` makes it from the pads, given the old state where
    that could be read."""

    def __init__(self, root: Path, rebuild: Callable[[State | None], State]) -> None:
        self.state = State()
        self.set_aside: list[Path] = []
        """Damaged files that this process replaced, under the names they have now."""
        self._root = root
        self._rebuild = rebuild
        self._mutex = threading.Lock()
        self._journal: journal.Journal | None = None
        self._inode = 0
        self._snapshot_size = 0

    @contextmanager
    def transaction(self) -> Iterator[State]:
        """Hold the index: nobody changes it meanwhile but the caller, by `record`. The state is up to date."""
        with self._mutex, locked(self._root):
            self._catch_up()
            yield self.state

    @contextmanager
    def look(self) -> Iterator[State]:
        """The state as of now, for reading. Takes the lock only where the files say that there is news."""
        with self._mutex:
            now = self._stat_journal()
            if self._journal is None or now is None or (now.st_ino, now.st_size) != (self._inode, self._journal.size):
                with locked(self._root):
                    self._catch_up()
            yield self.state

    def record(self, op: Op) -> None:
        """Make an operation durable, then fold it. Only within a transaction."""
        assert self._journal is not None
        self._journal.append([wire.encode(self.state.seq + 1, op)])
        self.state.fold(op)
        if self._journal.size > max(COMPACT_AT, self._snapshot_size):
            self._write_snapshot()
            self._restart()

    def start_over(self) -> None:
        """Rebuild the index from the pads, though it may be sound: it is set aside only where they tell of other
        versions. Only within a transaction."""
        state = self._rebuild(self.state)
        if state.names != self.state.names:
            self._supplant(state)
            return
        self.state = state
        self._write_snapshot()
        self._restart()

    def close(self) -> None:
        with self._mutex:
            if self._journal:
                self._journal.close()
                self._journal = None

    def _catch_up(self) -> None:
        """While our journal is open its inode cannot be given to another file: the same number is the same file."""
        now = self._stat_journal()
        if now is None:
            self._replace(None)
        elif self._journal is None or now.st_ino != self._inode or now.st_size < self._journal.size:
            self._load()
        elif now.st_size > self._journal.size:
            self._follow()

    def _load(self) -> None:
        reading = journal.read(self._root / JOURNAL)
        snapshot = None if reading.damaged else self._read_snapshot()
        before = snapshot.seq if snapshot else 0
        state = self._replay(snapshot, reading.records)
        if state is None:
            self._replace(None)
            return
        self.state = state
        if reading.torn:  # the pads tell what the lost end said
            self._replace(state)
            return
        self._attach(reading.sound)
        if reading.records and state.seq == before:
            self._restart()  # a compaction was cut off between its two steps, or an older journal was put back

    def _follow(self) -> None:
        """Fold what another process appended since our last look."""
        assert self._journal is not None
        known = self._journal.size
        with local_io("read the pad index"), open(self._root / JOURNAL, "rb") as file:
            file.seek(known)
            reading = journal.parse(file.read())
        if reading.damaged or self._replay(self.state, reading.records) is None:
            self._replace(None)
        elif reading.torn:
            self._replace(self.state)
        else:
            self._journal.size = known + reading.sound

    @staticmethod
    def _replay(state: State | None, records: list[dict[str, Any]]) -> State | None:
        """Fold the operations that `state` does not have yet; None where they do not fit."""
        try:
            for record in records:
                if state is None or record["seq"] > state.seq + 1:
                    return None
                if record["seq"] == state.seq + 1:
                    state.fold(wire.decode(record))
        except _UNREADABLE:
            return None
        return state

    def _attach(self, sound: int) -> None:
        """Go on writing after the first `sound` bytes of the journal; a torn tail is cut off."""
        if self._journal:
            self._journal.close()
        self._journal = journal.Journal(self._root / JOURNAL, sound)
        self._know_journal()

    def _restart(self) -> None:
        """Empty the journal: the snapshot has all of it."""
        assert self._journal is not None
        self._journal.restart()
        self._know_journal()

    def _read_snapshot(self) -> State | None:
        try:
            data = (self._root / SNAPSHOT).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise local_error(error, "read the pad index") from error
        self._snapshot_size = len(data)
        with suppress(*_UNREADABLE):
            return wire.decode_state(data)
        return None

    def _write_snapshot(self) -> None:
        data = wire.encode_state(self.state)
        with local_io("write the pad index"):
            disk.write_atomic(self._root / SNAPSHOT, [data])
        self._snapshot_size = len(data)

    def _replace(self, old: State | None) -> None:
        self._supplant(self._rebuild(old))

    def _supplant(self, state: State) -> None:
        """Set what was there aside, and begin anew."""
        with local_io("replace the pad index"):
            for path in (self._root / SNAPSHOT, self._root / JOURNAL):
                with suppress(FileNotFoundError):
                    self.set_aside.append(disk.set_aside(path))
            disk.write_atomic(self._root / JOURNAL, ())
        self.state = state
        self._write_snapshot()
        self._attach(0)

    def _know_journal(self) -> None:
        now = self._stat_journal()
        self._inode = now.st_ino if now else 0

    def _stat_journal(self) -> os.stat_result | None:
        try:
            return (self._root / JOURNAL).stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise local_error(error, "read the pad index") from error
