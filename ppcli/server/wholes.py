"""Small files, each in one request: checked, durable and entered before they are acknowledged, with no session."""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass

from ppcli.server.content import Files
from ppcli.server.database import Database
from ppcli.server.entries import Stat, record
from ppcli.server.limits import ServerLimits
from ppcli.server.placing import Placing
from ppcli.server.quota import check_quota
from ppcli.server.refusal import Refused
from ppcli.server.users import User

_MOST = 1 << 20
"""Bytes of a file that is sent whole: as much as any other request holds in memory."""


@dataclass(frozen=True, slots=True)
class Whole:
    """What a file is said to be."""

    sha256: str
    filepath: str
    hostname: str
    file_mtime: float


class Wholes:
    """Thread-safe; blocks. Commits are shared by all who wait for one."""

    def __init__(self, database: Database, files: Files, placing: Placing, limits: ServerLimits) -> None:
        self._database = database
        self._files = files
        self._placing = placing
        self._limits = limits
        self.most = min(_MOST, limits.chunk_max, limits.max_file_size)
        """Bytes that such a file may have."""

    def store(self, user: User, whole: Whole, body: bytes) -> int:
        """The id of the file's entry, once file and entry are durable; once more is fine. Raises `Refused` 400 for
        other content than was said, 507.

        The file comes first: one that no entry names is removed at the next start.
        """
        digest = hashlib.sha256(body).hexdigest()
        if digest != whole.sha256:
            raise Refused(400, f"SHA256 mismatch: expected {whole.sha256}, got {digest}")
        if len(body) > self._files.free():
            raise Refused(507, "There is not enough space left for this file")
        if self._limits.quota is not None:
            self._database.read(lambda c: check_quota(c, user.id, len(body), self._limits, sha256=digest))
        with self._placing.adding(digest):
            self._files.add(digest, body)
            return self._database.write(lambda c: self._enter(c, user, whole, len(body)))

    def _enter(self, connection: sqlite3.Connection, user: User, whole: Whole, size: int) -> int:
        check_quota(connection, user.id, size, self._limits, sha256=whole.sha256)
        connection.execute(
            "INSERT INTO contents (sha256, size) VALUES (?, ?) ON CONFLICT DO NOTHING", (whole.sha256, size)
        )
        stat = Stat(file_mtime=whole.file_mtime)
        return record(connection, user.id, whole.filepath, whole.hostname, whole.sha256, size, stat, has_content=True)
