"""PutPlace: `https://host`, `http://host`, `putplace+http(s)://host[:port][/prefix]`, each with `?hostname=NAME`.

The protocol is that of the seed document 004 and of putplace-server 0.9 to 0.11, whose ways decide much here:

- A session cannot be asked what it holds, so the survey says nothing and doubt means to send again, which does no harm:
  a chunk that is there is answered with the etag of what is stored, its SHA-256. Our own server can be asked.
- A stored chunk is never replaced. A chunk with a wrong etag is sent once more; if it stays, the session is lost.
- `complete` works once. After a doubt, the server's list of files with this digest tells.
- Our own server says what it takes, is asked for many digests at once, and takes a small file in one request.
- The digest of the whole file is part of the request that opens a session: other content needs another session.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from urllib.parse import unquote, urlencode

from ppcli.errors import Damaged, Doubt, Loss, Rejected, SessionLost, Usage, other_content, source_changed
from ppcli.model import Evidence, FilePlan, Incomplete, Limits, Notice, Part, Receipt, Remote, Session, Slot, Survey
from ppcli.target import RANGE, Body
from ppcli.targets import Settings
from ppcli.targets.putplace_api import Api, Entry
from ppcli.targets.putplace_body import Hashed
from ppcli.targets.putplace_entries import Entries
from ppcli.targets.putplace_own import NO_OFFER, Offer, OwnApi
from ppcli.targets.putplace_removed import Removed
from ppcli.targets.server_url import ServerPlace
from ppcli.targets.together import Together
from ppcli.transport import Transport

_LIMITS = Limits(
    chunk_min=1 << 10,
    chunk_max=10 << 20,
    chunk_default=8 << 20,
    replan=False,
    evidence=Evidence.CONTENT,
    digest_first=True,
    remote=True,
)
_HOSTNAME, _SHA256 = "hostname", "sha256"
_WHOLE = "whole"
"""The id of a session that is a single request, which only our own server takes."""
_CHUNKS_GONE = re.compile(r"\[Errno 2\]|Chunk file \d+ missing")
"""What putplace-server says to a second `complete` (with status 500)."""


def connect(url: str, settings: Settings) -> PutPlaceTarget:
    """Nothing is asked yet. Raises `Usage` where it is no such URL."""
    place = _parse(url)
    hostname = place.options.get(_HOSTNAME) or socket.gethostname()
    removed = Removed(settings.data_dir, f"{place.origin}{place.prefix}?{urlencode({_HOSTNAME: hostname})}")
    return PutPlaceTarget(place, settings.http(str(place.origin)), hostname, removed)


def _parse(url: str) -> ServerPlace:
    return ServerPlace.parse(url, "PutPlace", "https://host", [_HOSTNAME])


class PutPlaceTarget:
    """A `Target`, a `Store`, a `Linker`, with `Accounts`. A file's name is its filepath there, beside a hostname."""

    def __init__(self, place: ServerPlace, transport: Transport, hostname: str, removed: Removed) -> None:
        self.url = place.url
        self._place = place
        self._transport = transport
        self._api = Api(transport, place.prefix)
        self._own = OwnApi(transport, place.prefix)
        self._hostname = hostname
        self._entries = Entries(self._api, hostname, removed, self._known)
        self._asking = threading.Lock()
        self._offer: Offer | None = None
        self._together: Together[list[Entry]] | None = None
        self._storage: str | None = None

    def limits(self, size: int) -> Limits:
        """What is known of the server by now, see `learn`."""
        offer = self._offer or NO_OFFER
        if offer.max_file_size is not None and size > offer.max_file_size:
            raise Rejected(
                f"The file is too large for {self.url}: {size} bytes, at most {offer.max_file_size}.",
                hint="Split it, or choose another target.",
                reason="too_large",
            )
        return replace(
            _LIMITS,
            chunk_min=offer.chunk_min,
            chunk_max=offer.chunk_max,
            chunk_default=min(max(_LIMITS.chunk_default, offer.chunk_min), offer.chunk_max),
        )

    def learn(self) -> None:
        self._offered()

    def foresee(self, names: Sequence[str]) -> None:
        self._entries.changed()

    def find(self, name: str, digest: str | None = None) -> Remote | None:
        found = self._entries.newest(name) if digest is None else self._entries.find(name, self._hostname, digest)
        return self._remote(found) if found else None

    def digest(self, remote: Remote, *, fresh: bool = False) -> str | None:
        """What the server computed when the file was completed; it cannot be asked to read it again."""
        return remote.digest

    def link(self, file: FilePlan) -> Remote | None:
        assert file.digest is not None
        self._keep_immutable(file)
        known = self._entries.any_with_content(file.digest)
        if known is None or not self._api.register(file, self._hostname):
            return None
        self._entries.placed(file.name, self._hostname, file.digest)
        return self._remote(replace(known, name=file.name, hostname=self._hostname, modified=file.modified))

    def open(self, file: FilePlan, old: Session | None, base: Remote | None) -> Session:
        assert file.digest is not None
        whole = file.chunks == 1 and file.size <= self._offered().whole_max
        if old is not None:
            if old.detail.get(_SHA256) != file.digest:
                raise SessionLost("its content is another now")
            if old.id == _WHOLE and not whole:
                raise SessionLost("the server wants it in chunks now")
            return old
        detail = {_HOSTNAME: self._hostname, _SHA256: file.digest}
        if whole:
            return Session(_WHOLE, detail=detail, whole=True)
        begun = self._api.initiate(file, self._hostname)
        return Session(begun.id, begun.expires_at, detail, begun.slides)

    def survey(self, session: Session, file: FilePlan, known: Sequence[Receipt]) -> Survey:
        """What our own server says. Another one cannot be asked: then an expired session is good for nothing but to be
        completed."""
        if session.id == _WHOLE:
            sent = [receipt for receipt in known if receipt.etag is not None]
            there = self._finished(file, session.detail[_HOSTNAME]) if sent else None
            return Survey({receipt.index: receipt for receipt in sent if there}, authoritative=True)
        told = self._own.standing(session.id, file.chunks) if session.slides else None
        if told is None:
            expired = session.expires_at is not None and session.expires_at < time.time()
            if expired and sum(receipt.evidence is not None for receipt in known) < file.chunks:
                raise SessionLost("its session has expired", Loss.EXPIRED)
            return Survey({}, authoritative=False, expires_at=session.expires_at)
        held = {
            receipt.index: replace(receipt, evidence=Evidence.CONTENT)
            for receipt in known
            if receipt.etag is not None and (told.finished or told.etags.get(receipt.index) == receipt.etag)
        }
        return Survey(held, authoritative=True, expires_at=told.expires_at)

    def reserve(self, session: Session, file: FilePlan, parts: Sequence[Part]) -> Sequence[Slot]:
        """A session has a place for every chunk."""
        return [part.index for part in parts]

    def adopt(self, session: Session, file: FilePlan, part: Part, base: Slot, body: Body) -> Receipt | None:
        return None

    def upload(self, session: Session, file: FilePlan, part: Part, slot: Slot, body: Body) -> Receipt:
        if session.id == _WHOLE:
            return self._upload_whole(session, file, part, slot, body)
        if part.sha256 and part.checksum:
            stored = self._api.put(session.id, part.index, body)
            wanted, checksum = part.sha256, part.checksum
            if stored.etag != wanted and body.checksum != checksum:
                raise source_changed(f"{file.name} changed after its digest was computed")
        else:
            hashed = Hashed(body)
            stored = self._api.put(session.id, part.index, hashed)
            wanted, checksum = hashed.sha256, body.checksum
        if stored.etag != wanted:
            what = f"chunk {part.index} is stored as {stored.etag[:12]}..., {wanted[:12]}... was sent"
            if stored.received == 0 < part.size:
                raise SessionLost(f"{what}, and a stored chunk is never replaced", Loss.POISONED)
            raise Damaged(what)
        return Receipt(part.index, part.size, slot, checksum, stored.etag, Evidence.CONTENT)

    def _upload_whole(self, session: Session, file: FilePlan, part: Part, slot: Slot, body: Body) -> Receipt:
        """One request, after which the file is there; sent again, it does no harm."""
        assert file.digest is not None
        self._keep_immutable(file)
        hashed = Hashed(body)
        stored = self._own.put_whole(file, session.detail[_HOSTNAME], hashed)
        if f"sha256:{hashed.sha256}" != file.digest:
            raise source_changed(f"{file.name} changed after its digest was computed")
        if not stored:
            raise Damaged("the server got other bytes than were sent")
        self._entries.placed(file.name, session.detail[_HOSTNAME], file.digest)
        return Receipt(part.index, part.size, slot, body.checksum, hashed.sha256, Evidence.CONTENT)

    def confirm(self, session: Session, file: FilePlan, receipt: Receipt) -> Receipt:
        """The etag of an accepted chunk was compared when it was sent."""
        if receipt.etag is None:
            raise Damaged(f"chunk {receipt.index} was stored without a proof")
        return replace(receipt, evidence=Evidence.CONTENT)

    def complete(self, session: Session, file: FilePlan, receipts: Sequence[Receipt], *, doubtful: bool) -> Remote:
        assert file.digest is not None
        hostname = session.detail.get(_HOSTNAME, self._hostname)
        if session.id == _WHOLE:
            return self._stored(file)
        if doubtful and (there := self._finished(file, hostname)):
            return there
        self._keep_immutable(file)
        try:
            record = self._api.complete(session.id, sorted(receipts, key=lambda receipt: receipt.index), file.size)
        except Doubt as doubt:
            if not (doubtful and _CHUNKS_GONE.search(doubt.cause)):
                raise
            if there := self._finished(file, hostname):  # by a call that was still under way
                return there
            raise SessionLost("the server dropped its chunks and did not enter the file") from doubt
        said = record.get("sha256")
        if said not in (None, file.digest.removeprefix("sha256:")):
            raise SessionLost("the server finished it as other content", Loss.POISONED)
        self._entries.placed(file.name, hostname, file.digest)
        self._storage = self._storage or str(record.get("storage_location") or "")
        return self._stored(file)

    def _keep_immutable(self, file: FilePlan) -> None:
        """The server knows no condition for it, so another client may still come between."""
        there = self.find(file.name) if file.immutable else None
        if there is not None and there.digest != file.digest:
            raise other_content(file.name)

    def abort(self, session: Session | None, file: FilePlan, slots: Sequence[Slot] = ()) -> None:
        """A session whose reply was lost has no id that we know; it ends by itself within the hour."""
        if session is not None and session.id != _WHOLE:
            self._api.abort(session.id)

    def notices(self) -> Sequence[Notice]:
        if not (self._storage or "").startswith("s3:"):
            return ()
        said = "This server stores on S3, where putplace-server up to 0.11 records chunked uploads and stores nothing."
        return [Notice("storage", f"{said} Check with who runs it.")]

    def close(self) -> None:
        """Who made the transport closes it."""

    def list(self, prefix: str) -> Iterator[Remote]:
        return (self._remote(entry) for entry in self._entries.listed(prefix))

    def read(self, remote: Remote, offset: int) -> Iterator[memoryview]:
        return self.read_range(remote, offset, None)

    def range_size(self, remote: Remote) -> int | None:
        return RANGE

    def read_range(self, remote: Remote, offset: int, size: int | None) -> Iterator[memoryview]:
        assert remote.digest is not None
        return self._own.content(remote.digest, offset, size)

    def remove(self, names: Sequence[str]) -> Sequence[str]:
        """Every entry of these names gets its deletion notice."""
        return self._entries.remove(names)

    def incomplete(self) -> Iterator[Incomplete]:
        """Uploads of this hostname. Which job one belongs to is for the jobs to say."""
        uploads = self._own.unfinished()
        if uploads is None:
            raise Rejected(
                "A putplace-server does not list unfinished uploads; it drops them within the hour.",
                hint="'ppcli status' lists your jobs, and 'ppcli cancel JOB' frees what one of them holds.",
                reason="unsupported",
            )
        return (Incomplete(u.id, u.name, None, u.size, u.begun) for u in uploads if u.hostname == self._hostname)

    def discard(self, upload: Incomplete) -> None:
        self._api.abort(upload.id)

    def locate(self, location: str) -> str | None:
        place, mark, name = location.partition("#")
        try:
            return unquote(name) if mark and _parse(place).url == self.url else None
        except Usage:
            return None

    def login(self, email: str, password: str) -> str:
        return self._api.login(email, password)

    def accepts(self, token: str) -> bool:
        return self._api.accepts(token)

    def _finished(self, file: FilePlan, hostname: str) -> Remote | None:
        """The file, when the server has it by now."""
        assert file.digest is not None
        self._entries.changed(file.digest)
        found = self._entries.find(file.name, hostname, file.digest)
        return self._remote(found) if found else None

    def _offered(self) -> Offer:
        """Asked once; of several threads that need it, one asks."""
        if self._offer is None:
            with self._asking:
                if self._offer is None:
                    offer = self._own.offer()
                    self._together = Together(self._own.known, offer.known_max) if offer.known_max else None
                    self._offer = offer
        return self._offer

    def _known(self, digest: str) -> Sequence[Entry]:
        """What the server has of this digest."""
        self._offered()
        return self._together.get(digest) if self._together else self._api.with_content(digest)

    def _stored(self, file: FilePlan) -> Remote:
        return Remote(file.name, self._place.location(file.name), file.size, file.digest, file.modified)

    def _remote(self, entry: Entry) -> Remote:
        return Remote(entry.name, self._place.location(entry.name), entry.size, entry.digest, entry.modified)
