"""One chunk on its way in: hashed and written while it arrives, durable and counted before it is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ppcli import disk
from ppcli.server.batches import hand_over
from ppcli.server.content import Files, read_range
from ppcli.server.database import Database
from ppcli.server.live import Live, LiveSessions, Region
from ppcli.server.refusal import Refused, Unwanted
from ppcli.server.sessions import Session, Sessions, StoredChunk

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Received:
    """What a PUT came to. `received` is 0 when the chunk was there already; `session` is None then."""

    etag: str
    received: int
    session: Session | None


class Receiver:
    """Takes chunks in. Called on the event loop; what takes the processor runs in `takers`, what waits in `workers`."""

    def __init__(
        self,
        database: Database,
        files: Files,
        sessions: Sessions,
        live: LiveSessions,
        workers: Executor,
        takers: Executor,
    ) -> None:
        self._database = database
        self._files = files
        self._sessions = sessions
        self._live = live
        self._workers = workers
        self._takers = takers

    async def receive(
        self, session: Session, chunk: int, body: AsyncIterator[bytes], told: Callable[[], str | None] = lambda: None
    ) -> Received:
        """Store one chunk from `body`, whose length must be exactly right. `told` gives the SHA-256 (hex) that the
        client wants it to have, once the body is there.

        A chunk that was stored before is replaced when other bytes come for it, and kept when the same come. Raises
        `Refused`, OSError, and whatever `body` raises; the chunk counts only if this returns.
        """
        live = self._live.get(session.id)
        with live.region(chunk) as region:
            etag = await self._run(self._sessions.stored, session.id, chunk)
            if not region.known:
                region.etag, region.known = etag, True
            spool = None
            if region.etag is not None or region.owner is not None:
                spool = self._files.spool(session.id)
            incoming = _Incoming(live, region, session, chunk, spool)
            if spool is None:
                region.owner = incoming
            try:
                await self._take(incoming, body)
                if told() not in (None, incoming.etag):
                    raise Refused(400, "What arrived has another SHA-256 than was told", code="checksum_mismatch")
                async with region.finishing:
                    return await self._finish(incoming)
            finally:
                self._workers.submit(incoming.close)

    async def _take(self, incoming: _Incoming, body: AsyncIterator[bytes]) -> None:
        await self._run(incoming.open)
        await hand_over(
            body,
            incoming.size,
            lambda pieces: self._give(incoming, pieces),
            lambda got: Unwanted(incoming.chunk, incoming.size, got),
        )

    async def _finish(self, incoming: _Incoming) -> Received:
        """Make the chunk count. The caller holds `finishing`, so `region.etag` is what the database says."""
        region, etag = incoming.region, incoming.etag
        if region.etag == etag:
            return Received(etag, 0, None)
        if incoming.overtaken:
            raise Refused(503, "Another request for this chunk took over, send it again", retry_after=1)
        if region.etag is not None:
            await self._forget(incoming)
        await self._run(incoming.settle)
        stored = StoredChunk(incoming.chunk, etag, incoming.size)
        session = await self._commit(lambda c: self._sessions.store_chunk(c, incoming.session.id, stored))
        region.etag = etag
        incoming.live.frontier.add(incoming.chunk, incoming.start, incoming.start + incoming.size, incoming.hash)
        return Received(etag, incoming.size, session)

    async def _forget(self, incoming: _Incoming) -> None:
        """The chunk is there with other bytes: it does not count any more from before they change."""
        await self._commit(lambda c: self._sessions.forget_chunk(c, incoming.session.id, incoming.chunk))
        incoming.region.etag = None
        incoming.live.frontier.forget(incoming.chunk)

    def _give(self, incoming: _Incoming, pieces: list[bytes]) -> asyncio.Future[None]:
        return asyncio.get_running_loop().run_in_executor(self._takers, incoming.take, pieces)

    async def _commit(self, change: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.wrap_future(self._database.submit(change))

    def _run(self, function: Callable[..., T], *args: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._workers, function, *args)


class _Incoming:
    """The bytes of one request. Its methods run in other threads, one at a time: a request that is cancelled leaves one
    running, which must not find its file closed, and the number given to another file."""

    def __init__(self, live: Live, region: Region, session: Session, chunk: int, spool: Path | None) -> None:
        assert session.wanted.chunk_size is not None
        self.live = live
        self.region = region
        self.session = session
        self.chunk = chunk
        self.size = session.size_of(chunk)
        self.start = chunk * session.wanted.chunk_size
        self._spool = spool
        self._seen = region.etag
        self._sync = live.sync
        self.hash = hashlib.sha256()
        self._taken = 0
        self._fd = -1
        self._using = threading.Lock()
        self._closed = False

    @property
    def etag(self) -> str:
        """The hex SHA-256 of what has been taken."""
        return self.hash.hexdigest()

    @contextlib.contextmanager
    def _open_file(self) -> Iterator[None]:
        with self._using:
            if self._closed:
                raise InterruptedError("the request has ended")
            yield

    def open(self) -> None:
        with self._open_file():
            if self._spool is not None:
                self._fd = disk.open_private(self._spool, os.O_RDWR)
            else:
                self._fd = os.open(self.live.path, os.O_RDWR | os.O_CLOEXEC)

    def take(self, pieces: list[bytes]) -> None:
        """The pieces become one: each call that gives up the interpreter lock has to queue for it afterwards."""
        batch = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        with self._open_file():
            self.hash.update(batch)
            if self._spool is not None:
                disk.write_all(self._fd, batch, self._taken)
            else:
                with self.region.guard:
                    if self.region.owner is self:
                        disk.write_all(self._fd, batch, self.start + self._taken)
            self._taken += len(batch)

    @property
    def overtaken(self) -> bool:
        """Whether another request stored other bytes since this one began, or has taken its place: what a client sent
        earlier never replaces what it sent later."""
        return self.region.etag != self._seen or (self._spool is None and self.region.owner is not self)

    def settle(self) -> None:
        """Have the bytes durable at their place."""
        with self._open_file():
            if self._spool is not None:
                self._copy()
        self._sync.wait()

    def _copy(self) -> None:
        """From the spool to the place. Who was writing there goes on hashing only."""
        with self.region.guard:
            self.region.owner = self
            fd = os.open(self.live.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                at = self.start
                for piece in read_range(self._fd, 0, self.size):
                    disk.write_all(fd, piece, at)
                    at += len(piece)
            finally:
                os.close(fd)

    def close(self) -> None:
        """Give up the place and the file. Idempotent."""
        with self._using:
            self._closed = True
            with self.region.guard:
                if self.region.owner is self:
                    self.region.owner = None
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
        if self._spool is not None:
            with contextlib.suppress(OSError):
                self._spool.unlink(missing_ok=True)
