"""Assets: what GraphWiz clients store. An asset is an entry (of no host) with an id of its own and a type, so that its
content, its owner and its end are those of every other file here."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from threading import Lock
from typing import Any

from ppcli.server.database import Database
from ppcli.server.entries import Deletion, mark_deleted
from ppcli.server.limits import ServerLimits
from ppcli.server.plan import Wanted, count
from ppcli.server.refusal import Refused
from ppcli.server.sessions import Session
from ppcli.server.users import User

CHUNK_DEFAULT = 10 << 20
"""Bytes of a chunk where a client does not say."""
FIELDS_MAX = 64 << 10
"""Bytes that the fields beside the bytes of a form may have together."""
_HOUR = 3600.0
_COLUMNS = (
    "assets.id, assets.about, assets.created_at, entries.user_id, entries.filepath, entries.sha256, entries.file_size"
)
_ALIVE = "assets JOIN entries ON entries.id = assets.entry WHERE entries.status = 'active' AND entries.has_content"


class AssetType(StrEnum):
    MODEL = "model"
    TEXTURE = "texture"
    AUDIO = "audio"
    VIDEO = "video"


@dataclass(frozen=True, slots=True)
class About:
    """What a client tells of an asset besides its name, size and bytes."""

    asset_type: AssetType
    mime_type: str
    is_public: bool = False
    metadata: Any = None

    def text(self) -> str:
        """As the database keeps it."""
        return json.dumps([self.asset_type, self.mime_type, self.is_public, self.metadata])

    @classmethod
    def parse(cls, text: str) -> About:
        kind, mime_type, is_public, metadata = json.loads(text)
        return cls(AssetType(kind), mime_type, is_public, metadata)


@dataclass(frozen=True, slots=True)
class Asset:
    """`created_at` is in UTC seconds."""

    id: str
    user_id: int
    file_name: str
    file_size: int
    sha256: str
    about: About
    created_at: float


class Assets:
    """Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def listed(self, user: User, asset_type: AssetType | None, page: int, per_page: int) -> tuple[list[Asset], int]:
        """One page of the caller's assets, the newest first, and how many there are on all pages."""
        where, values = f"{_ALIVE} AND entries.user_id = ?", [user.id]
        if asset_type is not None:
            where += " AND assets.asset_type = ?"
            values.append(asset_type)  # type: ignore[arg-type]

        def query(connection: sqlite3.Connection) -> tuple[list[Asset], int]:
            (total,) = connection.execute(f"SELECT count(*) FROM {where}", values).fetchone()
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM {where} ORDER BY assets.created_at DESC, assets.id LIMIT ? OFFSET ?",
                (*values, per_page, (page - 1) * per_page),
            ).fetchall()
            return [_asset(row) for row in rows], int(total)

        return self._database.read(query)

    def get(self, user: User, asset_id: str) -> Asset:
        """An asset that the caller may read. Raises `Refused` 404 or 403."""
        asset = self._find("assets.id = ?", asset_id)
        if asset.user_id != user.id and not asset.about.is_public:
            raise Refused(403, "This asset belongs to another user")
        return asset

    def of_entry(self, entry: int) -> Asset:
        """The asset that a completed session became. Raises `Refused` 404 where it was deleted meanwhile."""
        return self._find("assets.entry = ?", entry)

    def named_by(self, session: Session) -> str | None:
        """The id of the asset that a session became, as long as that is there."""
        if session.file_id is None:
            return None
        asked = "SELECT id FROM assets WHERE entry = ?"
        row = self._database.read(lambda c: c.execute(asked, (session.file_id,)).fetchone())
        return None if row is None else str(row[0])

    def delete(self, user: User, asset_id: str) -> None:
        """Raises `Refused` 404 or 403."""
        asset = self.get(user, asset_id)
        if asset.user_id != user.id:
            raise Refused(403, "This asset belongs to another user")
        deletion = Deletion(asset.sha256, asset.file_name, "", datetime.now(UTC).isoformat())

        def change(connection: sqlite3.Connection) -> None:
            mark_deleted(connection, user, deletion)
            connection.execute("DELETE FROM assets WHERE id = ?", (asset_id,))

        self._database.write(change)

    def _find(self, where: str, value: object) -> Asset:
        row = self._database.read(
            lambda c: c.execute(f"SELECT {_COLUMNS} FROM {_ALIVE} AND {where}", (value,)).fetchone()
        )
        if row is None:
            raise Refused(404, "Asset not found")
        return _asset(row)


class UploadRate:
    """How many uploads each user began in the last hour. Thread-safe; a restart forgets."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = Lock()
        self._begun: dict[int, deque[float]] = {}

    def take(self, user: User) -> None:
        """Count one more. Raises `Refused` 429."""
        now = time.monotonic()
        with self._lock:
            begun = self._begun.setdefault(user.id, deque())
            while begun and begun[0] <= now - _HOUR:
                begun.popleft()
            if len(begun) >= self._most:
                said = f"Rate limit exceeded: at most {self._most} uploads an hour"
                raise Refused(429, said, retry_after=begun[0] + _HOUR - now, code="rate_limited")
            begun.append(now)


def plan(name: str, size: int, wish: int | None, about: About, limits: ServerLimits) -> Wanted:
    """How a file is cut into chunks: of the size that is wished for, within bounds. Raises `Refused` 413."""
    check_size(size, about.asset_type, limits)
    if len(about.text()) > FIELDS_MAX:
        raise Refused(413, f"The metadata must not be above {FIELDS_MAX} bytes", code="validation_error")
    chunk = min(max(wish or CHUNK_DEFAULT, limits.asset_chunk_min), limits.asset_chunk_max)
    return Wanted(name, "", "", size, chunk, count(size, chunk), asset=about.text())


def check_size(size: int, asset_type: AssetType, limits: ServerLimits) -> None:
    """Raises `Refused` 413."""
    most = longest(asset_type, limits)
    if size > most:
        raise Refused(413, f"File too large. Maximum size of a {asset_type}: {most} bytes", code="file_too_large")


def longest(asset_type: AssetType, limits: ServerLimits) -> int:
    """Bytes that a file of this type may have."""
    most: int = getattr(limits, f"max_{asset_type}")
    return min(most, limits.max_file_size)


def record(connection: sqlite3.Connection, entry: int, about: str) -> None:
    """A change for the database: an entry is an asset. The same content under the same name stays the same asset."""
    connection.execute(
        "INSERT INTO assets VALUES (?, ?, ?, ?, ?) ON CONFLICT (entry) DO UPDATE SET"
        " about = excluded.about, asset_type = excluded.asset_type, created_at = excluded.created_at",
        (str(uuid.uuid4()), entry, about, About.parse(about).asset_type, time.time()),
    )


def _asset(row: Sequence[Any]) -> Asset:
    number, about, created_at, user_id, name, sha256, size = row
    return Asset(number, user_id, name, size, sha256, About.parse(about), created_at)
