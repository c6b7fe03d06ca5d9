"""Chunks of GraphWiz sessions: what is there, and how each gets there.

A server that computes no checksums marks the chunks that it has, loses marks of chunks that are sent side by side, and
may keep and mark what a broken connection brought. So a chunk counts once its own reply came. The last one closes the
session, which can only be completed then: before it goes, the marks of all others are asked for; and where its own
reply was lost it is believed, since the size that `complete` answers tells.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from ppcli.errors import Damaged, Loss, SessionLost
from ppcli.model import Evidence, FilePlan, Part, Receipt, Session, Slot, Survey
from ppcli.target import Body, ChunkBytes
from ppcli.targets.frontier import proved
from ppcli.targets.graphwiz_api import Api, Standing
from ppcli.targets.graphwiz_known import Known

_HERE = "here "


class Chunks:
    """Any thread may call it, for different chunks."""

    def __init__(self, api: Api, known: Known) -> None:
        self._api = api
        self._known = known

    def survey(self, session: Session, file: FilePlan, known: Sequence[Receipt]) -> Survey:
        """See `Target.survey`. A session that is gone may have been completed: then everything it had confirmed is as
        it was, and `complete` finds out."""
        try:
            standing = self._standing(session)
        except SessionLost:
            if sum(one.evidence is not None for one in known) < file.chunks:
                raise
            return Survey({one.index: one for one in known}, authoritative=True)
        held = self._told(standing, file, known) if self._known.checked else self._believed(standing, file, known)
        return Survey(held, authoritative=True, expires_at=standing.expires_at or session.expires_at)

    def adopt(self, part: Part, base: Slot, body: Body) -> Receipt | None:
        """A chunk that is in the session, by the SHA-256 that the server told of it."""
        digest = str(base).removeprefix(_HERE)
        if part.checksum is None or digest == str(base) or sha256(body) != digest:
            return None
        return Receipt(part.index, part.size, part.index + 1, part.checksum, digest, Evidence.CONTENT)

    def send(
        self, session: Session, file: FilePlan, part: Part, slot: Slot, body: ChunkBytes, *, doubtful: bool
    ) -> Receipt:
        """Send one chunk; a `doubtful` one may be there, whole or in part."""
        checked = self._known.checked
        closing = not checked and part.index == file.chunks - 1 > 0
        if closing or (doubtful and (checked or file.chunks == 1)):
            standing = self._standing(session)
            if (there := self._counted(standing, file, part, slot, body)) is not None:
                return there
            if closing and (lacking := set(range(part.index)) - standing.marks):
                raise SessionLost(f"the server lacks {len(lacking)} of {part.index} chunks that it had", Loss.BEHIND)
        stored = self._api.send(session.id, part.index, body, digest=checked)
        if stored is None:
            if (there := self._counted(self._standing(session), file, part, slot, body)) is None:
                raise SessionLost("its session takes no chunks", Loss.POISONED)
            return there
        if not stored.marked:
            raise Damaged(f"the server took chunk {part.index} and does not count it")
        if not checked:
            return proved(file, part, slot, body, Evidence.MARK)
        if stored.told != stored.sent:
            raise Damaged(f"chunk {part.index} is stored as {stored.told}, {stored.sent} was sent")
        return Receipt(part.index, part.size, slot, body.checksum, stored.told, Evidence.CONTENT)

    def _standing(self, session: Session) -> Standing:
        """Raises `SessionLost` also for one that was given up."""
        standing = self._api.standing(session.id)
        self._known.extensions |= standing.extensions
        if standing.status in ("cancelled", "failed", "expired"):
            raise SessionLost(f"its session is {standing.status}")
        return standing

    def _told(self, standing: Standing, file: FilePlan, known: Sequence[Receipt]) -> dict[int, Receipt]:
        """What a server with digests holds: chunks that were confirmed with the same, and others to be compared."""
        held = {
            one.index: one
            for one in known
            if one.etag and one.index in standing.marks and standing.digests.get(one.index, one.etag) == one.etag
        }
        for index, digest in standing.digests.items():
            if index not in held and index < file.chunks:
                size = min(file.chunk_size, file.size - index * file.chunk_size)
                held[index] = Receipt(index, size, f"{_HERE}{digest}", "", digest)
        return held

    def _believed(self, standing: Standing, file: FilePlan, known: Sequence[Receipt]) -> dict[int, Receipt]:
        """What a server with marks holds: chunks whose reply came. Once it takes no more, also the one, at most, whose
        reply did not."""
        held = {one.index: one for one in known if one.evidence is not None and one.index in standing.marks}
        if standing.completed:
            doubted = (one for one in known if one.checksum and one.index not in held)
            held |= {one.index: replace(one, evidence=Evidence.MARK) for one in doubted}
            if len(held) < file.chunks:
                raise SessionLost("its session is closed, and some of what it holds is unknown here", Loss.POISONED)
        return held

    def _counted(self, standing: Standing, file: FilePlan, part: Part, slot: Slot, body: ChunkBytes) -> Receipt | None:
        """The receipt of a chunk that need not, or cannot, be sent again: the server tells its SHA-256, or has closed
        the session with it. Raises `SessionLost` where it has closed it with other bytes."""
        digest = standing.digests.get(part.index)
        if digest is not None and digest != sha256(body):
            if standing.completed:
                raise SessionLost("its session is closed, with other bytes than these", Loss.POISONED)
            return None
        if digest is None and not standing.completed:
            return None
        for _ in body.tail(part.size):
            pass  # for its checksum
        if digest is None:
            return proved(file, part, slot, body, Evidence.MARK)
        return Receipt(part.index, part.size, slot, body.checksum, digest, Evidence.CONTENT)


def sha256(body: Body) -> str:
    """Hex; reads the body for this alone."""
    sha = hashlib.sha256()
    for piece in body.quiet():
        sha.update(piece)
    return sha.hexdigest()
