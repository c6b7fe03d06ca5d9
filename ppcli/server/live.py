"""What the server holds in memory about sessions that are being uploaded; nothing here outlives the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from ppcli.groupsync import GroupSync
from ppcli.server.content import Files
from ppcli.server.frontier import Frontier


class Region:
    """The place of one chunk in its partial file, while requests for it are under way.

    Only `owner` may write there before the chunk is stored; others spool. `finishing` is held by the one request that
    stores (or compares); it belongs to the event loop, `guard` to the worker threads.
    """

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.finishing = asyncio.Lock()
        self.owner: object | None = None
        self.etag: str | None = None
        self.known = False
        """Whether `etag` says what the database says; from then on it is kept so."""
        self.users = 0


class Live:
    """One session. `putting` counts the requests that send chunks; a session that has some is not cleaned up.
    `asking` is held by the one request for complete that occupies a thread."""

    def __init__(self, upload_id: str, files: Files, hashers: Executor, stopped: threading.Event) -> None:
        self.path = files.partial(upload_id)
        self.asking = asyncio.Lock()
        self.frontier = Frontier(self.path, hashers, stopped.is_set)
        self.completing = threading.Lock()
        self.putting = 0
        self._id = upload_id
        self._files = files
        self._named = False
        self._regions: dict[int, Region] = {}
        self._sync = GroupSync(self._fsync)

    @property
    def sync(self) -> GroupSync:
        """To be taken before the first byte is written: after a failed fsync only bytes that were written later may be
        made durable by another one."""
        if self._sync.broken:
            self._sync = GroupSync(self._fsync)
        return self._sync

    @contextmanager
    def region(self, chunk: int) -> Iterator[Region]:
        """The region of a chunk, shared by all requests for it. Event loop only."""
        region = self._regions.setdefault(chunk, Region())
        region.users += 1
        self.putting += 1
        try:
            yield region
        finally:
            self.putting -= 1
            region.users -= 1
            if not region.users:
                del self._regions[chunk]

    def _fsync(self) -> None:
        self._files.sync(self._id, name=not self._named)
        self._named = True


class LiveSessions:
    """All of them, by upload id. Thread-safe."""

    def __init__(self, files: Files, hashers: Executor, stopped: threading.Event) -> None:
        self._files = files
        self._hashers = hashers
        self._stopped = stopped
        self._guard = threading.Lock()
        self._sessions: dict[str, Live] = {}

    def get(self, upload_id: str) -> Live:
        with self._guard:
            live = self._sessions.get(upload_id)
            if live is None:
                live = self._sessions[upload_id] = Live(upload_id, self._files, self._hashers, self._stopped)
            return live

    def forget(self, upload_id: str) -> None:
        with self._guard:
            self._sessions.pop(upload_id, None)

    def idle(self) -> list[str]:
        """The sessions to which no chunk is on its way."""
        with self._guard:
            return [upload_id for upload_id, live in self._sessions.items() if not live.putting]

    def busy(self, upload_id: str) -> bool:
        with self._guard:
            live = self._sessions.get(upload_id)
            return live is not None and live.putting > 0
