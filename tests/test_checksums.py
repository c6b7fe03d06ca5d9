"""Digests by name, against known values and against hashlib."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest

from ppcli import checksums
from ppcli.digests import DigestCache
from ppcli.errors import Usage
from ppcli.hashing import Hashes
from ppcli.targets.s3 import _LIMITS

CHECK = b"123456789"


@pytest.mark.parametrize(
    ("algorithm", "value"),
    [
        ("crc64nvme", "ae8b14860a799888"),
        ("crc32c", "e3069283"),
        ("md5", hashlib.md5(CHECK).hexdigest()),
        ("sha256", hashlib.sha256(CHECK).hexdigest()),
    ],
)
def test_known_values(algorithm: str, value: str) -> None:
    assert checksums.digest_of([memoryview(CHECK[:4]), memoryview(CHECK[4:])], algorithm) == f"{algorithm}:{value}"


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 20, 25])
def test_parts(size: int) -> None:
    data = os.urandom(size)
    parts = [data[at : at + 10] for at in range(0, size, 10)] or [b""]
    whole = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest()
    pieces = [memoryview(data)[at : at + 3] for at in range(0, size, 3)]
    assert checksums.digest_of(pieces, "md5-10") == f"md5-10:{whole}"


def test_the_whole_of_parts() -> None:
    data = os.urandom(1000)
    parts = [data[at : at + 300] for at in range(0, 1000, 300)]

    def crc(piece: bytes) -> bytes:
        return bytes.fromhex(checksums.digest_of([memoryview(piece)], "crc64nvme").partition(":")[2])

    assert checksums.joined_crc64nvme((crc(part), len(part)) for part in parts) == crc(data)


def test_unknown_names() -> None:
    for name in ("", "crc", "md5-", "md5-0", "md5-x", "sha256-8"):
        assert not checksums.known(name)
        with pytest.raises(ValueError, match="unknown"):
            checksums.hasher(name)


def test_without_the_extra_a_crc_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "awscrt", None)
    with pytest.raises(Usage):
        checksums.hasher("crc64nvme")


def test_the_cache_keeps_digests_apart(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(CHECK)
    with DigestCache(tmp_path / "data") as cache:
        for _ in range(2):
            assert Hashes(cache).of_file(path, algorithm="md5") == f"md5:{hashlib.md5(CHECK).hexdigest()}"
            assert Hashes(cache).of_file(path) == f"sha256:{hashlib.sha256(CHECK).hexdigest()}"


def test_the_part_sizes_that_readme_tells() -> None:
    assert (_LIMITS.chunk_min, _LIMITS.chunk_default, _LIMITS.chunk_max) == (5 << 20, 8 << 20, 5 << 30)
    assert _LIMITS.max_chunks == 10_000
