"""One pad on its way in: its payload, then its header, which tells the digest of what came before."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import TypeVar

import xxhash

from ppcli import disk
from ppcli.pads import header
from ppcli.pads.header import Header
from ppcli.server.batches import hand_over
from ppcli.server.pads import Held, Pads
from ppcli.server.refusal import Refused

T = TypeVar("T")


class PadReceiver:
    """Called on the event loop; what takes the processor or waits for the disk runs in threads."""

    def __init__(self, pads: Pads, workers: Executor, takers: Executor) -> None:
        self._pads = pads
        self._workers = workers
        self._takers = takers

    async def receive(self, held: Held, length: int, body: AsyncIterator[bytes]) -> Header:
        """Store a pad from a body of `length` bytes; it is durable when this returns, and as it was before where it
        raises. Raises `Refused` 400, 409, 412 or 413, OSError, and whatever `body` raises."""
        payload = length - header.SIZE
        if payload < 0:
            raise Refused(400, f"A pad ends with its header of {header.SIZE} bytes")
        if payload > held.pad_size:
            raise Refused(413, f"A pad of this store holds {held.pad_size} bytes, not {payload}")
        incoming = _Incoming(self._pads, held, payload)
        try:
            await self._run(self._workers, incoming.open)
            await hand_over(body, length, lambda pieces: self._run(self._takers, incoming.take, pieces), _other(length))
            return await self._run(self._workers, incoming.finish)
        finally:
            self._workers.submit(incoming.close)

    def _run(self, pool: Executor, function: Callable[..., T], *args: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(pool, function, *args)


class _Incoming:
    """The bytes of one request. Its methods run in other threads, one at a time, and none after `close`."""

    def __init__(self, pads: Pads, held: Held, payload: int) -> None:
        self._pads = pads
        self._held = held
        self._payload = payload
        self._path = pads.files.incoming()
        self._fd = -1
        self._taken = 0
        self._head = b""
        self._digest = xxhash.xxh3_128()
        self._using = threading.Lock()
        self._closed = False

    def open(self) -> None:
        with self._using:
            self._check_open()
            self._fd = disk.open_private(self._path, os.O_WRONLY)

    def take(self, pieces: list[bytes]) -> None:
        batch = memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        with self._using:
            self._check_open()
            data = batch[: max(0, self._payload - self._taken)]
            self._digest.update(data)
            disk.write_all(self._fd, data, header.SIZE + self._taken)
            self._taken += len(data)
            self._head += bytes(batch[len(data) :])

    def finish(self) -> Header:
        """Check what arrived, and make it what the pad holds."""
        with self._using:
            self._check_open()
            head = checked(self._head, self._held, self._payload, self._digest.digest())
            disk.write_all(self._fd, self._head, 0)
            disk.fsync(self._fd)
            self._pads.place(self._held, self._path, head)
            return head

    def close(self) -> None:
        """Idempotent."""
        with self._using:
            self._closed = True
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
                self._path.unlink(missing_ok=True)

    def _check_open(self) -> None:
        if self._closed:
            raise InterruptedError("the request has ended")


def checked(raw: bytes, held: Held, length: int, digest: bytes) -> Header:
    """The header of a pad whose payload has `length` bytes with this XXH3-128. Raises `Refused` 400."""
    head = header.unpack(raw, held.secret)
    if head is None:
        raise Refused(400, "The header of the pad is not authentic")
    if (head.pad_size, head.length) != (held.pad_size, length):
        raise Refused(400, "The header of the pad tells other sizes")
    if head.digest != digest:
        raise Refused(400, "The payload is not the one that the header tells of")
    return head


def _other(length: int) -> Callable[[str], Refused]:
    return lambda got: Refused(400, f"The body has {got} bytes, not {length}")
