"""Sources: fingerprints, reading by ranges, digests, spooling."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import socket
import threading
import time
from pathlib import Path
from typing import BinaryIO

import pytest
import xxhash

from ppcli import source as source_module
from ppcli.errors import Local, SourceError
from ppcli.model import Fingerprint, Part
from ppcli.source import SETTLE_NS, Source, fingerprint, settle, spool, unsettled
from ppcli.target import PIECE

CONTENT = bytes(range(256)) * (10 * 1024) + b"tail"  # 2.5 MiB and a bit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(CONTENT)
    return path


def xxh3(data: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(data)


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def test_fingerprint_follows_links(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    assert fingerprint(tmp_path / "link") == fingerprint(path)
    assert fingerprint(path).size == len(CONTENT)


@pytest.mark.parametrize("name", ["missing", "missing/below", "source.bin/below", "dangling", "nul\0"])
def test_what_is_not_there_is_missing(path: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for read in (fingerprint, Source):
        with pytest.raises(SourceError) as caught:
            read(tmp_path / name)
        assert caught.value.reason == "missing"


def test_special_files_are_unreadable_and_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    listening.close()
    cases = {
        tmp_path / "fifo": "FIFO",
        tmp_path / "socket": "socket",
        Path("/dev/null"): "device",
        tmp_path: "directory",
    }
    for special, word in cases.items():
        for read in (fingerprint, Source):
            with pytest.raises(SourceError, match=word) as caught:
                read(special)
            assert caught.value.reason == "unreadable"


def test_a_fifo_that_takes_the_place_of_a_file_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.setattr(source_module, "fingerprint", lambda path: None)
    with pytest.raises(SourceError, match="FIFO"):
        Source(tmp_path / "fifo")


def test_a_file_under_a_lease_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain_open = os.open

    def leased(name: Path, flags: int) -> int:
        if flags & os.O_NONBLOCK:
            raise BlockingIOError(errno.EWOULDBLOCK, "lease")
        return plain_open(name, flags)

    monkeypatch.setattr(os, "open", leased)
    with Source(path) as source:
        assert source.fingerprint.size == len(CONTENT)


def test_a_body_can_be_read_again_and_knows_its_digests(path: Path) -> None:
    part = Part(0, 1000, 2 * PIECE)
    told: list[int] = []
    with Source(path) as source:
        body = source.body(part, on_bytes=told.append, whole=True)
        for _ in range(2):
            pieces = [bytes(piece) for piece in body]
            assert max(map(len, pieces)) <= PIECE
            assert b"".join(pieces) == CONTENT[1000 : 1000 + 2 * PIECE]
            assert body.checksum == xxh3(b"".join(pieces)) == source.checksum(part)
            assert body.whole == sha256(b"".join(pieces))
    assert told == [PIECE] * 4


def test_an_empty_body(path: Path) -> None:
    with Source(path) as source:
        body = source.body(Part(0, 0, 0), whole=True)
        assert list(body) == []
        assert (body.checksum, body.whole) == (xxh3(b""), sha256(b""))


def test_bytes_are_told_once_consumed_and_the_listener_may_abandon(path: Path) -> None:
    def abandon(count: int) -> None:
        raise KeyboardInterrupt

    with Source(path) as source:
        pieces = iter(source.body(Part(0, 0, 10), on_bytes=abandon))
        assert bytes(next(pieces)) == CONTENT[:10]
        with pytest.raises(KeyboardInterrupt):
            next(pieces)


def test_a_source_that_got_shorter_has_changed(path: Path) -> None:
    with Source(path) as source:
        os.truncate(path, PIECE + 5)
        with pytest.raises(SourceError) as caught:
            list(source.body(Part(0, PIECE, 10)))
    assert caught.value.reason == "changed"


def test_an_io_error_is_unreadable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    with Source(path) as source, pytest.raises(SourceError, match="Input/output") as caught:
        source.checksum(Part(0, 0, 10))
    assert caught.value.reason == "unreadable"


def test_short_reads_are_no_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, offset: whole_read(fd, [views[0][:1000]], offset))
    with Source(path) as source:
        assert source.checksum(Part(0, 7, 5000)) == xxh3(CONTENT[7:5007])
        assert b"".join(bytes(piece) for piece in source.body(Part(0, 7, 5000))) == CONTENT[7:5007]


@pytest.mark.parametrize("chunk_size", [len(CONTENT), 1 << 20, 700_001, 4 << 20])
def test_digests_in_one_pass(path: Path, chunk_size: int) -> None:
    told: list[int] = []
    with Source(path) as source:
        digests = source.digests(chunk_size, told.append)
    assert digests.whole == sha256(CONTENT)
    assert digests.chunks == [xxh3(CONTENT[at : at + chunk_size]) for at in range(0, len(CONTENT), chunk_size)]
    assert sum(told) == len(CONTENT)


def test_an_empty_file_has_one_empty_chunk(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with Source(tmp_path / "empty") as source:
        digests = source.digests(8)
    assert (digests.whole, digests.chunks) == (sha256(b""), [xxh3(b"")])


def test_threads_read_one_source_at_once(path: Path) -> None:
    parts = [Part(i, i * 100_003, 100_003) for i in range(25)]
    wrong: list[int] = []
    with Source(path) as source:

        def work() -> None:
            for part in parts:
                body = source.body(part)
                read = b"".join(map(bytes, body))
                if read != CONTENT[part.offset : part.offset + part.size] or body.checksum != xxh3(read):
                    wrong.append(part.index)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def aged(seconds: float) -> Fingerprint:
    return Fingerprint(1, 0, time.time_ns() - int(seconds * 1e9), 1, 1)


def test_settle_waits_for_young_files_only() -> None:
    assert unsettled(aged(1.0)) == 0
    assert 0 < unsettled(aged(0.001)) <= SETTLE_NS
    assert unsettled(aged(-3600)) == SETTLE_NS, "a clock that jumped costs one window at most"
    young = aged(0)
    settle(young)
    assert unsettled(young) == 0


def test_a_rewrite_after_settling_shows(path: Path) -> None:
    for content in (b"a", b"b"):
        path.write_bytes(content)
        before = fingerprint(path)
        settle(before)
        path.write_bytes(b"c")
        assert fingerprint(path) != before


def test_spool_copies_a_stream(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        made = spool(io.BytesIO(CONTENT), tmp_path / "spool")
    finally:
        os.umask(old)
    assert (tmp_path / "spool").read_bytes() == CONTENT
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o600
    assert made == fingerprint(tmp_path / "spool")


class BrokenPipe(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize(
    ("stream", "failing", "kind"),
    [(BrokenPipe(), None, SourceError), (io.BytesIO(b"x"), "write", Local), (io.BytesIO(b"x"), "fsync", Local)],
)
def test_a_failed_spool_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: BinaryIO, failing: str | None, kind: type[Exception]
) -> None:
    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    if failing:
        monkeypatch.setattr(os, failing, full)
    with pytest.raises(kind):
        spool(stream, tmp_path / "spool")
    assert list(tmp_path.iterdir()) == []
