"""The `file:` target: what it writes, what it refuses, and what is left when something breaks."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
import xxhash

from ppcli import disk
from ppcli.errors import Damaged, Integrity, Local, NotFound, PpcliError, Rejected, SessionLost, SourceError, Usage
from ppcli.groupsync import GroupSync
from ppcli.model import Evidence, FilePlan, Part, Receipt, Remote, Session
from ppcli.targets import Settings, connect
from ppcli.targets.file import FileTarget

CHUNK = 1000
CONTENT = bytes(range(251)) * 14
MODIFIED = 1_600_000_000.25


@dataclass
class Bytes:
    """A body in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[memoryview]:
        for at in range(0, len(self.data), 300):
            yield memoryview(self.data)[at : at + 300]

    @property
    def checksum(self) -> str:
        return xxhash.xxh3_128_hexdigest(self.data)


def file_digest(path: Path, fresh: bool) -> str:
    try:
        return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise SourceError("cannot be read", reason="unreadable") from error


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def target(root: Path) -> Iterator[FileTarget]:
    target = make(root)
    yield target
    target.close()


def make(root: Path) -> FileTarget:
    made = connect(f"file://{root}", Settings(root, root, file_digest))
    assert isinstance(made, FileTarget)
    return made


def plan(name: str = "big.iso", content: bytes = CONTENT, key: int = 0, immutable: bool = False) -> FilePlan:
    chunks = max(-(-len(content) // CHUNK), 1)
    return FilePlan("j0b", key, name, len(content), MODIFIED, CHUNK, chunks, immutable=immutable)


def parts(content: bytes = CONTENT) -> list[Part]:
    starts = range(0, max(len(content), 1), CHUNK)
    return [Part(index, at, len(content[at : at + CHUNK])) for index, at in enumerate(starts)]


def send(target: FileTarget, file: FilePlan, content: bytes = CONTENT) -> tuple[Session, list[Receipt]]:
    session = target.open(file, None, target.find(file.name))
    wanted = parts(content)
    slots = target.reserve(session, file, wanted)
    receipts = [
        target.upload(session, file, part, slot, Bytes(content[part.offset : part.offset + part.size]))
        for part, slot in zip(wanted, slots, strict=True)
    ]
    return session, [target.confirm(session, file, receipt) for receipt in receipts]


def put(target: FileTarget, file: FilePlan, content: bytes = CONTENT) -> Remote:
    session, receipts = send(target, file, content)
    return target.complete(session, file, receipts, doubtful=False)


def partials(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob(".ppcli-*"))


# What it writes


@pytest.mark.parametrize("content", [CONTENT, b"", b"x", CONTENT[:CHUNK]])
@pytest.mark.parametrize("name", ["big.iso", "a/b/c d", "naïve%FF", ".hidden"])
@pytest.mark.parametrize("immutable", [False, True])
def test_a_file_arrives(target: FileTarget, root: Path, name: str, content: bytes, immutable: bool) -> None:
    session, receipts = send(target, plan(name, content, immutable=immutable), content)
    assert not (root / name).exists(), "nothing shows under its name before it is complete"
    assert {receipt.evidence for receipt in receipts} == {Evidence.CONTENT}
    remote = target.complete(session, plan(name, content, immutable=immutable), receipts, doubtful=False)
    assert (root / name).read_bytes() == content
    assert (root / name).stat().st_mtime == MODIFIED
    assert remote == target.find(name)
    assert (remote.name, remote.size, remote.modified) == (name, len(content), MODIFIED)
    assert unquote_to_bytes(remote.location.removeprefix("file://")) == os.fsencode(root / name)
    assert target.locate(remote.location) == name
    assert target.digest(remote) == file_digest(root / name, True)
    assert not partials(root)


def test_chunks_may_come_in_any_order_from_many_threads(target: FileTarget, root: Path) -> None:
    content = os.urandom(200 * CHUNK + 7)
    file, todo, done = plan(content=content), parts(content)[::-1], []
    session = target.open(file, None, None)

    def work() -> None:
        while todo:
            try:
                part = todo.pop()
            except IndexError:
                return
            body = Bytes(content[part.offset : part.offset + part.size])
            done.append(target.confirm(session, file, target.upload(session, file, part, part.offset, body)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    target.complete(session, file, sorted(done, key=lambda receipt: receipt.index), doubtful=False)
    assert (root / "big.iso").read_bytes() == content


def test_more_files_at_once_than_stay_open(target: FileTarget, root: Path) -> None:
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir())) if descriptors.exists() else 0
    opened = [(plan(f"d/{key}", key=key), target.open(plan(f"d/{key}", key=key), None, None)) for key in range(150)]
    if descriptors.exists():
        assert len(list(descriptors.iterdir())) - before < 150
    for file, session in opened:
        receipts = [
            target.upload(session, file, part, part.offset, Bytes(CONTENT[part.offset : part.offset + part.size]))
            for part in parts()
        ]
        target.complete(session, file, receipts, doubtful=False)
    assert {path.read_bytes() for path in (root / "d").iterdir()} == {CONTENT}
    assert len(list((root / "d").iterdir())) == 150


def test_permissions_are_those_of_a_plain_new_file_or_of_the_replaced_one(root: Path) -> None:
    old = os.umask(0o027)
    try:
        target = make(root)
        put(target, plan("new"))
        send(target, plan("unfinished", key=1))
        (root / "old").write_text("x")
        (root / "old").chmod(0o604)
        put(target, plan("old"))
    finally:
        os.umask(old)
    assert (root / "new").stat().st_mode & 0o777 == 0o640
    assert (root / "old").stat().st_mode & 0o777 == 0o604
    assert (root / partials(root)[0]).stat().st_mode & 0o777 == 0o600
    target.close()


def test_a_file_system_without_permissions_is_no_failure(
    target: FileTarget, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", refuse)
    monkeypatch.setattr(os, "utime", refuse)
    put(target, plan())
    assert (root / "big.iso").read_bytes() == CONTENT


def test_a_replaced_file_stays_readable_for_its_readers(target: FileTarget, root: Path) -> None:
    old = put(target, plan(content=b"old" * 500_000), b"old" * 500_000)
    reader = target.read(old, 0)
    read = bytes(next(reader))
    put(target, plan())
    read += b"".join(map(bytes, reader))
    assert read == b"old" * 500_000
    assert (root / "big.iso").read_bytes() == CONTENT


# Resuming


def test_a_session_goes_on_in_another_process(target: FileTarget, root: Path) -> None:
    file = plan()
    session, receipts = send(target, file)
    target.close()
    later = make(root)
    again = later.open(file, session, None)
    assert again == session
    known = [*receipts[:2], replace(receipts[2], checksum="")]
    survey = later.survey(again, file, known)
    assert survey.authoritative
    assert survey.held == {0: receipts[0], 1: receipts[1]}
    assert later.complete(again, file, receipts, doubtful=False).size == len(CONTENT)
    later.close()


@pytest.mark.parametrize("size", [CHUNK, len(CONTENT) + 5 * CHUNK])
def test_a_replanned_file_keeps_its_partial(target: FileTarget, root: Path, size: int) -> None:
    session, _ = send(target, plan())
    file = replace(plan(), size=size)
    session = target.open(file, session, None)
    assert (root / partials(root)[0]).read_bytes() == CONTENT[:size].ljust(size, b"\0")
    assert target.open(file, session, None) == session


def test_a_partial_that_is_gone_or_was_cut_is_a_lost_session(target: FileTarget, root: Path) -> None:
    session, receipts = send(target, plan())
    partial = root / partials(root)[0]
    os.truncate(partial, 10)
    with pytest.raises(SessionLost):
        target.complete(session, plan(), receipts, doubtful=False)
    with pytest.raises(SessionLost):
        target.open(plan(), session, None)
    partial.unlink()
    for call in (
        lambda: target.open(plan(), session, None),
        lambda: target.survey(session, plan(), receipts),
        lambda: target.confirm(session, plan(), receipts[0]),
        lambda: target.complete(session, plan(), receipts, doubtful=True),
    ):
        with pytest.raises(SessionLost):
            call()


def test_a_fresh_open_sweeps_what_an_earlier_one_left(target: FileTarget, root: Path) -> None:
    send(target, plan())
    target.open(plan(content=b"xy"), None, None)
    assert (root / partials(root)[0]).read_bytes() == b"\0\0"


def test_damage_is_found_by_reading_back(target: FileTarget, root: Path) -> None:
    session, receipts = send(target, plan())
    with (root / partials(root)[0]).open("r+b") as file:
        file.seek(1500)
        file.write(b"!")
    assert target.confirm(session, plan(), receipts[0])
    with pytest.raises(Damaged):
        target.confirm(session, plan(), receipts[1])
    os.truncate(root / partials(root)[0], 2500)
    with pytest.raises(Damaged):
        target.confirm(session, plan(), receipts[2])


# Completing: doubt and races


def interrupted_after(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies right after this call of `Path`."""
    real: Callable[..., object] = getattr(Path, call)

    def dies(self: Path, *args: object, **options: object) -> None:
        real(self, *args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, call, dies)


@pytest.mark.parametrize(("immutable", "call"), [(False, "replace"), (True, "hardlink_to"), (True, "unlink")])
def test_a_complete_that_was_not_recorded_is_recognised(
    root: Path, monkeypatch: pytest.MonkeyPatch, immutable: bool, call: str
) -> None:
    target, file = make(root), plan(immutable=immutable)
    session, receipts = send(target, file)
    interrupted_after(call, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        target.complete(session, file, receipts, doubtful=False)
    monkeypatch.undo()
    target.close()
    later = make(root)
    session = later.open(file, session, later.find(file.name))
    assert len(later.survey(session, file, receipts).held) == len(receipts), "nothing is sent again"
    assert later.complete(session, file, receipts, doubtful=True) == later.find("big.iso")
    assert not partials(root)
    later.close()


def test_a_completed_file_is_never_written_to_again(
    target: FileTarget, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = plan(immutable=True)
    session, receipts = send(target, file)
    interrupted_after("hardlink_to", monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        target.complete(session, file, receipts, doubtful=False)
    monkeypatch.undo()
    session = target.open(file, session, None)
    with pytest.raises(SessionLost):
        target.upload(session, file, parts()[0], 0, Bytes(b"!" * CHUNK))
    assert (root / "big.iso").read_bytes() == CONTENT


def test_other_content_under_the_name_is_no_success(target: FileTarget, root: Path) -> None:
    session, receipts = send(target, plan())
    (root / partials(root)[0]).unlink()
    (root / "big.iso").write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(SessionLost):
        target.complete(session, plan(), receipts, doubtful=True)


@pytest.mark.parametrize("links", [True, False])
def test_immutable_never_replaces_other_content(
    target: FileTarget, root: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:

        def no_links(self: Path, other: Path) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", no_links)
    put(target, plan(immutable=True))
    put(target, plan(immutable=True))
    other = CONTENT[::-1]
    session, receipts = send(target, plan(content=other, immutable=True), other)
    with pytest.raises(Rejected) as caught:
        target.complete(session, plan(content=other, immutable=True), receipts, doubtful=False)
    assert caught.value.reason == "exists"
    assert (root / "big.iso").read_bytes() == CONTENT


@pytest.mark.parametrize("links", [True, False])
def test_racing_immutable_completes_have_one_winner(root: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:

        def no_links(self: Path, other: Path) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", no_links)
    ready = []
    for key in range(8):
        content, target = bytes([key]) * 2500, make(root)
        file = plan(content=content, key=key, immutable=True)
        ready.append((target, file, *send(target, file, content)))
    start, won, lost = threading.Barrier(8), [], []

    def finish(target: FileTarget, file: FilePlan, session: Session, receipts: list[Receipt]) -> None:
        start.wait()
        try:
            target.complete(session, file, receipts, doubtful=False)
            won.append(file.key)
        except Rejected as error:
            lost.append(error.reason)

    threads = [threading.Thread(target=finish, args=each) for each in ready]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for target, *_ in ready:
        target.close()
    assert len(won) == 1
    assert lost == ["exists"] * 7
    assert (root / "big.iso").read_bytes() == bytes([won[0]]) * 2500


# What it refuses


@pytest.mark.parametrize(
    "url", ["file://server/share", "file:", "file:relative", "file:///a?b", "file:///a#b", "file://[x/"]
)
def test_urls_that_are_no_directory_here(url: str, tmp_path: Path) -> None:
    with pytest.raises(Usage):
        connect(url, Settings(tmp_path, tmp_path, file_digest))


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("file:///a/b/", "file:///a/b"),
        ("file://localhost/a", "file:///a"),
        ("file:/a", "file:///a"),
        ("file:////a//b/../c", "file:///a/c"),
        ("file:///a%20b/%C3%A9%FF", "file:///a%20b/%C3%A9%FF"),
        ("file:///a b/é", "file:///a%20b/%C3%A9"),
    ],
)
def test_urls_are_made_canonical(url: str, canonical: str, tmp_path: Path) -> None:
    assert connect(url, Settings(tmp_path, tmp_path, file_digest)).url == canonical


@pytest.mark.parametrize("kind", ["nothing", "file"])
def test_a_missing_directory_is_no_empty_target(tmp_path: Path, kind: str) -> None:
    if kind == "file":
        (tmp_path / "gone").touch()
    target = make(tmp_path / "gone")
    for call in (
        lambda: target.limits(1),
        lambda: target.find("x"),
        lambda: target.open(plan(), None, None),
        lambda: list(target.list("")),
        lambda: list(target.incomplete()),
        lambda: target.remove(["x"]),
    ):
        with pytest.raises(Local) as caught:
            call()
        assert caught.value.reason == "missing"


def refusal(target: FileTarget, name: str) -> str | None:
    with pytest.raises(Rejected) as caught:
        target.open(plan(name), None, None)
    assert target.find(name) is None
    target.abort(None, plan(name))
    return caught.value.reason


def test_names_that_cannot_be(target: FileTarget, root: Path, tmp_path: Path) -> None:
    (root / "dir").mkdir()
    (root / "file").touch()
    os.mkfifo(root / "fifo")
    reasons = {
        "../x": "forbidden",
        "/etc/x": "forbidden",
        "a/../../x": "forbidden",
        "a//b": "forbidden",
        "": "forbidden",
        "dir": "exists",
        "fifo": "exists",
        "file/below": "exists",
        "n" * 256: "unsupported",
        "n" * 256 + "/x": "unsupported",
        ".ppcli-j0b-0.part": "unsupported",
        "dir/.ppcli-j0b-0.part": "unsupported",
    }
    assert {name: refusal(target, name) for name in reasons} == reasons
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root"]


def test_links_lead_nowhere_outside(target: FileTarget, root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    (root / "way-out").symlink_to(tmp_path / "outside")
    (root / "leak").symlink_to(tmp_path / "outside/secret")
    (root / "loop").symlink_to("loop")
    (root / "inside").mkdir()
    (root / "way-in").symlink_to("inside")
    assert refusal(target, "way-out/x") == "forbidden"
    assert target.find("way-out/secret") is None
    assert target.find("leak") is None
    assert target.find("loop") is None
    assert target.remove(["way-out/secret", "leak"]) == []
    remote = put(target, plan("way-in/x"))
    assert (root / "inside/x").read_bytes() == CONTENT
    assert remote.location.endswith("/way-in/x")
    put(target, plan("leak"))
    assert (tmp_path / "outside/secret").read_text() == "secret"
    assert (root / "leak").read_bytes() == CONTENT
    assert [remote.name for remote in target.list("")] == ["inside/x", "leak"]


# Faults


def fail(monkeypatch: pytest.MonkeyPatch, place: object, name: str, code: int) -> None:
    def broken(*args: object, **options: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(place, name, broken)


@pytest.mark.parametrize(
    ("place", "name"),
    [(os, "pwrite"), (disk, "fsync"), (os, "preadv"), (os, "open"), (os, "ftruncate"), (Path, "replace")],
)
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, "disk_full"),
        (errno.EDQUOT, "disk_full"),
        (errno.EROFS, "read_only"),
        (errno.EACCES, "read_only"),
        (errno.EIO, "io"),
        (errno.ESTALE, "io"),
        (errno.ENOTCONN, "io"),
    ],
)
def test_faults_of_the_disk_are_local(
    target: FileTarget, root: Path, monkeypatch: pytest.MonkeyPatch, place: object, name: str, code: int, reason: str
) -> None:
    put(target, plan(content=b"old"), b"old")
    fail(monkeypatch, place, name, code)
    with pytest.raises(Local) as caught:
        put(target, plan())
    assert caught.value.reason == reason
    assert "PPCLI_DATA_DIR" not in caught.value.hint
    monkeypatch.undo()
    assert (root / "big.iso").read_bytes() == b"old"
    put(make(root), plan())
    assert (root / "big.iso").read_bytes() == CONTENT


def test_a_full_disk_shows_before_anything_is_sent(target: FileTarget, root: Path) -> None:
    with pytest.raises(Local) as caught:
        target.open(replace(plan(), size=1 << 43), None, None)
    assert caught.value.reason == "disk_full"


@pytest.mark.parametrize(("code", "reason"), [(errno.EFBIG, "too_large"), (errno.EINVAL, "unsupported")])
def test_what_the_file_system_cannot_hold_is_rejected(
    target: FileTarget, monkeypatch: pytest.MonkeyPatch, code: int, reason: str
) -> None:
    fail(monkeypatch, os, "ftruncate" if code == errno.EFBIG else "pwrite", code)
    with pytest.raises(Rejected) as caught:
        send(target, plan())
    assert caught.value.reason == reason


def test_a_directory_that_cannot_be_synced_is_good_enough(
    target: FileTarget, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail(monkeypatch, disk, "fsync_dir", errno.EINVAL)
    put(target, plan())
    assert (root / "big.iso").read_bytes() == CONTENT


def test_a_failed_sync_is_never_tried_again(target: FileTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    session = target.open(plan(), None, None)
    fail(monkeypatch, disk, "fsync", errno.EIO)
    body = Bytes(CONTENT[:CHUNK])
    with pytest.raises(Local):
        target.upload(session, plan(), parts()[0], 0, body)
    monkeypatch.undo()
    for call in (
        lambda: target.upload(session, plan(), parts()[0], 0, body),
        lambda: target.complete(session, plan(), [], doubtful=False),
    ):
        with pytest.raises(Local):
            call()


def test_a_source_that_fails_stays_the_source_s_fault(target: FileTarget) -> None:
    class Broken(Bytes):
        def __iter__(self) -> Iterator[memoryview]:
            raise SourceError("it got shorter", reason="changed")

    session = target.open(plan(), None, None)
    with pytest.raises(SourceError):
        target.upload(session, plan(), parts()[0], 0, Broken(b"x"))


# One sync for many


def test_a_group_sync_runs_once_for_all_who_wait() -> None:
    runs, first, go = [], threading.Event(), threading.Event()

    def sync() -> None:
        runs.append(1)
        first.set()
        go.wait(5)

    group = GroupSync(sync)
    threads = [threading.Thread(target=group.wait) for _ in range(20)]
    threads[0].start()
    first.wait(5)
    for thread in threads[1:]:
        thread.start()
    time.sleep(0.05)
    go.set()
    for thread in threads:
        thread.join(5)
    assert len(runs) == 2, "one that ran already, and one for the nineteen who came meanwhile"


def test_the_error_of_a_sync_reaches_everyone_who_joined() -> None:
    first, go, errors = threading.Event(), threading.Event(), []
    runs: list[int] = []

    def sync() -> None:
        runs.append(1)
        if len(runs) == 1:
            first.set()
            go.wait(5)
        else:
            raise OSError(errno.EIO, "Input/output error")

    group = GroupSync(sync)

    def join() -> None:
        try:
            group.wait()
        except OSError as error:
            errors.append(error.errno)

    threads = [threading.Thread(target=join) for _ in range(10)]
    threads[0].start()
    first.wait(5)
    for thread in threads[1:]:
        thread.start()
    time.sleep(0.05)
    go.set()
    for thread in threads:
        thread.join(5)
    assert len(runs) == 2
    assert errors.count(errno.EIO) >= 9
    join()
    assert len(runs) == 2


def test_a_sync_that_a_signal_ended_is_led_again() -> None:
    first, go, runs = threading.Event(), threading.Event(), []

    def sync() -> None:
        runs.append(1)
        if len(runs) == 1:
            first.set()
            go.wait(5)
            raise KeyboardInterrupt

    group = GroupSync(sync)
    interrupted = []

    def lead() -> None:
        try:
            group.wait()
        except KeyboardInterrupt:
            interrupted.append(1)

    leader, follower = threading.Thread(target=lead), threading.Thread(target=group.wait)
    leader.start()
    first.wait(5)
    follower.start()
    go.set()
    leader.join(5)
    follower.join(5)
    assert (interrupted, len(runs)) == ([1], 2)


# The store


def test_list_is_sorted_and_takes_a_prefix(target: FileTarget, root: Path) -> None:
    names = ["a", "a-b", "a.txt", "a/x", "ab/c/d", "b"]
    for key, name in enumerate(name for name in names if name != "a"):
        put(target, plan(name, b"x", key), b"x")
    (root / "z").symlink_to("b")
    os.mkfifo(root / "fifo")
    send(target, plan("ab/unfinished"))
    listed = [remote.name for remote in target.list("")]
    assert listed == sorted([*names[1:], "z"])
    for prefix in ("a", "a/", "ab", "ab/c", "b", "nope", "a."):
        assert [remote.name for remote in target.list(prefix)] == [name for name in listed if name.startswith(prefix)]


def test_names_that_are_not_utf8_are_escaped_and_found(target: FileTarget, root: Path) -> None:
    for raw in (b"bad\xff", b"d\xfe/new\nline", b"both%FF", b"both\xff"):
        path = root / os.fsdecode(raw)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(raw)
    listed = {remote.name: remote for remote in target.list("") if remote.name != "both%FF"}
    assert sorted(listed) == ["bad%FF", "d%FE/new%0Aline"]
    both = list(target.list("both"))
    assert {b"".join(map(bytes, target.read(remote, 0))) for remote in both} == {b"both%FF", b"both\xff"}
    for name, remote in listed.items():
        assert target.find(name) == remote
        assert target.locate(remote.location) == name
        assert b"".join(map(bytes, target.read(remote, 0))) == (root / os.fsdecode(unquote_to_bytes(name))).read_bytes()
    assert target.remove(list(listed)) == list(listed)
    assert {remote.name for remote in target.list("")} == {"both%FF"}


def test_read_from_an_offset(target: FileTarget, root: Path) -> None:
    remote = put(target, plan())
    for offset in (0, 1, len(CONTENT), len(CONTENT) + 5):
        assert b"".join(map(bytes, target.read(remote, offset))) == CONTENT[offset:]
    os.truncate(root / "big.iso", 100)
    with pytest.raises(Integrity):
        list(target.read(remote, 0))
    (root / "big.iso").unlink()
    with pytest.raises(NotFound):
        list(target.read(remote, 0))
    assert target.digest(remote) is None


def test_an_unreadable_file_has_no_digest_but_an_error(target: FileTarget, root: Path) -> None:
    remote = put(target, plan())
    failing = make(root)

    def broken(path: Path, fresh: bool) -> str:
        raise SourceError("bad disk", reason="unreadable") from OSError(errno.EIO, "Input/output error")

    failing._file_digest = broken
    with pytest.raises(Local):
        failing.digest(remote)


def test_remove_says_what_was_there(target: FileTarget, root: Path) -> None:
    put(target, plan("a/b"))
    (root / "dir").mkdir()
    assert target.remove(["missing", "a/b", "dir", "../x", "a/b"]) == ["a/b"]
    assert (root / "dir").is_dir()


def test_abort_leaves_nothing_and_is_repeatable(target: FileTarget, root: Path) -> None:
    session, _ = send(target, plan("a/b"))
    make(root).abort(None, plan("a/b"))
    target.abort(session, plan("a/b"))
    target.abort(session, plan("a/b"))
    assert not partials(root)
    with pytest.raises(SessionLost):
        target.upload(session, plan("a/b"), parts()[0], 0, Bytes(b"x" * CHUNK))


def test_incomplete_uploads_are_found_and_discarded(target: FileTarget, root: Path) -> None:
    (root / os.fsdecode(b"d\xff")).mkdir()
    send(target, plan("a"))
    send(target, replace(plan("sub/b", key=12), job="2024-x"))
    (root / os.fsdecode(b"d\xff/.ppcli-x-1.part")).write_bytes(b"abc")
    found = list(target.incomplete())
    assert [(upload.job, upload.size) for upload in found] == [
        ("j0b", len(CONTENT)),
        ("x", 3),
        ("2024-x", len(CONTENT)),
    ]
    for upload in found:
        target.discard(upload)
        target.discard(upload)
    assert not partials(root)
    with pytest.raises(PpcliError):
        target.discard(replace(found[0], id="../" + found[0].id))
    assert list(target.incomplete()) == []


@pytest.mark.parametrize(
    "location", ["file:///elsewhere/x", "https://host/x", "x", "file://{root}", "file://{root}/../x"]
)
def test_locations_of_other_places(target: FileTarget, root: Path, location: str) -> None:
    assert target.locate(location.format(root=root)) is None
