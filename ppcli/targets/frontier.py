"""Uploads whose server counts bytes: one offset each, up to which everything is there, and from which the rest goes.

What both resumable upload protocols share (tus 1.0, and the IETF draft). An offset is believed as the server tells it:
ahead of what we know, it is the proof of a reply that was lost; behind it, the bytes go again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from ppcli.errors import Further, Loss, SessionLost, Transient, source_changed
from ppcli.model import Evidence, FilePlan, Part, Receipt, Slot
from ppcli.target import Body, ChunkBytes

Ask: TypeAlias = Callable[[str], int]
"""The server's offset of an upload."""

Append: TypeAlias = Callable[[str, int, Body], int]
"""Send a body from an offset on; gives the server's offset after it."""


class Frontiers:
    """The offsets of uploads, by URL, as far as they are certain. One thread at a time sends to an upload."""

    def __init__(self) -> None:
        self._certain: dict[str, int] = {}
        self._doubted: dict[str, int] = {}

    def set(self, url: str, offset: int) -> None:
        """The server says so."""
        self._certain[url] = offset

    def forget(self, url: str) -> None:
        """The upload is over."""
        self._certain.pop(url, None)
        self._doubted.pop(url, None)

    def advance(self, url: str, start: int, body: ChunkBytes, ask: Ask, append: Append) -> int:
        """Bring an upload to the end of the chunk that begins at its byte `start`; gives how many bytes went. Only what
        the server lacks is sent; after a call that failed, it is asked before anything goes. Raises `Further` where the
        server has got nearer and is not there yet, `SessionLost` for offsets that no honest server has."""
        end = start + body.size
        at = self._offset(url, end, ask)
        if at < start:
            raise SessionLost(f"the server has {at} bytes and had confirmed {start}", Loss.BEHIND)
        if at > end:
            raise SessionLost(f"the server claims {at} bytes and was sent {end}", Loss.POISONED)
        tail = body.tail(at - start)
        if tail.size == 0:
            for _ in tail:
                pass  # for its checksum
            return 0
        now = self._appended(url, at, tail, append)
        if at < now < end:
            raise Further(f"the server took {now - at} of {end - at} bytes")
        if now < end:
            raise Transient(f"the server took none of {end - at} bytes")
        if now > end:
            raise SessionLost(f"the server claims {now} bytes and was sent {end}", Loss.POISONED)
        return tail.size

    def _offset(self, url: str, end: int, ask: Ask) -> int:
        known = self._certain.get(url)
        if known is not None:
            return known
        now = ask(url)
        self.set(url, now)
        before = self._doubted.pop(url, None)
        if before is not None and before < now < end:
            raise Further(f"the server has {now - before} bytes of a call that failed")
        return now

    def _appended(self, url: str, at: int, tail: Body, append: Append) -> int:
        self._certain.pop(url, None)
        self._doubted[url] = at
        now = append(url, at, tail)
        self._doubted.pop(url, None)
        self.set(url, now)
        return now


def counted(receipt: Receipt) -> Receipt:
    """With the evidence of the offset, where it has none."""
    return receipt if receipt.evidence else replace(receipt, evidence=Evidence.OFFSET)


def held_below(offset: int, file: FilePlan, known: Sequence[Receipt]) -> dict[int, Receipt]:
    """The chunks that lie before an offset, of those whose bytes are known."""
    return {
        receipt.index: counted(receipt)
        for receipt in known
        if receipt.checksum and receipt.index * file.chunk_size + receipt.size <= offset
    }


def proved(file: FilePlan, part: Part, slot: Slot, body: Body, evidence: Evidence) -> Receipt:
    """The receipt of a chunk that is there. Raises `SourceError` where its bytes are not those of the checksum that was
    recorded before they went."""
    if part.checksum not in (None, body.checksum):
        raise source_changed(f"{file.name} changed while it was sent")
    return Receipt(part.index, part.size, slot, body.checksum, None, evidence)
