"""Bodies on their way in, as batches: large enough that a thread is worth while, small enough to hold two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from ppcli.server.refusal import Refused

BATCH = 1 << 20
"""Bytes that are collected before a thread hashes and writes them. A request holds two batches at most."""


async def hand_over(
    body: AsyncIterator[bytes],
    size: int,
    give: Callable[[list[bytes]], asyncio.Future[None]],
    wrong: Callable[[str], Refused],
) -> None:
    """Give the body away in batches; while one is being written the next is collected. It must have exactly `size`
    bytes: `wrong` makes the refusal otherwise."""
    writing: asyncio.Future[None] | None = None
    pieces: list[bytes] = []
    collected = total = 0
    try:
        async for piece in body:
            pieces.append(piece)
            collected += len(piece)
            total += len(piece)
            if total > size:
                raise wrong("more")
            if collected >= BATCH:
                if writing is not None:
                    await writing
                writing = give(pieces)
                pieces, collected = [], 0
        if total < size:
            raise wrong(str(total))
    finally:
        if writing is not None:
            await asyncio.wait([writing])  # or its error would be nobody's
    if writing is not None:
        await writing
    await give(pieces)
