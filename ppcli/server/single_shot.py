"""A whole file in one request: written and hashed while it arrives, durable and with an entry before it is answered."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from ppcli import disk
from ppcli.server.batches import BATCH
from ppcli.server.completing import Completer
from ppcli.server.content import Files
from ppcli.server.plan import Wanted
from ppcli.server.refusal import Refused
from ppcli.server.sessions import Session, Sessions
from ppcli.server.users import User

T = TypeVar("T")


class SingleShot:
    """Called on the event loop; what takes the processor or waits for the disk runs in `takers`."""

    def __init__(self, files: Files, sessions: Sessions, completer: Completer, takers: Executor) -> None:
        self._files = files
        self._sessions = sessions
        self._completer = completer
        self._takers = takers

    async def receive(
        self, user: User, body: AsyncIterator[bytes], most: int, wanted: Callable[[int, str], Wanted]
    ) -> Session:
        """Store `body`, of at most `most` bytes. `wanted` is asked once all of it is there, with its size
        and SHA-256: it gives what to store, or raises. Gives the completed session."""
        upload_id = str(uuid.uuid4())
        incoming = await self._run(lambda: _File(self._files, upload_id))
        try:
            pieces: list[bytes] = []
            collected = 0
            async for piece in body:
                pieces.append(piece)
                collected += len(piece)
                if incoming.size + collected > most:
                    raise Refused(413, f"File too large. Maximum size: {most} bytes", code="file_too_large")
                if collected >= BATCH:
                    await self._run(partial(incoming.take, b"".join(pieces)))
                    pieces, collected = [], 0
            return await asyncio.shield(self._run(lambda: self._finish(user, incoming, b"".join(pieces), wanted)))
        finally:
            await asyncio.shield(self._run(incoming.close))

    def _finish(self, user: User, incoming: _File, rest: bytes, wanted: Callable[[int, str], Wanted]) -> Session:
        with incoming.using:
            incoming.take(rest)
            told = wanted(incoming.size, incoming.hash.hexdigest())
            self._files.sync(incoming.upload_id, name=True)
            session = self._sessions.adopt(user, told, incoming.upload_id)
            incoming.kept = True
            return self._completer.place(session)

    def _run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._takers, work)


class _File:
    """A partial file that no session names yet: dropped when it is closed, unless it was `kept`. A request that is
    cancelled leaves a thread running: closing waits for whoever is `using` it."""

    def __init__(self, files: Files, upload_id: str) -> None:
        self.upload_id = upload_id
        self.using = threading.RLock()
        self.hash = hashlib.sha256()
        self.size = 0
        self.kept = False
        self._files = files
        files.create(upload_id)
        self._fd = os.open(files.partial(upload_id), os.O_RDWR | os.O_CLOEXEC)

    def take(self, batch: bytes) -> None:
        with self.using:
            if self._fd < 0:
                raise InterruptedError("the request has ended")
            self.hash.update(batch)
            disk.write_all(self._fd, batch, self.size)
            self.size += len(batch)

    def close(self) -> None:
        with self.using:
            os.close(self._fd)
            self._fd = -1
            if not self.kept:
                self._files.drop(self.upload_id)
