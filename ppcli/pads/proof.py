"""What a pad's header proves about a chunk that is believed to be in it. Pure."""

from __future__ import annotations

from enum import Enum

from ppcli.model import Receipt
from ppcli.pads.header import Header


class Proof(Enum):
    """What a pad's header says about a chunk that is believed to be there."""

    CONTENT = "it is there"
    NOTHING = "nobody says that it was written"
    WRONG = "something else is there"


def matches(head: Header, session_id: str, receipt: Receipt) -> bool:
    """Whether a pad is the chunk of a receipt: written by this session, or adopted by it (then the counter tells)."""
    ours = head.stamp.owner.hex() == session_id or str(head.counter) == receipt.etag
    return ours and head.holds(receipt.index, receipt.size, receipt.checksum)


def judge(head: Header | None, session_id: str, receipt: Receipt) -> Proof:
    """A receipt without an etag is of a slot that was reserved, and perhaps written after."""
    if head and receipt.checksum and matches(head, session_id, receipt):
        return Proof.CONTENT
    return Proof.NOTHING if receipt.etag is None else Proof.WRONG
