"""Digests of sources. For targets that want the whole digest before the first byte, all come from one reading: SHA-256
of the whole, SHA-256 and XXH3-128 of each chunk. The two SHA-256 run side by side, on two threads."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import xxhash

from ppcli import checksums
from ppcli.bodies import OnBytes
from ppcli.digests import DigestCache
from ppcli.disk import StrPath
from ppcli.model import Fingerprint
from ppcli.source import Digests, Source, fingerprint, settle, unsettled

_WORTH_A_THREAD = 16 << 20
"""Bytes from which a second thread pays."""
_WORTH_KEEPING = 1 << 20
"""Bytes from which the digests of chunks are kept in memory until they are sent."""
_KEPT_AT_MOST = 20_000
"""Files; of further ones the digests of chunks are computed once more on their way."""


def full_digests(source: Source, chunk_size: int, on_bytes: OnBytes | None = None) -> Digests:
    """Digests of the size that the file had when it was opened, those of its chunks included. Raises `SourceError`, and
    whatever `on_bytes` raises."""
    size = source.fingerprint.size
    if size <= chunk_size:
        return _one_chunk(source, on_bytes)
    if size < _WORTH_A_THREAD:
        return _read(source, chunk_size, on_bytes, None)
    with ThreadPoolExecutor(1, "hash") as second:
        return _read(source, chunk_size, on_bytes, second)


def _one_chunk(source: Source, on_bytes: OnBytes | None) -> Digests:
    """The whole is the chunk: hashed once."""
    whole, chunk = hashlib.sha256(), xxhash.xxh3_128()
    for piece in source.pieces(0, source.fingerprint.size):
        whole.update(piece)
        chunk.update(piece)
        if on_bytes:
            on_bytes(len(piece))
    return Digests(f"sha256:{whole.hexdigest()}", [chunk.hexdigest()], [whole.hexdigest()])


def _read(source: Source, chunk_size: int, on_bytes: OnBytes | None, second: Executor | None) -> Digests:
    whole, chunks, sha256 = hashlib.sha256(), [], []
    size = source.fingerprint.size
    for offset in range(0, size, chunk_size):
        chunk, sha = xxhash.xxh3_128(), hashlib.sha256()
        for piece in source.pieces(offset, min(chunk_size, size - offset)):
            beside: Future[None] | None = second.submit(sha.update, piece) if second else None
            whole.update(piece)
            chunk.update(piece)
            if beside:
                beside.result()  # the piece's buffer is about to be used again
            else:
                sha.update(piece)
            if on_bytes:
                on_bytes(len(piece))
        chunks.append(chunk.hexdigest())
        sha256.append(sha.hexdigest())
    return Digests(f"sha256:{whole.hexdigest()}", chunks, sha256)


class Hashes:
    """Digests of sources: kept in memory for the run that follows, known to the cache, or computed. Any thread."""

    def __init__(self, cache: DigestCache | None = None) -> None:
        self._cache = cache
        self._kept: dict[str, tuple[Fingerprint, int, Digests]] = {}
        self._trusting = True
        self._doubted: set[str] = set()

    def distrust(self) -> None:
        """From now on only what this process reads itself counts."""
        self._trusting = False

    def forget(self, path: str) -> None:
        """What was computed for a source seems to be wrong: read it again."""
        self._kept.pop(path, None)
        self._doubted.add(path)

    def known(self, path: StrPath, seen: Fingerprint) -> str | None:
        """The digest of exactly this revision, without reading it."""
        path = os.fspath(path)
        kept = self._kept.get(path)
        if kept and kept[0].same(seen):
            return kept[2].whole
        return self._recorded(path, seen, checksums.SHA256)

    def of(self, source: Source, chunk_size: int, on_bytes: OnBytes | None = None) -> str:
        """The digest of a source, by reading it; those of its chunks are kept. Raises `SourceError`."""
        seen = source.fingerprint
        settle(seen)
        digests = full_digests(source, chunk_size, on_bytes)
        if seen.size > _WORTH_KEEPING and len(self._kept) < _KEPT_AT_MOST:
            self._kept[source.path] = seen, chunk_size, digests
        return self._remembered(source, digests.whole)

    def of_file(self, path: StrPath, fresh: bool = False, algorithm: str = checksums.SHA256) -> str:
        """The digest of a file: the recorded one, or by reading it (`fresh`: always). Raises `SourceError`."""
        if not fresh and (known := self._recorded(os.fspath(path), fingerprint(path), algorithm)):
            return known
        with Source(path) as source:
            settled = not unsettled(source.fingerprint)
            digest = checksums.digest_of(source.pieces(0, source.fingerprint.size), algorithm)
            return self._remembered(source, digest) if settled else digest

    def _recorded(self, path: str, seen: Fingerprint, algorithm: str) -> str | None:
        trusting = self._trusting and path not in self._doubted
        return self._cache.get(path, seen, algorithm) if self._cache and trusting else None

    def _remembered(self, source: Source, digest: str) -> str:
        """A digest that was just read, recorded unless the source changed meanwhile."""
        if fingerprint(source.path).same(source.fingerprint):
            self.record(source.path, source.fingerprint, digest)
        return digest

    def take_chunks(self, path: str, seen: Fingerprint, chunk_size: int) -> Digests | None:
        """The digests of the chunks of exactly this revision, where they were computed in this process; they are given
        once, since they take memory."""
        kept = self._kept.pop(path, None)
        return kept[2] if kept and kept[0].same(seen) and kept[1] == chunk_size else None

    def record(self, path: str, seen: Fingerprint, digest: str) -> None:
        """Remember a digest of content that was read after `seen` had settled and before it changed."""
        if self._cache:
            self._cache.put(path, seen, digest)
