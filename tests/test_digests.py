"""The digest cache: right, shared, and never in the way."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ppcli import digests as digests_module
from ppcli import hashing as hashing_module
from ppcli.digests import FILE_NAME, DigestCache
from ppcli.errors import SourceError
from ppcli.hashing import Hashes
from ppcli.model import Fingerprint
from ppcli.source import Source, fingerprint, settle

SEEN = Fingerprint(size=5, mtime_ns=1, ctime_ns=2, inode=2**64 - 1, device=2**64 - 1)
DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def settled_file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    settle(fingerprint(path))
    return path


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read through."""
    paths: list[Path] = []

    class Counted(Source):
        def __init__(self, path: Path) -> None:
            paths.append(path)
            super().__init__(path)

    monkeypatch.setattr(hashing_module, "Source", Counted)
    return paths


def test_a_digest_survives_the_process_and_is_private(data_dir: Path) -> None:
    with DigestCache(data_dir) as cache:
        cache.put(Path("/a"), SEEN, DIGEST)
        assert cache.get(Path("/a"), SEEN) == DIGEST
    for file in data_dir.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
    with DigestCache(data_dir) as cache:
        assert cache.get(Path("/a"), SEEN) == DIGEST
        assert cache.get(Path("/b"), SEEN) is None


@pytest.mark.parametrize("field", ["size", "mtime_ns", "ctime_ns", "inode", "device"])
def test_any_change_of_the_fingerprint_voids_it(data_dir: Path, field: str) -> None:
    other = replace(SEEN, **{field: 77})
    cache = DigestCache(data_dir)
    cache.put(Path("/a"), SEEN, DIGEST)
    assert cache.get(Path("/a"), other) is None
    cache.close()
    with DigestCache(data_dir) as cache:
        assert cache.get(Path("/a"), other) is None


def test_asking_alone_creates_nothing(data_dir: Path) -> None:
    with DigestCache(data_dir) as cache:
        assert cache.get(Path("/a"), SEEN) is None
    assert not data_dir.exists()


def test_paths_are_absolute_and_may_be_any_bytes(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"bad\xff")
    with DigestCache(data_dir) as cache:
        cache.put(Path(name), SEEN, DIGEST)
    with DigestCache(data_dir) as cache:
        assert cache.get(tmp_path / name, SEEN) == DIGEST


def test_of_file_reads_once(data_dir: Path, tmp_path: Path, reads: list[Path]) -> None:
    path = settled_file(tmp_path / "f", b"hello")
    with DigestCache(data_dir) as cache:
        assert [Hashes(cache).of_file(path) for _ in range(3)] == [sha256(b"hello")] * 3
        assert len(reads) == 1
        assert Hashes(cache).of_file(path, fresh=True) == sha256(b"hello")
        assert len(reads) == 2
        settled_file(path, b"other")
        assert Hashes(cache).of_file(path) == sha256(b"other")


def test_a_digest_that_is_not_to_be_trusted_is_read_again(data_dir: Path, tmp_path: Path) -> None:
    path = settled_file(tmp_path / "a", b"hello")
    cache = DigestCache(data_dir)
    hashes, right = Hashes(cache), f"sha256:{hashlib.sha256(b'hello').hexdigest()}"
    cache.put(path, fingerprint(path), DIGEST)
    assert hashes.of_file(path) == DIGEST
    hashes.distrust()
    assert hashes.of_file(path) == right


def test_of_file_of_nothing(data_dir: Path, tmp_path: Path) -> None:
    with DigestCache(data_dir) as cache, pytest.raises(SourceError):
        Hashes(cache).of_file(tmp_path / "missing")


def test_a_file_that_is_too_young_or_changes_meanwhile_is_not_recorded(
    data_dir: Path, tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = settled_file(tmp_path / "f", b"hello")
    monkeypatch.setattr(hashing_module, "unsettled", lambda seen: 1)
    with DigestCache(data_dir) as cache:
        Hashes(cache).of_file(path)
        monkeypatch.setattr(hashing_module, "unsettled", lambda seen: 0)
        monkeypatch.setattr(hashing_module, "fingerprint", lambda path: SEEN)
        Hashes(cache).of_file(path)
        monkeypatch.undo()
        assert cache.get(path, fingerprint(path)) is None
    assert len(reads) == 2


def damaged_head(path: Path) -> None:
    path.write_bytes(b"not a database, but long enough to look like one" * 100)


def damaged_body(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100:] = b"\xa5" * (len(data) - 100)
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [damaged_head, damaged_body])
def test_a_damaged_database_is_set_aside(data_dir: Path, damage: Callable[[Path], None]) -> None:
    with DigestCache(data_dir) as cache:
        cache.put(Path("/a"), SEEN, DIGEST)
    damage(data_dir / FILE_NAME)
    with DigestCache(data_dir) as cache:
        assert cache.get(Path("/a"), SEEN) is None
        cache.put(Path("/a"), SEEN, DIGEST)
    assert list(data_dir.glob(f"{FILE_NAME}.corrupt-*"))
    with DigestCache(data_dir) as cache:
        assert cache.get(Path("/a"), SEEN) == DIGEST


