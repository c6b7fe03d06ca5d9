"""The assets of a GraphWiz account: by name, what they hold, and what we put there ourselves."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

from ppcli.errors import Rejected
from ppcli.targets import memory
from ppcli.targets.graphwiz_api import Api, Asset
from ppcli.targets.graphwiz_known import Known
from ppcli.transport import Transport

FILE_NAME = "graphwiz.sqlite"
_TABLE = "CREATE TABLE IF NOT EXISTS asset (place TEXT, id TEXT, digest TEXT, PRIMARY KEY (place, id)) WITHOUT ROWID;"


class Sent(memory.Memory):
    """The digests of assets that were sent to one server. An asset never changes under its id."""

    def __init__(self, data_dir: Path, place: str) -> None:
        super().__init__(data_dir / FILE_NAME, _TABLE)
        self._place = place

    def digest(self, asset: str) -> str | None:
        """`sha256:hex`."""
        row = self._get("SELECT digest FROM asset WHERE place = ? AND id = ?", self._place, asset)
        return str(row[0]) if row else None

    def learn(self, asset: str, digest: str) -> None:
        self._put("INSERT OR REPLACE INTO asset VALUES (?, ?, ?)", self._place, asset, digest)


class Assets:
    """Asks for the list once, since servers count requests; `refresh` asks again. Any thread may call it. Several
    assets may have one name: the newest counts."""

    def __init__(self, api: Api, transport: Transport, sent: Sent, known: Known) -> None:
        self._api = api
        self._transport = transport
        self._sent = sent
        self._lock = threading.Lock()
        self._server = known
        self._known: list[Asset] | None = None

    def refresh(self) -> None:
        """What is known may be old."""
        with self._lock:
            self._known = None

    def named(self, name: str) -> list[Asset]:
        """The newest first."""
        return [asset for asset in self._all() if asset.name == name]

    def newest(self) -> dict[str, Asset]:
        """Of every name the newest."""
        found: dict[str, Asset] = {}
        for asset in self._all():
            found.setdefault(asset.name, asset)
        return found

    def there(self, asset_id: str) -> bool:
        return any(asset.id == asset_id for asset in self._all())

    def add(self, asset: Asset, digest: str | None) -> None:
        """It was put there just now, by us."""
        if digest is not None:
            self._sent.learn(asset.id, digest)
        with self._lock:
            self._known = None if self._known is None else [asset, *self._known]

    def digest(self, asset_id: str, told: str | None) -> str | None:
        """What the server told, or what was sent; None where nobody knows without reading it."""
        return told or self._sent.digest(asset_id)

    def measured(self, asset_id: str) -> str:
        """`sha256:hex` of what is there, which is read for this."""
        sha = hashlib.sha256()
        for piece in self.read(asset_id, 0):
            sha.update(piece)
        return f"sha256:{sha.hexdigest()}"

    def read(self, asset_id: str, start: int, end: int | None = None) -> Iterator[memoryview]:
        """The bytes from `start` to `end`. Of a server that knows no ranges, and sends all of them, those are taken."""
        with self._transport.stream(self._api.content(asset_id, start, end)) as stream:
            if stream.status == 416:
                return
            if stream.status == 404:
                raise Rejected("The asset was deleted meanwhile.", hint="Put it there again.", reason="not_found")
            at = start if stream.status == 206 else 0
            for piece in stream.pieces():
                if end is not None and at >= end:
                    return
                if wanted := piece[max(0, start - at) : None if end is None else max(0, end - at)]:
                    yield wanted
                at += len(piece)

    def holds(self, asset: Asset, size: int, digest: str) -> bool:
        """Whether it has this very content; read where nobody tells."""
        if asset.size != size:
            return False
        try:
            return (self.digest(asset.id, asset.digest) or self.measured(asset.id)) == digest
        except Rejected:
            return False

    def _all(self) -> list[Asset]:
        with self._lock:
            if self._known is None:
                found, extensions = self._api.assets()
                self._server.extensions |= extensions
                self._known = sorted(found, key=lambda asset: asset.created or 0.0, reverse=True)
            return self._known
