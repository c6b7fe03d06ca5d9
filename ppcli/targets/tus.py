"""tus 1.0: `tus+http(s)://host[:port]/path/`, the URL at which uploads are created.

What the server offers (OPTIONS) decides how a file goes:

- With the concatenation extension, a file of a few chunks goes in parallel: each chunk is a partial upload, its slot
  the URL of that, and `complete` puts them together.
- Otherwise the file is one upload, to which chunks are appended one at a time, in order of offset.
- With the checksum extension, the server compares a digest of each request; else it only counts bytes.

tus knows no names: what was sent cannot be found again, listed or read; the upload's URL is its location.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from dataclasses import replace

from ppcli.errors import Damaged, Rejected, SessionLost
from ppcli.model import Evidence, FilePlan, Limits, Notice, Part, Receipt, Remote, Session, Slot, Survey
from ppcli.target import Body, ChunkBytes
from ppcli.targets import Settings
from ppcli.targets.frontier import Frontiers, counted, held_below, proved
from ppcli.targets.tus_api import Api, Offer, Upload
from ppcli.targets.upload_url import Creation

CONCATENATED = 64
"""Chunks that are put together at most: the request names them all, in one header."""

_LIMITS = Limits(
    chunk_min=1,
    chunk_max=1 << 40,
    chunk_default=8 << 20,
    replan=False,
    evidence=Evidence.OFFSET,
    remote=True,
    keeps_starts=True,
    reserves=1,
)
_LENGTH, _PARTS = "length", "parts"


def connect(url: str, settings: Settings) -> TusTarget:
    """Nothing is asked yet. Raises `Usage` where it is no such URL."""
    place = Creation.parse(url)
    return TusTarget(place.url, Api(settings.http(str(place.origin)), place.path))


class TusTarget:
    """A `Target`, and no `Store`."""

    def __init__(self, url: str, api: Api) -> None:
        self.url = url
        self._api = api
        self._frontiers = Frontiers()
        self._lock = threading.Lock()
        self._offer: Offer | None = None

    def limits(self, size: int) -> Limits:
        """What is known of the server by now: it is asked by `find` and `open`."""
        offer = self._offer or Offer()
        if offer.max_size is not None and size > offer.max_size:
            raise Rejected(
                f"The file is too large for {self.url}: {size} bytes, at most {offer.max_size}.",
                hint="Split it, or choose another target.",
                reason="too_large",
            )
        limits = replace(_LIMITS, evidence=Evidence.CONTENT) if offer.checksum else _LIMITS
        if "concatenation" in offer.extensions:
            few = 1 << max(0, (size - 1) // CONCATENATED).bit_length()
            return replace(limits, chunk_default=min(max(_LIMITS.chunk_default, few), _LIMITS.chunk_max))
        return limits

    def find(self, name: str, digest: str | None = None) -> Remote | None:
        """Never anything: there are no names. It is the first call, so the server is asked what it offers."""
        self._offered()
        return None

    def digest(self, remote: Remote, *, fresh: bool = False) -> str | None:
        return None

    def open(self, file: FilePlan, old: Session | None, base: Remote | None) -> Session:
        offer = self._offered()
        if old is not None:
            if old.detail.get(_LENGTH) != str(file.size):
                raise SessionLost("its size is another now")
            return old
        self.limits(file.size)
        detail = {_LENGTH: str(file.size)}
        if "concatenation" in offer.extensions and 1 < file.chunks <= CONCATENATED:
            return Session(f"{file.job}/{file.key}", detail=detail | {_PARTS: "1"})
        upload = self._api.create(file, file.size)
        self._frontiers.set(upload.url, 0)
        return Session(upload.url, upload.expires_at, detail, in_order=True)

    def survey(self, session: Session, file: FilePlan, known: Sequence[Receipt]) -> Survey:
        """The offset tells. A file that was acknowledged to its last byte may be gone: whoever runs the server has
        taken it."""
        if _PARTS in session.detail:
            return Survey(self._parts_held(known), authoritative=True)
        acknowledged = sum(receipt.evidence is not None for receipt in known) == file.chunks
        try:
            upload = self._asked(session.id)
        except SessionLost:
            if not acknowledged:
                raise
            return Survey({receipt.index: receipt for receipt in known}, authoritative=True)
        held = held_below(upload.offset, file, known)
        return Survey(held, authoritative=True, expires_at=upload.expires_at or session.expires_at)

    def reserve(self, session: Session, file: FilePlan, parts: Sequence[Part]) -> Sequence[Slot]:
        """An upload has a place for every chunk; else each gets a partial upload. Those whose reply is lost expire."""
        if _PARTS not in session.detail:
            return [part.offset for part in parts]
        return [self._partial(file, part) for part in parts]

    def adopt(self, session: Session, file: FilePlan, part: Part, base: Slot, body: Body) -> Receipt | None:
        return None

    def upload(self, session: Session, file: FilePlan, part: Part, slot: Slot, body: ChunkBytes) -> Receipt:
        url, start = (slot, 0) if isinstance(slot, str) else (session.id, part.offset)
        algorithm = self._offered().checksum

        def append(url: str, offset: int, tail: Body) -> int:
            digest = (algorithm, body.digest(algorithm, offset - start)) if algorithm else None
            return self._api.append(url, offset, tail, digest)

        try:
            sent = self._frontiers.advance(url, start, body, lambda url: self._api.ask(url).offset, append)
        except SessionLost as lost:
            if isinstance(slot, str):
                raise Damaged(f"its part is lost: {lost.cause}") from lost
            raise
        compared = algorithm is not None and sent == part.size
        return proved(file, part, slot, body, Evidence.CONTENT if compared else Evidence.OFFSET)

    def confirm(self, session: Session, file: FilePlan, receipt: Receipt) -> Receipt:
        """The reply to the last byte of a chunk, or the offset that the server told, was the proof."""
        if receipt.evidence is None:
            raise Damaged(f"chunk {receipt.index} was sent without a proof")
        return receipt

    def complete(self, session: Session, file: FilePlan, receipts: Sequence[Receipt], *, doubtful: bool) -> Remote:
        """An upload is complete with its last byte. Putting parts together gives a URL that only the reply tells: where
        it was lost, they are put together again, or sent again where the server has dropped them."""
        if _PARTS not in session.detail:
            self._frontiers.forget(session.id)
            return Remote(file.name, session.id, file.size, file.digest, file.modified)
        urls = [str(receipt.slot) for receipt in sorted(receipts, key=lambda receipt: receipt.index)]
        upload = self._api.concatenate(file, urls)
        if upload is None:
            raise SessionLost("the server dropped its parts" + ", perhaps into a file elsewhere" * doubtful)
        for url in urls:
            self._frontiers.forget(url)
        return Remote(file.name, upload.url, file.size, file.digest, file.modified)

    def abort(self, session: Session | None, file: FilePlan, slots: Sequence[Slot] = ()) -> None:
        """An upload whose reply was lost has no URL that we know; it expires where the server lets uploads expire."""
        if session is None:
            return
        for url in [str(slot) for slot in slots] if _PARTS in session.detail else [session.id]:
            self._frontiers.forget(url)
            self._api.terminate(url)

    def notices(self) -> Sequence[Notice]:
        return ()

    def close(self) -> None:
        """Who made the transport closes it."""

    def _offered(self) -> Offer:
        with self._lock:
            if self._offer is None:
                self._offer = self._api.options()
            return self._offer

    def _asked(self, url: str) -> Upload:
        upload = self._api.ask(url)
        self._frontiers.set(url, upload.offset)
        return upload

    def _partial(self, file: FilePlan, part: Part) -> str:
        upload = self._api.create(file, part.size, partial=True)
        self._frontiers.set(upload.url, 0)
        return upload.url

    def _parts_held(self, known: Sequence[Receipt]) -> dict[int, Receipt]:
        """Of the partial uploads that were begun, those that are whole."""
        held = {}
        for receipt in known:
            with contextlib.suppress(SessionLost):
                if receipt.checksum and self._asked(str(receipt.slot)).offset == receipt.size:
                    held[receipt.index] = counted(receipt)
        return held
