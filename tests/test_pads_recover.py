"""Damage: the index and `store.json` are made again from the pads and the user key; without the key nothing is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pads_kit import PAD, Upload, audit, closing, content, get, index, put, sha256, target  # noqa: F401

from ppcli.errors import Corrupt, Credentials, NotFound
from ppcli.pads import files, ledger, wire
from ppcli.pads.opening import Directory, find

V1 = content("v1", 3 * PAD + 10)
V2 = V1[:PAD] + content("v2", PAD) + V1[2 * PAD :]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def _root(home: Path) -> Path:
    return home / "data" / "pads"


def _cut_snapshot(root: Path) -> None:
    path = root / "index.json"
    path.write_bytes(path.read_bytes()[:-9])


def _no_snapshot(root: Path) -> None:
    (root / "index.json").unlink()


def _no_journal(root: Path) -> None:
    (root / "index.jsonl").unlink()


def _flip_journal(root: Path) -> None:
    path = root / "index.jsonl"
    data = path.read_bytes()
    path.write_bytes(data[:30] + bytes([data[30] ^ 1]) + data[31:])


def _old_snapshot(root: Path) -> None:
    """The journal begins later than the snapshot ends."""
    path = root / "index.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[2:]))


DAMAGES = [_cut_snapshot, _no_snapshot, _no_journal, _flip_journal, _old_snapshot]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_set_aside_and_rebuilt(home: Path, damage: Callable[[Path], None]) -> None:
    pads = target(home)
    put(pads, "dir/ä", V1)
    put(pads, "dir/ä", V2, "second")
    put(pads, "gone", V1, "third")
    pads.remove(["gone"])
    remote = put(pads, "empty", b"", "fourth")
    damage(_root(home))
    pads = target(home)
    assert [(found.name, found.digest) for found in pads.list("")] == [("dir/ä", sha256(V2)), ("empty", sha256(b""))]
    assert pads.find("empty") == remote
    assert get(pads, "dir/ä") == V2
    assert all("rebuilt" in notice.message for notice in pads.notices())
    assert all(Path(notice.message.rpartition(" ")[2].rstrip(".")).exists() for notice in pads.notices())
    assert pads.notices()
    audit(index(home))
    put(pads, "new", V1, "fifth")
    assert get(target(home), "new") == V1
    assert get(target(home), "dir/ä") == V2


def test_a_running_process_notices_damage_too(home: Path) -> None:
    pads = target(home)
    put(pads, "x", V1)
    path = _root(home) / "index.jsonl"
    sound = path.read_bytes()
    put(target(home), "y", V2, "second")
    path.write_bytes(path.read_bytes().replace(b'"op":"commit","owner":"second', b'"op":"commit","owner":"sixth_'))
    assert path.read_bytes().startswith(sound)
    assert [found.name for found in pads.list("")] == ["x", "y"]
    audit(index(home))


def test_after_a_torn_tail_the_pads_tell_what_it_said(home: Path) -> None:
    pads, path = target(home), _root(home) / "index.jsonl"
    put(pads, "x", V1)
    for fresh in (False, True):
        with path.open("ab") as file:
            file.write(b'{"seq":99,"op":"remove","names":[' + b'"x",' * 500)
        pads = target(home) if fresh else pads
        put(pads, "y", V2, f"job-{fresh}")
        assert get(target(home), "y") == V2
    assert len(list(home.rglob("index.jsonl.corrupt-*"))) == 2
    audit(index(home))


def test_a_job_goes_on_after_its_index_was_rebuilt(home: Path) -> None:
    put(target(home), "x", V1)
    upload = Upload(target(home), "x", V2 + V2, "second").open().adopt().send(2)
    held = dict(upload.receipts)
    assert len(held) == 4
    _no_snapshot(_root(home))
    upload.target = target(home)
    upload.open()
    assert upload.receipts == held
    upload.send().complete()
    assert get(target(home), "x") == V2 + V2
    audit(index(home))


def test_pads_of_a_lost_owner_that_were_taken_are_sent_again(home: Path) -> None:
    upload = Upload(target(home), "x", V1).open().send(3)
    _no_snapshot(_root(home))
    put(target(home), "y", content("y", 9 * PAD), "second")
    upload.target = target(home)
    upload.open()
    assert len(upload.receipts) < 3
    upload.send().complete()
    assert get(target(home), "x") == V1
    assert get(target(home), "y") == content("y", 9 * PAD)
    audit(index(home))


def test_recover_from_the_key_alone(home: Path, tmp_path: Path) -> None:
    pads = target(home)
    put(pads, "x", V1)
    put(pads, "x", V2, "second")
    put(pads, "y", V1, "third")
    for path in _root(home).iterdir():
        if path.name != "pads":
            path.unlink()
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(home / "data", elsewhere / "data")
    (elsewhere / "config").mkdir()
    with pytest.raises(Credentials):
        target(elsewhere).find("x")
    shutil.copy(home / "config" / "user.key", elsewhere / "config")
    pads = target(elsewhere)
    assert pads.recover() == 2
    assert (get(pads, "x"), get(pads, "y")) == (V2, V1)
    assert pads.limits(1).chunk_default == PAD
    audit(index(elsewhere))


def test_recover_resurrects_nothing(home: Path) -> None:
    pads = target(home)
    put(pads, "x", V1)
    put(pads, "x", V2, "second")
    pads.remove(["x"])
    Upload(pads, "cancelled", V1, "third").open().send().abort()
    Upload(pads, "unfinished", V1, "fourth").open().send()
    assert pads.recover() == 0
    assert list(pads.list("")) == []
    _no_snapshot(_root(home))
    assert list(target(home).list("")) == []


def test_recover_keeps_what_running_jobs_hold(home: Path) -> None:
    upload = Upload(target(home), "x", V1).open().send(2)
    pads = target(home)
    assert pads.recover() == 0
    put(pads, "y", content("y", 9 * PAD), "second")
    upload.send().complete()
    assert (get(pads, "x"), get(pads, "y")) == (V1, content("y", 9 * PAD))
    audit(index(home))


def test_recover_sets_aside_what_is_wrong_and_nothing_sound(home: Path) -> None:
    pads = target(home)
    put(pads, "x", V1)
    upload = Upload(target(home), "y", V2, "second").open().send(2)
    stale = [(_root(home) / name).read_bytes() for name in (ledger.SNAPSHOT, ledger.JOURNAL)]
    for _ in range(2):
        assert pads.recover() == 1
        audit(index(home))
    assert not list(home.rglob("*.corrupt-*"))
    upload.send().complete()
    for name, data in zip((ledger.SNAPSHOT, ledger.JOURNAL), stale, strict=True):  # of a backup, say: it fits no more
        (_root(home) / name).write_bytes(data)
    pads = target(home)
    assert pads.recover() == 2
    assert sorted(path.read_bytes() for path in home.rglob("*.corrupt-*")) == sorted(stale)
    assert len(pads.notices()) == 2
    assert (get(pads, "x"), get(pads, "y")) == (V1, V2)
    audit(index(home))


def test_recover_of_no_store(home: Path) -> None:
    with pytest.raises(NotFound):
        target(home).recover()


def test_a_damaged_identity_is_made_again(home: Path) -> None:
    put(target(home), "x", V1)
    path = _root(home) / "store.json"
    before = path.read_bytes()
    path.write_bytes(before[:-20])
    assert get(target(home), "x") == V1
    assert path.read_bytes() == before
    assert len(list(_root(home).glob("store.json.corrupt-*"))) == 1


def test_a_store_that_this_key_did_not_make_is_corrupt_without_its_identity(home: Path) -> None:
    put(target(home), "x", V1)
    (_root(home) / "store.json").unlink()
    (home / "config" / "user.key").write_text("00" * 32)
    with pytest.raises(Corrupt):
        target(home).find("x")
    assert any(files.files(_root(home)))


def test_a_store_that_another_process_makes_meanwhile_is_not_damaged(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked for before it was there, and its pads, which nobody wrote yet, after."""
    site = Directory(_root(home), home / "config", mounted=False)
    look_for_pads = files.files

    def made_meanwhile(root: Path) -> Iterator[Path]:
        site.create(PAD)
        blank = root / "pads" / "00" / ("00" * 32)
        blank.write_bytes(b"")
        return look_for_pads(root)

    monkeypatch.setattr(files, "files", made_meanwhile)
    found = find(_root(home), home / "config")
    assert found is not None and found.pad_size == PAD


