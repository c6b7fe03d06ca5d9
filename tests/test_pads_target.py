"""The pad store as a target: URLs, limits, what is on disk, reading and finding damage."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pads_kit import PAD, MemoryBody, Upload, closing, content, get, put, sha256, target  # noqa: F401

from ppcli.errors import Damaged, Integrity, Local, Temporary, Usage
from ppcli.model import Part, Receipt
from ppcli.pads import files
from ppcli.target import Store, Target

V1 = content("v1", 3 * PAD + 10)
V2 = V1[:PAD] + content("v2", PAD) + V1[2 * PAD :]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    assert not list(tmp_path.rglob("*.corrupt-*")), "an index that nobody damaged was rebuilt"


def test_it_is_a_target_and_a_store(home: Path) -> None:
    pads: Target = target(home)
    assert isinstance(pads, Store)


def test_what_was_put_is_there(home: Path) -> None:
    pads = target(home)
    remote = put(pads, "dir/a b", V1)
    assert remote == target(home).find("dir/a b") == next(iter(pads.list("dir/")))
    assert (remote.size, remote.digest, remote.modified, remote.chunk_size) == (len(V1), sha256(V1), 12.5, PAD)
    assert remote.location == "pads:#dir/a%20b"
    assert pads.locate(remote.location) == "dir/a b"
    assert get(target(home), "dir/a b") == V1
    assert pads.digest(remote) == pads.digest(remote, fresh=True) == sha256(V1)


@pytest.mark.parametrize("size", [0, 1, PAD - 1, PAD, PAD + 1, 2 * PAD])
def test_sizes_around_a_pad(home: Path, size: int) -> None:
    data = content(size, size)
    put(target(home), "x", data)
    assert get(target(home), "x") == data
    assert get(target(home), "x", offset=size) == b""


@pytest.mark.parametrize("offset", [0, 1, PAD - 1, PAD, PAD + 1, len(V1) - 1])
def test_reading_from_an_offset(home: Path, offset: int) -> None:
    put(target(home), "x", V1)
    assert get(target(home), "x", offset) == V1[offset:]


def test_looking_makes_nothing(home: Path) -> None:
    pads = target(home)
    assert pads.find("x") is None
    assert not list(pads.list(""))
    assert not list(pads.incomplete())
    assert not pads.remove(["x"])
    assert pads.limits(10).chunk_max == PAD
    assert list(home.iterdir()) == []


def test_everything_is_private(home: Path) -> None:
    old = os.umask(0o022)
    try:
        put(target(home), "x", V1)
    finally:
        os.umask(old)
    for path in home.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_small_file_takes_little_space(home: Path) -> None:
    put_target = target(home, chunk_size=None)
    Upload(put_target, "x", b"small", chunk_size=4 << 20).put()
    assert all(path.stat().st_size < 1000 for path in files.files(home / "data" / "pads"))


def test_no_secret_and_no_address_in_the_index(home: Path) -> None:
    put(target(home), "x", V1)
    root = home / "data" / "pads"
    index_text = "".join((root / name).read_text() for name in ("index.json", "index.jsonl", "store.json"))
    assert not [path for path in files.files(root) if path.name in index_text]
    assert (home / "config" / "user.key").read_text().strip() not in index_text


def test_confirm_reads_back(home: Path) -> None:
    pads = target(home)
    upload = Upload(pads, "x", V1[:PAD]).open()
    assert upload.session
    (slot,) = pads.reserve(upload.session, upload.plan, upload.parts)
    receipt = pads.upload(upload.session, upload.plan, upload.parts[0], slot, MemoryBody(V1[:PAD]))
    assert receipt.evidence is None
    (path,) = files.files(home / "data" / "pads")
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(bytes([V1[PAD - 1] ^ 1]))
    with pytest.raises(Damaged):
        pads.confirm(upload.session, upload.plan, receipt)
    with pytest.raises(Damaged):
        pads.confirm(upload.session, upload.plan, replace(receipt, index=1))


def test_damage_is_found_by_reading_and_mended_by_sending_again(home: Path) -> None:
    pads = target(home)
    remote = put(pads, "x", V1)
    _damage(home, V1[PAD : 2 * PAD])
    with pytest.raises(Integrity, match="Chunk 1 of x"):
        get(pads, "x")
    with pytest.raises(Integrity):
        get(pads, "x", offset=2 * PAD - 1)
    assert get(pads, "x", offset=2 * PAD) == V1[2 * PAD :]
    pads = target(home)
    assert pads.digest(remote) != pads.digest(remote, fresh=True)
    upload = Upload(pads, "x", V1, "again").open().adopt()
    assert sorted(upload.receipts) == [0, 2, 3]
    upload.send().complete()
    assert get(target(home), "x") == V1


def test_a_name_that_is_replaced_while_it_is_read(home: Path) -> None:
    pads = target(home)
    remote = put(pads, "x", V1)
    pieces = pads.read(remote, 0)
    assert bytes(next(pieces)) == V1[:PAD]
    put(target(home), "x", content("new", len(V1)), "second")
    put(target(home), "y", content("y", len(V1)), "third")
    with pytest.raises(Temporary, match="changed while it was read"):
        list(pieces)
    with pytest.raises(Temporary):
        pads.read(remote, 0)


def test_the_pad_size_never_changes(home: Path) -> None:
    put(target(home), "x", V1)
    assert target(home, chunk_size=None).limits(1).chunk_default == PAD
    with pytest.raises(Usage):
        target(home, chunk_size=128).limits(1)
    with pytest.raises(Usage):
        Upload(target(home), "y", V1, chunk_size=128).open()


@pytest.mark.parametrize("size", [63, (1 << 30) + 1])
def test_pad_sizes_have_bounds(home: Path, size: int) -> None:
    with pytest.raises(Usage):
        target(home, chunk_size=size).limits(1)


def test_urls(home: Path) -> None:
    assert target(home, "pads://").url == "pads:"
    pads = target(home, f"pads://{home}/a%20b/")
    assert pads.url == f"pads://{home}/a%20b"
    put(pads, "x", V1)
    assert (home / "a b" / "store.json").exists()
    assert pads.locate(f"{pads.url}#x%23y") == "x#y"
    assert pads.locate("pads:#x") is None
    assert pads.locate(pads.url) is None
    for wrong in ("pads:dir", "pads://host/dir", f"pads://{home}#name"):
        with pytest.raises(Usage):
            target(home, wrong)


def test_a_disk_that_is_not_mounted_is_an_error(home: Path) -> None:
    pads = target(home, f"pads://{home}/missing/store")
    for call in (lambda: pads.find("x"), lambda: list(pads.list("")), lambda: pads.limits(1)):
        with pytest.raises(Local):
            call()
    assert list(home.iterdir()) == []


def test_io_errors_tell_no_address(home: Path) -> None:
    pads = target(home)
    remote = put(pads, "x", V1[:PAD])
    for path in files.files(home / "data" / "pads"):
        path.unlink()
        path.mkdir()
    with pytest.raises(Local) as failed:
        list(pads.read(remote, 0))
    assert failed.value.exit_code == 11
    assert "pad 0" in failed.value.message
    assert not [path for path in files.files(home / "data" / "pads") if path.name in failed.value.message]


def test_adopt_wants_the_same_bytes_at_the_same_place(home: Path) -> None:
    pads = target(home)
    v1 = put(pads, "x", V1)
    upload = Upload(pads, "x", V1, "second").open()
    part = upload.parts[0]
    assert upload.session

    def adopt(part: Part, slot: int | str) -> Receipt | None:
        assert upload.session
        return pads.adopt(upload.session, upload.plan, part, slot, MemoryBody(b""))

    assert adopt(replace(part, checksum="0" * 32), v1.slots[0]) is None
    assert adopt(replace(part, checksum=None), v1.slots[0]) is None
    assert adopt(part, v1.slots[1]) is None
    assert adopt(replace(part, index=1), v1.slots[0]) is None
    assert adopt(replace(part, index=9), v1.slots[0]) is None
    assert adopt(part, v1.slots[0]) is not None


def _damage(home: Path, payload: bytes) -> None:
    """Flip a bit in the one pad that holds this payload."""
    for path in files.files(home / "data" / "pads"):
        data = path.read_bytes()
        if data.endswith(payload):
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            return
    raise AssertionError("no pad holds it")
