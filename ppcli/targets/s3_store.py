"""What is in a bucket: the part of the S3 target that lists, looks, reads and removes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from ppcli.errors import Rejected, SessionLost, Usage
from ppcli.model import Incomplete, Notice, Remote
from ppcli.target import RANGE
from ppcli.targets import s3_proof, s3_url
from ppcli.targets.s3_api import Api, Object
from ppcli.targets.s3_memory import Checks, Memory
from ppcli.targets.s3_uploads import Uploads
from ppcli.targets.s3_url import Wanted

THERE = "there"
"""A slot that is a part of the object that is there: `there ETAG XXH3`."""
_BATCH = 1000
_WORTH_LISTING = 20
"""Names from which one listing is asked for in place of a question each."""
_LISTED_A_NAME = 50
"""Objects that are listed at most for each of these names: a page of 1,000 costs as much as some 20 questions."""


class Contents:
    """A `Store`. A name is a key below the prefix."""

    def __init__(self, wanted: Wanted, api: Api, memory: Memory) -> None:
        self.url = wanted.url()
        self._wanted = wanted
        self._api = api
        self._memory = memory
        known = None if wanted.endpoint else Checks("crc64nvme", trailer=True)
        self._uploads = Uploads(api, memory, known, trails=not wanted.sign_payload)
        self._lock = threading.Lock()
        self._notices: dict[str, Notice] = {}
        self._listed: set[str] = set()
        self._missing: set[str] = set()

    def foresee(self, names: Sequence[str]) -> None:
        """One listing, where its pages are few beside the questions that it saves. It is read to its end, since not
        every server lists in order. Where it is refused, each name is asked for."""
        self._missing = set()
        if len(names) < _WORTH_LISTING:
            return
        first, last = min(names, key=str.encode), max(names, key=str.encode)
        missing, left = set(names), len(names) * _LISTED_A_NAME
        try:
            for there in self._api.objects(self._wanted.key(_shared_start(first, last))):
                left -= 1
                if not left:
                    return
                missing.discard(self._wanted.name(there.key) or "")
        except Rejected:
            return
        self._missing = missing

    def find(self, name: str, digest: str | None = None) -> Remote | None:
        if name in self._missing:
            self._missing.discard(name)
            return None
        try:
            there = self._api.head(self._wanted.key(name))
        except Rejected as error:
            if error.reason != "forbidden":
                raise
            said = "These credentials may not look at what is in the bucket, so everything is sent."
            self._notice(Notice("forbidden", said))
            return None
        return self._remote(there) if there else None

    def digest(self, remote: Remote, *, fresh: bool = False) -> str | None:
        """What the server computed; that of a multipart ETag takes one more question, for the size of its parts."""
        if remote.digest is not None:
            return remote.digest
        key = self._wanted.key(remote.name)
        there = self._api.head(key)
        if there is None or there.etag != remote.version:
            return None
        found = self._remote(there)
        if found.digest is not None or not s3_proof.is_parts_etag(there.etag):
            return found.digest
        size = found.chunk_size or self._api.part_size(key, there.etag)
        return s3_proof.parts_digest(there.etag, there.headers, size) if size else None

    def notices(self) -> Sequence[Notice]:
        return list(self._notices.values())

    def close(self) -> None:
        """Who made the transport closes it."""

    def list(self, prefix: str) -> Iterator[Remote]:
        for there in self._api.objects(self._wanted.key(prefix)):
            name = self._wanted.name(there.key)
            if name:
                self._listed.add(name)
                yield Remote(name, self._location(there.key), there.size, None, there.modified, there.etag)

    def read(self, remote: Remote, offset: int) -> Iterator[memoryview]:
        return self.read_range(remote, offset, remote.size - offset)

    def range_size(self, remote: Remote) -> int | None:
        return RANGE

    def read_range(self, remote: Remote, offset: int, size: int) -> Iterator[memoryview]:
        if size > 0:
            with self._api.content(self._wanted.key(remote.name), offset, size, remote.version) as pieces:
                yield from pieces

    def remove(self, names: Sequence[str]) -> Sequence[str]:
        """The server does not tell what was there, so what was not listed before is looked at."""
        there = [
            name
            for name in dict.fromkeys(names)
            if name and (name in self._listed or self._api.head(self._wanted.key(name)))
        ]
        for at in range(0, len(there), _BATCH):
            self._api.delete(self._wanted.key(name) for name in there[at : at + _BATCH])
        self._listed.difference_update(there)
        return there

    def incomplete(self) -> Iterator[Incomplete]:
        for upload in self._api.uploads(self._wanted.key("")):
            name = self._wanted.name(upload.key)
            try:
                held = self._api.parts(upload.key, upload.id)
            except SessionLost:
                continue
            if name:
                size = sum(part.size for part in held.parts) if held else 0
                yield Incomplete(upload.id, name, self._memory.job(upload.id), size, upload.initiated)

    def discard(self, upload: Incomplete) -> None:
        self._api.abort(self._wanted.key(upload.name or ""), upload.id)
        self._memory.forget_upload(upload.id)

    def locate(self, location: str) -> str | None:
        try:
            other = s3_url.parse(location)
        except Usage:
            return None
        same = (
            other.bucket == self._wanted.bucket and (other.endpoint or self._wanted.endpoint) == self._wanted.endpoint
        )
        return self._wanted.name(other.prefix) if same else None

    def _remote(self, there: Object) -> Remote:
        digest = s3_proof.object_digest(there.etag, there.headers, self._uploads.checks)
        parts = self._memory.parts(there.key, there.etag) if s3_proof.is_parts_etag(there.etag) else None
        slots = tuple(f"{THERE} {there.etag} {checksum}" for checksum in parts.checksums) if parts else ()
        name = self._wanted.name(there.key) or there.key
        size = parts.size if parts else None
        return Remote(name, self._location(there.key), there.size, digest, there.modified, there.etag, size, slots)

    def _location(self, key: str) -> str:
        return self._wanted.location(key)

    def _notice(self, notice: Notice) -> None:
        with self._lock:
            self._notices.setdefault(notice.message, notice)


def _shared_start(one: str, other: str) -> str:
    return one[: next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(one))]