def test_damage_met_while_writing_does_not_lose_the_batch(data_dir: Path) -> None:
    data_dir.mkdir()
    damaged_head(data_dir / FILE_NAME)
    with DigestCache(data_dir) as cache:
        cache.put(Path("/a"), SEEN, DIGEST)
    with DigestCache(data_dir) as cache:
        assert cache.get(Path("/a"), SEEN) == DIGEST


def test_a_locked_database_costs_one_wait(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests_module, "_LOCK_WAIT", 0.05)
    DigestCache(data_dir).put(Path("/a"), SEEN, DIGEST)
    data_dir.mkdir(exist_ok=True)
    other = sqlite3.connect(data_dir / FILE_NAME, isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    try:
        began = time.monotonic()
        with DigestCache(data_dir) as cache:
            for number in range(2000):
                cache.put(Path(f"/{number}"), SEEN, DIGEST)
                assert cache.get(Path("/a"), SEEN) is None
        assert time.monotonic() - began < 2
    finally:
        other.close()


def test_an_unwritable_place_is_done_without(tmp_path: Path, reads: list[Path]) -> None:
    (tmp_path / "file").write_bytes(b"")
    path = settled_file(tmp_path / "f", b"hello")
    with DigestCache(tmp_path / "file" / "data") as cache:
        assert Hashes(cache).of_file(path) == sha256(b"hello")
    (tmp_path / "data" / FILE_NAME).mkdir(parents=True)
    with DigestCache(tmp_path / "data") as cache:
        assert Hashes(cache).of_file(path) == sha256(b"hello")
    assert len(reads) == 2


def test_threads_share_a_cache(data_dir: Path) -> None:
    failures: list[object] = []
    with DigestCache(data_dir) as cache:

        def work(base: int) -> None:
            for number in range(base, base + 400):
                cache.put(Path(f"/{number}"), SEEN, DIGEST)
                if cache.get(Path(f"/{number}"), SEEN) != DIGEST:
                    failures.append(number)

        threads = [threading.Thread(target=work, args=(base * 400,)) for base in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with DigestCache(data_dir) as cache:
        failures += [n for n in range(2400) if cache.get(Path(f"/{n}"), SEEN) != DIGEST]
    assert not failures


WRITER = """
import sys
from pathlib import Path
from ppcli.digests import DigestCache
from ppcli.model import Fingerprint
with DigestCache(Path(sys.argv[1])) as cache:
    for number in range(1500):
        cache.put(Path(f"/{sys.argv[2]}/{number}"), Fingerprint(1, 2, 3, 4, 5), "sha256:00")
"""


def test_processes_share_a_cache(data_dir: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(data_dir), str(number)]) for number in range(3)]
    assert [writer.wait(timeout=30) for writer in writers] == [0, 0, 0]
    with DigestCache(data_dir) as cache:
        for writer in range(3):
            assert cache.get(Path(f"/{writer}/1499"), Fingerprint(1, 2, 3, 4, 5)) == "sha256:00"


def test_a_hundred_thousand_files_are_quick(data_dir: Path) -> None:
    began = time.monotonic()
    with DigestCache(data_dir) as cache:
        for number in range(100_000):
            cache.put(Path(f"/{number}"), SEEN, DIGEST)
    assert time.monotonic() - began < 10


def test_what_nobody_used_for_long_goes(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with DigestCache(data_dir) as cache:
        cache.put(Path("/old"), SEEN, DIGEST)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 400 * 86400)
    with DigestCache(data_dir) as cache:
        cache.put(Path("/new"), SEEN, DIGEST)
    with DigestCache(data_dir) as cache:
        assert cache.get(Path("/old"), SEEN) is None
        assert cache.get(Path("/new"), SEEN) == DIGEST
