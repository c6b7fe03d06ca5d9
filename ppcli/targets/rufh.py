"""The IETF resumable uploads draft: `rufh+http(s)://host[:port]/path`, the URL to which files are posted.

An upload is created empty, which tells its URL; chunks are appended to it one at a time, in order of offset; an empty
request marks its end, and only that makes the file. There are no names, and the server counts bytes and compares none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ppcli.errors import Damaged, Rejected, SessionLost
from ppcli.model import Evidence, FilePlan, Limits, Notice, Part, Receipt, Remote, Session, Slot, Survey
from ppcli.target import Body, ChunkBytes
from ppcli.targets import Settings
from ppcli.targets.frontier import Frontiers, held_below, proved
from ppcli.targets.rufh_api import Api, Upload
from ppcli.targets.upload_url import Creation

_LIMITS = Limits(
    chunk_min=1,
    chunk_max=1 << 40,
    chunk_default=8 << 20,
    replan=False,
    evidence=Evidence.OFFSET,
    remote=True,
    keeps_starts=True,
)
_LENGTH = "length"


def connect(url: str, settings: Settings) -> RufhTarget:
    """Nothing is asked yet. Raises `Usage` where it is no such URL."""
    place = Creation.parse(url)
    return RufhTarget(place.url, Api(settings.http(str(place.origin)), place.path))


class RufhTarget:
    """A `Target`, and no `Store`."""

    def __init__(self, url: str, api: Api) -> None:
        self.url = url
        self._api = api
        self._frontiers = Frontiers()
        self._lock = threading.Lock()
        self._known: Mapping[str, int] | None = None

    def limits(self, size: int) -> Limits:
        """As the server tells by now: `find` asks it."""
        known = self._known or {}
        if size > known.get("max-size", size) or size < known.get("min-size", size):
            allowed = f"{known.get('min-size', 0)} to {known.get('max-size', 'any number of')}"
            raise Rejected(
                f"{self.url} takes files of {allowed} bytes, not of {size}.",
                hint="Choose another target.",
                reason="too_large" if size > known.get("max-size", size) else "too_small",
            )
        most = max(1, known.get("max-append-size", _LIMITS.chunk_max))
        least = min(max(1, known.get("min-append-size", 1)), most)
        default = min(max(_LIMITS.chunk_default, least), most)
        return replace(_LIMITS, chunk_min=least, chunk_max=most, chunk_default=default)

    def find(self, name: str, digest: str | None = None) -> Remote | None:
        """Never anything: there are no names. It is the first call, so the server is asked for its limits."""
        with self._lock:
            if self._known is None:
                self._known = self._api.options()
        return None

    def digest(self, remote: Remote, *, fresh: bool = False) -> str | None:
        return None

    def open(self, file: FilePlan, old: Session | None, base: Remote | None) -> Session:
        if old is not None:
            if old.detail.get(_LENGTH) != str(file.size):
                raise SessionLost("its size is another now")
            return old
        upload = self._api.create(file)
        self._frontiers.set(upload.url, 0)
        return Session(upload.url, _end(upload), {_LENGTH: str(file.size)}, in_order=True)

    def survey(self, session: Session, file: FilePlan, known: Sequence[Receipt]) -> Survey:
        upload = self._api.ask(session.id)
        self._frontiers.set(upload.url, upload.offset)
        return Survey(held_below(upload.offset, file, known), authoritative=True, expires_at=_end(upload))

    def reserve(self, session: Session, file: FilePlan, parts: Sequence[Part]) -> Sequence[Slot]:
        """An upload has a place for every chunk."""
        return [part.offset for part in parts]

    def adopt(self, session: Session, file: FilePlan, part: Part, base: Slot, body: Body) -> Receipt | None:
        return None

    def upload(self, session: Session, file: FilePlan, part: Part, slot: Slot, body: ChunkBytes) -> Receipt:
        self._frontiers.advance(session.id, part.offset, body, lambda url: self._api.ask(url).offset, self._api.append)
        return proved(file, part, slot, body, Evidence.OFFSET)

    def confirm(self, session: Session, file: FilePlan, receipt: Receipt) -> Receipt:
        """The reply to the last byte of a chunk, or the offset that the server told, was the proof."""
        if receipt.evidence is None:
            raise Damaged(f"chunk {receipt.index} was sent without a proof")
        return receipt

    def complete(self, session: Session, file: FilePlan, receipts: Sequence[Receipt], *, doubtful: bool) -> Remote:
        done = doubtful and self._api.ask(session.id).complete
        location = session.id if done else self._api.finish(session.id, file.size)
        self._frontiers.forget(session.id)
        return Remote(file.name, location, file.size, file.digest, file.modified)

    def abort(self, session: Session | None, file: FilePlan, slots: Sequence[Slot] = ()) -> None:
        """An upload whose reply was lost has no URL that we know; it ends where the server lets uploads end."""
        if session is not None:
            self._frontiers.forget(session.id)
            self._api.cancel(session.id)

    def notices(self) -> Sequence[Notice]:
        return ()

    def close(self) -> None:
        """Who made the transport closes it."""


def _end(upload: Upload) -> float | None:
    return None if upload.age is None else time.time() + upload.age
