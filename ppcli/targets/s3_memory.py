"""What is remembered of S3 servers: how an endpoint checks what it gets, the parts of objects that we put there, and
whose an open upload is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ppcli.targets import memory
from ppcli.values import value

FILE_NAME = "s3.sqlite"

_TABLES = """
CREATE TABLE IF NOT EXISTS endpoint (place TEXT PRIMARY KEY, checks TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS object (place TEXT, key TEXT, etag TEXT, part_size INT, parts BLOB, PRIMARY KEY (place, key))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS upload (id TEXT PRIMARY KEY, job TEXT) WITHOUT ROWID;
"""
_XXH3 = 16
_TRAILER = "trailer"


@value(frozen=True, slots=True)
class Checks:
    """How an endpoint was seen to check what it gets: the name of a checksum, which may follow the bytes (`trailer`),
    or `md5`."""

    algorithm: str
    trailer: bool = False


@value(frozen=True, slots=True)
class Parts:
    """Of an object: `size` bytes each, and the XXH3-128 (hex) of every one."""

    size: int
    checksums: Sequence[str]


class Memory(memory.Memory):
    """Of one bucket at one endpoint (`place`)."""

    def __init__(self, data_dir: Path, endpoint: str, bucket: str) -> None:
        super().__init__(data_dir / FILE_NAME, _TABLES)
        self._endpoint = endpoint
        self._place = f"{endpoint}/{bucket}"

    def checks(self) -> Checks | None:
        """Of the endpoint, where that is known."""
        row = self._get("SELECT checks FROM endpoint WHERE place = ?", self._endpoint)
        algorithm, _, form = str(row[0]).partition("+") if row else ("", "", "")
        return Checks(algorithm, form == _TRAILER) if algorithm else None

    def learn_checks(self, seen: Checks) -> None:
        text = f"{seen.algorithm}+{_TRAILER}" if seen.trailer else seen.algorithm
        self._put("INSERT OR REPLACE INTO endpoint VALUES (?, ?)", self._endpoint, text)

    def parts(self, key: str, etag: str) -> Parts | None:
        """Of exactly this version of an object."""
        row = self._get(
            "SELECT part_size, parts FROM object WHERE place = ? AND key = ? AND etag = ?", self._place, key, etag
        )
        if row is None or not isinstance(row[1], bytes) or len(row[1]) % _XXH3:
            return None
        return Parts(int(row[0]), [row[1][at : at + _XXH3].hex() for at in range(0, len(row[1]), _XXH3)])

    def learn_parts(self, key: str, etag: str, parts: Parts) -> None:
        packed = bytes.fromhex("".join(parts.checksums))
        self._put("INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?, ?)", self._place, key, etag, parts.size, packed)

    def job(self, upload: str) -> str | None:
        """Whose upload it is, where it is one of this data dir."""
        row = self._get("SELECT job FROM upload WHERE id = ?", upload)
        return str(row[0]) if row else None

    def learn_upload(self, upload: str, job: str) -> None:
        self._put("INSERT OR REPLACE INTO upload VALUES (?, ?)", upload, job)

    def forget_upload(self, upload: str) -> None:
        self._put("DELETE FROM upload WHERE id = ?", upload)
