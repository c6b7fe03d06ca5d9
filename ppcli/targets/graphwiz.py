"""GraphWiz-XR storage: `graphwiz+http(s)://host[:port][?asset_type=TYPE&mime_type=TYPE]`.

The protocol is that of the seed document 003; how its server behaves decides much here:

- A file of up to 50 MiB goes in one request, where the server has that; a larger one through an upload session.
- A session takes one chunk at a time and computes no checksums (see `graphwiz_chunks`).
- `complete` works once. After a doubt, the list of assets tells, and the content of the asset.
- Our own server says that it takes chunks side by side and checks their SHA-256: then each is proved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from urllib.parse import unquote

from ppcli.errors import Damaged, Loss, Recut, Rejected, SessionLost, SourceError, Usage, other_content
from ppcli.model import Evidence, FilePlan, Incomplete, Limits, Notice, Part, Receipt, Remote, Session, Slot, Survey
from ppcli.planner import chunk_count
from ppcli.target import RANGE, Body, ChunkBytes
from ppcli.targets import Settings
from ppcli.targets.frontier import proved
from ppcli.targets.graphwiz_api import Api, Asset, Begun
from ppcli.targets.graphwiz_assets import Assets, Sent
from ppcli.targets.graphwiz_chunks import Chunks, sha256
from ppcli.targets.graphwiz_known import ASSET_TYPE, MIME_TYPE, Known, kind_of
from ppcli.targets.server_url import ServerPlace
from ppcli.transport import Transport

_SINGLE = "single"
"""The id of a session that is a single request."""
_SIZE, _CHUNK = "size", "chunk"


def connect(url: str, settings: Settings) -> GraphWizTarget:
    """Nothing is asked yet. Raises `Usage` where it is no such URL."""
    place = _parse(url)
    transport = settings.http(str(place.origin))
    return GraphWizTarget(place, transport, Sent(settings.data_dir, f"{place.origin}{place.prefix}"))


def _parse(url: str) -> ServerPlace:
    return ServerPlace.parse(url, "GraphWiz", "graphwiz+https://host", [ASSET_TYPE, MIME_TYPE])


class GraphWizTarget:
    """A `Target`, a `Store`, and `Ranged`. A file's name is its file name there; the newest asset of a name counts."""

    def __init__(self, place: ServerPlace, transport: Transport, sent: Sent) -> None:
        self.url = place.url
        self._place = place
        self._known = Known(place.url)
        self._api = Api(transport, place.prefix)
        self._assets = Assets(self._api, transport, sent, self._known)
        self._chunks = Chunks(self._api, self._known)
        self._begun: dict[tuple[str, int], Begun] = {}
        """Sessions that wait for a new plan of their files."""
        self._doubted: set[tuple[str, int, int]] = set()
        """Chunks that may be on the server, whole or in part: (job, key, index)."""

    def limits(self, size: int) -> Limits:
        """As far as the server is known by now: `find` and `open` learn what it does."""
        return self._known.limits(size)

    def find(self, name: str, digest: str | None = None) -> Remote | None:
        asset = next(iter(self._assets.named(name)), None)
        return self._remote(asset) if asset else None

    def digest(self, remote: Remote, *, fresh: bool = False) -> str | None:
        """What the server tells, or what we sent; a server that tells none is not asked for the whole file, unless
        `fresh` wants it."""
        assert remote.version is not None
        return self._assets.measured(remote.version) if fresh else self._assets.digest(remote.version, remote.digest)

    def open(self, file: FilePlan, old: Session | None, base: Remote | None) -> Session:
        if old is not None:
            if old.id == _SINGLE and file.chunks > 1:
                raise SessionLost("it is sent in chunks now")
            if old.id != _SINGLE and old.detail != _cut(file):
                raise SessionLost("its size is another now")
            return old
        begun = self._begun.pop((file.job, file.key), None)
        if file.chunks == 1 and self._known.takes_whole(file.size):
            if begun is not None:
                self._api.cancel(begun.id)
            self._assets.named(file.name)  # tells what the server does, where nobody asked before
            return Session(_SINGLE, whole=True)
        begun = begun or self._api.initiate(file, kind_of(file.name, self._place.options))
        self._known.extensions |= begun.extensions
        self._check_chunks(begun, file)
        return Session(begun.id, begun.expires_at, _cut(file), begun.slides, in_order=not self._known.parallel)

    def foresee(self, names: Sequence[str]) -> None:
        self._assets.refresh()

    def survey(self, session: Session, file: FilePlan, known: Sequence[Receipt]) -> Survey:
        self._doubted |= {(file.job, file.key, one.index) for one in known if one.evidence is None}
        if session.id != _SINGLE:
            return self._chunks.survey(session, file, known)
        held = {one.index: one for one in known if one.etag is not None and self._assets.there(one.etag)}
        return Survey(held, authoritative=True)

    def reserve(self, session: Session, file: FilePlan, parts: Sequence[Part]) -> Sequence[Slot]:
        """A session has a place for every chunk; the server counts them from 1."""
        return [part.index + 1 for part in parts]

    def adopt(self, session: Session, file: FilePlan, part: Part, base: Slot, body: Body) -> Receipt | None:
        return self._chunks.adopt(part, base, body)

    def upload(self, session: Session, file: FilePlan, part: Part, slot: Slot, body: ChunkBytes) -> Receipt:
        chunk = (file.job, file.key, part.index)
        doubtful = chunk in self._doubted
        self._doubted.add(chunk)
        if session.id == _SINGLE:
            receipt = self._whole(file, part, slot, body, doubtful=doubtful)
        else:
            receipt = self._chunks.send(session, file, part, slot, body, doubtful=doubtful)
        self._doubted.discard(chunk)
        return receipt

    def confirm(self, session: Session, file: FilePlan, receipt: Receipt) -> Receipt:
        """The reply to the chunk was the proof."""
        if receipt.evidence is None:
            raise Damaged(f"chunk {receipt.index} was sent without a proof")
        return receipt

    def complete(self, session: Session, file: FilePlan, receipts: Sequence[Receipt], *, doubtful: bool) -> Remote:
        if session.id == _SINGLE:
            return self._completed(Asset(str(receipts[0].etag), file.name, file.size, created=file.modified), file)
        if file.immutable:
            self._refuse_to_replace(file, file.digest)
        try:
            asset = self._api.complete(session.id, file)
        except SessionLost as lost:
            if lost.loss is Loss.GONE and (there := self._there(file, file.digest)):
                return self._remote(there)
            raise
        if asset.size != file.size or asset.digest not in (None, file.digest):
            self._api.delete(asset.id)
            raise SessionLost(f"the server has put together {asset.size} bytes of {file.size}", Loss.POISONED)
        return self._completed(asset, file)

    def abort(self, session: Session | None, file: FilePlan, slots: Sequence[Slot] = ()) -> None:
        """A session with all its chunks cannot be cancelled, and a server would keep it for ever: it is completed, and
        the asset deleted, unless it was there before: some servers have one asset for all that has the same name and
        content. A session whose reply was lost ends within a day."""
        if session is None or session.id == _SINGLE or self._api.cancel(session.id):
            return
        try:
            if self._api.standing(session.id).asset is None:
                self._assets.refresh()
                before = {asset.id for asset in self._assets.named(file.name)}
                asset = self._api.complete(session.id, file)
                if asset.id not in before:
                    self._api.delete(asset.id)
        except SessionLost:
            return

    def notices(self) -> Sequence[Notice]:
        return ()

    def close(self) -> None:
        """Who made the transport closes it."""

    def list(self, prefix: str) -> Iterator[Remote]:
        self._assets.refresh()
        newest = self._assets.newest()
        return (self._remote(newest[name]) for name in sorted(newest) if name.startswith(prefix))

    def read(self, remote: Remote, offset: int) -> Iterator[memoryview]:
        assert remote.version is not None
        return self._assets.read(remote.version, offset)

    def range_size(self, remote: Remote) -> int | None:
        """Of a server that counts requests an object is read by one."""
        return RANGE if self._known.parallel else None

    def read_range(self, remote: Remote, offset: int, size: int) -> Iterator[memoryview]:
        assert remote.version is not None
        return self._assets.read(remote.version, offset, offset + size)

    def remove(self, names: Sequence[str]) -> Sequence[str]:
        """Every asset of these names is deleted."""
        self._assets.refresh()
        gone = [name for name in names if self._assets.named(name)]
        for asset in [asset for name in gone for asset in self._assets.named(name)]:
            self._api.delete(asset.id)
        self._assets.refresh()
        return gone

    def incomplete(self) -> Iterator[Incomplete]:
        raise self._unlisted()

    def discard(self, upload: Incomplete) -> None:
        raise self._unlisted()

    def locate(self, location: str) -> str | None:
        place, mark, name = location.partition("#")
        try:
            return unquote(name) if mark and _parse(place).url == self.url else None
        except Usage:
            return None

    def _check_chunks(self, begun: Begun, file: FilePlan) -> None:
        """The server says how a file is cut. Where that is not as planned, the session waits for a new plan."""
        size = begun.chunk_size
        if begun.chunks == file.chunks and (size == file.chunk_size or file.chunks == 1):
            return
        sane = size > 0 and begun.chunks == chunk_count(file.size, size)
        if not sane or self._known.chunk_size not in (None, size):
            raise Rejected(
                f"{self.url} wants {begun.chunks} chunks of {size} bytes for a file of {file.size}.",
                hint="Check that it is a GraphWiz server.",
                reason="protocol",
            )
        self._known.chunk_size = size
        self._begun[file.job, file.key] = begun
        raise Recut(f"the server wants chunks of {size} bytes")

    def _whole(self, file: FilePlan, part: Part, slot: Slot, body: ChunkBytes, *, doubtful: bool) -> Receipt:
        """Send a file in one request. After a doubt the list of assets is asked first."""
        evidence = Evidence.CONTENT if self._known.checked else Evidence.MARK
        if doubtful and (there := self._there(file, f"sha256:{sha256(body)}")):
            for _ in body.tail(part.size):
                pass  # for its checksum
            return replace(proved(file, part, slot, body, evidence), etag=there.id)
        if file.immutable:
            self._refuse_to_replace(file, f"sha256:{sha256(body)}")
        kind = kind_of(file.name, self._place.options)
        asset = self._api.upload(file, kind, body, digest=self._known.checked)
        if asset is None:
            self._known.single = False
            raise SessionLost("the server takes no file in one request")
        if asset.size != part.size:
            self._api.delete(asset.id)
            raise Damaged(f"the server has {asset.size} bytes of {part.size}")
        try:
            return replace(proved(file, part, slot, body, evidence), etag=asset.id)
        except SourceError:  # it is of two revisions
            self._api.delete(asset.id)
            raise

    def _completed(self, asset: Asset, file: FilePlan) -> Remote:
        self._assets.add(asset, file.digest)
        return self._remote(asset)

    def _there(self, file: FilePlan, digest: str | None) -> Asset | None:
        """The newest asset of the name, where it has exactly this content."""
        self._assets.refresh()
        asset = next(iter(self._assets.named(file.name)), None)
        return asset if asset and digest and self._assets.holds(asset, file.size, digest) else None

    def _refuse_to_replace(self, file: FilePlan, digest: str | None) -> None:
        """The server knows no condition for it, so another client may still come between."""
        if self._there(file, digest) is None and self._assets.named(file.name):
            raise other_content(file.name)

    def _remote(self, asset: Asset) -> Remote:
        location = self._place.location(asset.name)
        return Remote(asset.name, location, asset.size, asset.digest, asset.created, version=asset.id)

    def _unlisted(self) -> Rejected:
        return Rejected(
            f"{self.url} does not list unfinished uploads.", hint="Cancel by job instead.", reason="unsupported"
        )


def _cut(file: FilePlan) -> dict[str, str]:
    return {_SIZE: str(file.size), _CHUNK: str(file.chunk_size)}