@pytest.mark.parametrize("key", [None, "00" * 32, "no key", "00"])
def test_without_the_right_key_nothing_is_done(home: Path, key: str | None) -> None:
    put(target(home), "x", V1)
    path = home / "config" / "user.key"
    right = path.read_text()
    path.write_text(key) if key is not None else path.unlink()
    for attempt in (lambda: target(home).find("x"), lambda: Upload(target(home), "y", V1).open()):
        with pytest.raises(Credentials) as refused:
            attempt()
        assert str(path) in refused.value.message + refused.value.hint
    path.write_text(right)
    assert get(target(home), "x") == V1


def test_a_journal_that_ends_before_its_snapshot_is_begun_anew(home: Path) -> None:
    put(target(home), "x", V1)
    path = _root(home) / "index.jsonl"
    (_root(home) / "index.json").write_bytes(wire.encode_state(index(home)))
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    put(target(home), "z", V1 + V2, "third")
    assert get(target(home), "z") == V1 + V2
    assert not list(home.rglob("*.corrupt-*"))
    audit(index(home))


def test_compaction_loses_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "COMPACT_AT", 500)
    journal, snapshot = _root(home) / "index.jsonl", _root(home) / "index.json"
    one, other = target(home), target(home)
    for number in range(12):
        put(one if number % 2 else other, f"n{number % 5}", content(number, 2 * PAD), f"job-{number}")
        assert journal.stat().st_size <= max(500, snapshot.stat().st_size)
        audit(index(home))
    assert [get(one, f"n{number % 5}") for number in range(7, 12)] == [content(n, 2 * PAD) for n in range(7, 12)]
    assert not list(home.rglob("*.corrupt-*"))
