"""Broken state files, full and read-only disks, signals, closed streams, two processes: the real command ends as
DESIGN says, and afterwards a correct command works and reads back identical bytes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_kit import CHUNK, NOBODY, PPCLI, ROOT, Cli, Ran, finish, make_cli, until
from harness import Recording

from ppcli.app.log import JobLog
from ppcli.events import WarningRaised

BIG, MANY, RATE = 400 * CHUNK, 10, 3584 << 10


class Running:
    """A `put` in the background that has confirmed some chunks and has many to go."""

    def __init__(self, cli: Cli, *words: str, json: bool = True, **more: Any) -> None:
        self.data = cli.source("big", BIG)
        words = ("put", "big", "--chunk-size", str(CHUNK), "--limit-rate", str(RATE), *words)
        self.process = cli.start(*words, *(["--json"] if json else []), **more)
        self.job = ""
        self._read: list[bytes] = []
        assert self.process.stdout
        while json:
            self._read.append(self.process.stdout.readline())
            event = self.event(self._read[-1])
            self.job = event["job"] or self.job
            if event["event"] == "chunk_confirmed" and event["confirmed"] >= MANY:
                return
        journals = cli.data.glob
        until(lambda: any(path.read_bytes().count(b'"confirmed"') >= MANY for path in journals("jobs/*/journal.jsonl")))

    @staticmethod
    def event(line: bytes) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(line)
        assert event["event"] != "result", event
        return event

    def send(self, *numbers: signal.Signals) -> None:
        for number in numbers:
            self.process.send_signal(number)

    def end(self) -> Ran:
        ran = finish(self.process)
        return Ran(ran.code, b"".join(self._read) + ran.stdout, ran.err)


def kill(cli: Cli) -> Running:
    """A job that was killed half way."""
    running = Running(cli)
    running.send(signal.SIGKILL)
    assert running.end().code == -signal.SIGKILL
    return running


def goes_on(cli: Cli, running: Running) -> Ran:
    """`resume` completes the job without sending everything, and the target has the bytes."""
    ran = cli.json("resume")
    assert (ran.code, ran.result["state"]) == (0, "completed"), ran.result
    assert 0 < ran.result["bytes_sent"] < BIG
    cli.holds("big", running.data)
    cli.works()
    return ran


GARBAGE: dict[str, Callable[[bytes], bytes]] = {
    "zeros": lambda data: bytes(len(data)),
    "half": lambda data: data[: len(data) // 2],
    "other": lambda data: b'{"format":"something/9"}',
    "deep": lambda data: b"[" * 100_000,
    "flipped": lambda data: data.replace(b'"chunks":[{', b'"chunks":[7,{', 1),
}


@pytest.mark.parametrize("how", GARBAGE)
def test_a_corrupt_manifest(cli: Cli, how: str) -> None:
    sound = cli.json("put", "kept", "nothing", "--name", "s/").of("job_started")[0]["job"]
    job = cli.json("put", "kept", "gone", "--name", "x/").of("job_started")[0]["job"]
    folder = cli.data / "jobs" / job
    damaged = GARBAGE[how]((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_bytes(damaged)
    data = cli.source("gone")

    told = cli.json("status")
    assert told.code == 0
    assert {event["job"] for event in told.of("job")} == {sound, job}
    warned = [(event["code"], event["job"]) for event in told.of("warning")]
    assert warned == ([] if how == "flipped" else [("corrupt", job)])  # the summary is told: nobody read it all
    ran = cli.json("put", "gone", "--name", "x/gone")
    assert (ran.code, ran.result["files_completed"]) == (0, 1)
    assert ran.of("warning")
    assert [path.read_bytes() for path in folder.glob("manifest.json.corrupt-*")] == [damaged]
    cli.holds("x/gone", data)
    cli.holds("x/kept", (cli.root / "kept").read_bytes())
    cli.works()


@pytest.mark.parametrize("how", ["half", "other"])
def test_resume_rebuilds_a_corrupt_manifest(cli: Cli, how: str) -> None:
    running = kill(cli)
    folder = cli.data / "jobs" / running.job
    manifest = folder / "manifest.json"
    manifest.write_bytes(GARBAGE[how](manifest.read_bytes()))
    told = cli.json("status")
    assert (told.code, [event["code"] for event in told.of("warning")]) == (0, ["corrupt"])
    ran = cli.json("resume", running.job)
    assert (ran.code, ran.result["state"]) == (0, "completed")
    assert len(list(folder.glob("manifest.json.corrupt-*"))) == 1
    cli.holds("big", running.data)
    assert cli.json("ls", "--incomplete").of("incomplete") == []
    cli.works()


@pytest.mark.parametrize("command", ["resume", "cancel"])
def test_a_job_of_which_nothing_is_left(cli: Cli, command: str) -> None:
    running = kill(cli)
    for name in ("manifest.json", "summary.json"):
        (cli.data / "jobs" / running.job / name).write_bytes(b"garbage")
    cli.refuses(8, "corrupt", "manifest", "status", running.job)
    assert cli.json("status").of("warning")[0]["code"] == "corrupt"
    ran = cli.json(command, running.job)
    assert (ran.code, ran.result["error"]["kind"]) == (8, "corrupt")
    kept = [path for path in cli.data.rglob("manifest.json*") if path.read_bytes() == b"garbage"]
    assert len(kept) == 1
    assert str(kept[0].parent) in ran.result["error"]["message"] + ran.result["error"]["hint"]
    assert cli.json("put", "big").code == 0
    cli.holds("big", running.data)
    assert cli.json("status").code == 0
    cli.works()


@pytest.mark.parametrize(
    ("scheme", "how"), [("pads", "torn"), *(("file", how) for how in ("torn", "middle", "zeros", "missing", "summary"))]
)
def test_a_damaged_journal(root: Path, scheme: str, how: str) -> None:
    cli = make_cli(root, scheme)
    running = kill(cli)
    folder = cli.data / "jobs" / running.job
    journal = folder / "journal.jsonl"
    data = journal.read_bytes()
    if how == "torn":
        journal.write_bytes(data[:-7])
    elif how == "middle":
        last = data.rindex(b"\n", 0, -1)
        journal.write_bytes(data[: last - 9] + b"#" + data[last - 8 :])
    elif how == "zeros":
        journal.write_bytes(data + bytes(512))
    elif how == "missing":
        journal.unlink()
    else:
        (folder / "summary.json").write_bytes(b"\0garbage")
    assert cli("status", "--exit-code", running.job).code == 75
    ran = goes_on(cli, running) if how != "missing" else cli.json("resume")
    assert ran.code == 0
    cli.holds("big", running.data)
    assert len(list(folder.glob("journal.jsonl.corrupt-*"))) == (how == "middle")
    assert ("journal_damaged" in [event["code"] for event in ran.of("warning")]) == (how == "middle")


def damage(path: Path, how: str) -> None:
    old = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes({"garbage": b"garbage\n", "zeros": bytes(len(old)), "half": old[: len(old) // 2]}[how])


INDEX_FILES = (["index.json"], ["index.jsonl"], ["index.json", "index.jsonl"], ["store.json"])


@pytest.mark.parametrize(
    ("names", "how"),
    [
        pytest.param(names, how, id=f"{' '.join(names)}-{how}")
        for names in INDEX_FILES
        for how in ("garbage", "zeros", "half", "missing")
    ],
)
def test_a_damaged_pads_index_is_rebuilt(pads: Cli, names: list[str], how: str) -> None:
    data = pads.source("second")
    assert pads("put", "second").code == 0
    for name in names:
        damage(pads.data / "pads" / name, how)
    pads.holds("second", data)
    pads.works()
    assert {event["name"] for event in pads.json("ls").of("object")} == {"kept", "second", "sound"}
    assert pads.json("pads", "recover").code == 0
    pads.holds("second", data)


@pytest.mark.parametrize("how", ["garbage", "zeros", "half", "missing"])
def test_recover_brings_back_what_a_damaged_index_journal_had(pads: Cli, how: str) -> None:
    data = pads.source("second")
    assert pads("put", "second").code == 0
    damage(pads.data / "pads" / "index.jsonl", how)
    assert pads("pads", "recover").code == 0
    pads.holds("second", data)
    pads.works()


@pytest.mark.parametrize("content", [None, "00" * 32, "garbage", ""])
def test_the_user_key_is_missing_or_another(pads: Cli, content: str | None) -> None:
    path = pads.config / "user.key"
    key = path.read_bytes()
    pads.source("b")
    path.unlink()
    if content is not None:
        path.write_text(content)
    before = sorted(pads.root.rglob("*"))
    for words in (("put", "b"), ("put", "kept"), ("get", "kept", "out"), ("ls",), ("rm", "kept"), ("pads", "recover")):
        pads.refuses(3, "credentials", "key", *words)
    left = [path for path in sorted(pads.root.rglob("*")) if path not in before and "jobs" not in path.parts]
    assert left == []
    assert (path.read_text() if path.exists() else None) == content
    path.write_bytes(key)
    assert pads("resume", "--all").code == 0
    pads.works()


def test_broken_caches_and_foreign_files_do_not_matter(cli: Cli) -> None:
    for path in cli.data.iterdir():
        if path.is_file():
            path.write_bytes(b"garbage")
    jobs = cli.data / "jobs"
    (jobs / "stranger").mkdir()
    (jobs / "file").write_bytes(b"x")
    (jobs / ".new-left").mkdir()
    cli.works()
    assert cli.json("status", "--all").code == 0
    cli.refuses(8, "corrupt", "manifest", "status", "stranger")


@pytest.mark.parametrize("name", ["PPCLI_DATA_DIR", "PPCLI_CONFIG_DIR"])
def test_directories_that_cannot_be_made(cli: Cli, name: str) -> None:
    cli.source("b")
    for words in (("put", "b"), ("put", "b", "--name", "c")):
        cli.refuses(11, "local", "io", *words, env={name: str(cli.root / "kept" / "below")})
    assert cli("status", env={name: str(cli.root / "kept" / "below")}).code == 11
    cli.works()


def test_everything_written_is_private(cli: Cli) -> None:
    for path in (cli.config, cli.data):
        shutil.rmtree(path, ignore_errors=True)
    cli.source("b")
    before = os.umask(0)
    try:
        assert cli("put", "b", "gone", "--chunk-size", "4K").code == 10
        assert cli("put", "-", "--name", "stdin", stdin=b"x" * CHUNK).code == 0
        running = kill(cli)
        assert cli("resume", running.job).code == 0
        assert cli("get", "b", "back").code == 0
        (cli.data / "jobs" / running.job / "manifest.json").write_bytes(b"")
        assert cli("status", "--all").code == 0
    finally:
        os.umask(before)
    for top in (cli.data, cli.config):
        for path in (top, *top.rglob("*")) if top.exists() else ():
            assert oct(path.stat().st_mode & 0o777) == oct(0o700 if path.is_dir() else 0o600), path


class Disk:
    """A small disk, which can be made larger or read-only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.mounted = ROOT and self._mount("size=2m,mode=700")

    def _mount(self, options: str) -> bool:
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.path)], check=True)

    def fill(self, leave: int = 0) -> Path:
        """Use all of it but `leave` bytes."""
        filler = self.path / "filler"
        with open(filler, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 14))
            except OSError as error:
                assert error.errno == errno.ENOSPC
            file.truncate(max(file.tell() - leave, 0))
        return filler


@pytest.fixture
def disk(root: Path) -> Iterator[Disk]:
    disk = Disk(root / "disk")
    if not disk.mounted:
        pytest.skip("nothing can be mounted here; the faked disk below shows the same")
    yield disk
    subprocess.run(["umount", "-l", str(disk.path)], check=True)


@pytest.mark.parametrize("scheme", ["pads", "file"])
def test_a_full_target(pads: Cli, disk: Disk, scheme: str) -> None:
    data = pads.source("big", 1200 * CHUNK)
    to = f"pads://{disk.path}/pads" if scheme == "pads" else f"file://{disk.path}"
    words = ("put", "big", "--to", to, "--chunk-size", "64K")
    pads.refuses(11, "local", "disk_full", *words)
    job = pads.json("status").of("job")[0]
    assert (job["state"], job["last_error"]["reason"]) == ("paused", "disk_full")
    assert pads("status", "--exit-code", job["job"]).code == 75
    disk.remount("size=16m")
    ran = pads.json("resume")
    assert (ran.code, ran.result["state"]) == (0, "completed")
    assert 0 < ran.result["bytes_sent"] <= len(data)  # a `file:` target takes the space it needs before the first byte
    assert pads("get", "big", "-", "--to", to).stdout == data
    pads.works()


@pytest.mark.parametrize("leave", [0, 24 << 10, 200 << 10])
def test_a_full_data_dir(pads: Cli, disk: Disk, leave: int) -> None:
    cli = Cli(pads.root, f"file://{pads.root}/store")
    cli.env["PPCLI_DATA_DIR"] = str(disk.path / "data")
    data = cli.source("big", 1200 * CHUNK)
    (disk.path / "data").mkdir()
    filler = disk.fill(leave)
    cli.refuses(11, "local", "disk_full", "put", "big", "--chunk-size", str(CHUNK))
    assert cli("ls").stdout == b""
    assert cli("status").code == 0
    filler.unlink()
    assert cli("put", "big", "--chunk-size", str(CHUNK)).code == 0
    cli.holds("big", data)
    assert cli.json("status").of("job") == []


def test_a_read_only_data_dir(pads: Cli, disk: Disk) -> None:
    pads.env["PPCLI_DATA_DIR"] = str(disk.path / "data")
    disk.remount("ro")
    pads.refuses(11, "local", "read_only", "put", "kept")
    assert pads("status").code == 0
    disk.remount("rw")
    data = pads.source("small")
    assert pads("put", "small", "--chunk-size", "4K").code == 0
    disk.remount("ro")
    pads.refuses(11, "local", "read_only", "put", "kept")
    disk.remount("rw")
    assert pads("resume", "--all").code == 0
    pads.holds("small", data)
    assert pads("put", "kept").code == 0
    pads.works()


@pytest.mark.parametrize(
    ("place", "number", "reason"),
    [
        ("data/jobs", errno.ENOSPC, "disk_full"),
        ("data/jobs", errno.EIO, "io"),
        ("data/pads/pads", errno.ENOSPC, "disk_full"),
        ("store", errno.ENOSPC, "disk_full"),
        ("store", errno.EIO, "io"),
        ("store", errno.EROFS, "read_only"),
    ],
)
def test_a_disk_that_fails_half_way(
    root: Path, place: str, number: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same without a disk, and wherever it may happen: from some byte on, writes below a directory fail."""
    cli = make_cli(root, "file" if place == "store" else "pads")
    data, left, lock = cli.source("some", 40 * CHUNK), [12_000], threading.Lock()

    def faulty(real: Callable[..., int]) -> Callable[..., int]:
        def write(fd: int, data: bytes, *more: int) -> int:
            if Path(f"/proc/self/fd/{fd}").readlink().is_relative_to(root / place):
                with lock:
                    left[0] -= len(data)
                    if left[0] < 0:
                        raise OSError(number, os.strerror(number))
            return real(fd, data, *more)

        return write

    with monkeypatch.context() as patch:
        for name in ("write", "pwrite"):
            patch.setattr(os, name, faulty(getattr(os, name)))
        ran = cli.json("put", "some", "--chunk-size", str(CHUNK))
    assert (ran.code, ran.result["error"]["reason"]) == (11, reason), ran.result["error"]
    ran = cli.json("resume")
    assert (ran.code, ran.result["state"]) == (0, "completed"), ran.result
    cli.holds("some", data)
    cli.works()


def test_a_log_that_cannot_be_written_stops_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppcli.disk.open_private", lambda path, flags: os.open("/dev/full", flags))
    heard = Recording()
    log = JobLog(root, heard)
    log.hear(WarningRaised("job", "code", "message"))
    log.close()
    assert len(heard.events) == 1


INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


@pytest.mark.parametrize(
    ("scheme", "numbers", "code"),
    [
        ("pads", [INT], 130),
        ("pads", [TERM], 143),
        ("pads", [HUP], 143),
        ("pads", [INT, INT], 130),
        ("file", [INT], 130),
        ("file", [TERM, TERM], 143),
    ],
)
def test_signals_pause(root: Path, scheme: str, numbers: list[signal.Signals], code: int) -> None:
    cli = make_cli(root, scheme)
    running = Running(cli)
    running.send(*numbers)
    ran = running.end()
    assert ran.code == code
    if len(numbers) == 1:
        error = ran.result["error"]
        assert (ran.result["state"], error["kind"], error["retryable"]) == ("paused", "interrupted", True)
        assert "ppcli resume" in error["hint"]
        assert cli.json("status").of("job")[0]["last_error"]["kind"] == "interrupted"
    assert cli("status", "--exit-code", running.job).code == 75
    goes_on(cli, running)


def test_the_last_line_says_how_to_go_on(cli: Cli) -> None:
    running = Running(cli, json=False)
    running.send(INT)
    ran = running.end()
    assert ran.code == 130
    assert "ppcli resume" in ran.err.splitlines()[-1]
    assert ran.stdout == b""
    goes_on(cli, running)


def test_a_second_process_on_the_same_file(cli: Cli) -> None:
    running = Running(cli)
    running.send(signal.SIGSTOP)
    try:
        for words in (("put", "big"), ("put", "big", "--wait-lock", "0.3"), ("cancel", running.job, "--yes")):
            told = cli.refuses(7, "busy", "locked", *words)
            assert f"process {running.process.pid} on {socket.gethostname()}" in told
        for other in (["resume", running.job], ["resume"], ["put", "big", "--fresh"]):
            cli.refuses(7, "busy", "locked", *other)
        assert cli.json("resume", "--all").of("warning")[0]["code"] == "busy"
        assert cli("status", "--exit-code", running.job).code == 7
        shown = cli.json("status").of("job")[0]
        assert (shown["state"], shown["pid"]) == ("uploading", running.process.pid)
        waiting = [
            cli.start("put", "big", "--wait-lock", "30", "--json", *more) for more in ([], ["--fresh"], ["--checksum"])
        ]
    finally:
        running.send(signal.SIGCONT)
    assert running.end().result["bytes_sent"] == BIG
    for process in waiting:
        second = finish(process)
        counts = [second.result[key] for key in ("files_unchanged", "bytes_sent")]
        assert (second.code, counts) == (0, [1, 0]), second.result["error"]
    cli.holds("big", running.data)
    assert len(cli.json("status", "--all").of("job")) == 2


def test_jobs_by_prefix_and_state(cli: Cli) -> None:
    assert cli.json("resume").code == 0
    assert cli.json("resume", "--all").code == 0
    done = cli.json("status", "--all").of("job")[0]["job"]
    failed = [cli.json("put", "kept", f"gone{n}", "--name", f"{n}/").of("job_started")[0]["job"] for n in range(17)]
    prefix = next(one[0] for one in failed if [job[0] for job in failed].count(one[0]) > 1)
    for command in ("status", "resume", "cancel"):
        cli.refuses(9, "not_found", "job", command, "zzz")
        assert cli(command, "").code in (2, 9)
        told = cli.refuses(2, "usage", "ambiguous", command, prefix)
        assert sum(job in told for job in failed) > 1
    told = cli.refuses(2, "usage", "ambiguous", "resume")
    assert all(job in told for job in failed)
    assert cli("status", "--exit-code", done).code == 0
    assert cli("status", "--exit-code", failed[0]).code == 10
    assert cli("status", "--exit-code", "zzz").code == 9
    assert cli("cancel", failed[0], "--yes").code == 0
    assert cli("status", "--exit-code", failed[0]).code == 9
    cli.refuses(2, "usage", "cancelled", "resume", failed[0])
    before = (cli.data / "jobs" / done / "manifest.json").read_bytes()
    for words in (("resume", done), ("cancel", done), ("cancel", failed[0])):
        assert cli.json(*words).code == 0
    assert (cli.data / "jobs" / done / "manifest.json").read_bytes() == before
    assert cli("cancel", "--all", "--yes").code == 0
    assert cli.json("status").of("job") == []
    cli.works()


@pytest.mark.parametrize("closing", ["| head -c 1", ">&-", "<&-", "2>&-", ">&- 2>&- <&-", ">/dev/full", "2>/dev/full"])
def test_closed_streams_change_nothing(pads: Cli, closing: str) -> None:
    data = pads.source("piped", 9 * CHUNK)
    line = f'"$@" put piped {closing}; exit ${{PIPESTATUS[0]}}'
    ran = subprocess.run(
        ["bash", "-c", line, "x", *PPCLI], cwd=pads.root, env=pads.env, capture_output=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert b"Traceback" not in ran.stderr
    pads.holds("piped", data)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('"$@" put gone --json >&-', 4),
        ('"$@" put gone 2>&-', 4),
        ('"$@" put - --name x <&-', 4),
        ('"$@" put - --name x --json <&-', 4),
        ('"$@" put --files-from - <&-', 4),
        ('"$@" get big - | head -c 9', 0),
        ('"$@" get big - >&-', 11),
        ('"$@" get big - >/dev/full', 11),
        ('"$@" ls >/dev/full', 11),
        ('"$@" ls | true', 0),
        ('setsid "$@" put kept --json </dev/null | cat', 0),
        ('TERM=dumb "$@" put kept', 0),
    ],
)
def test_streams_that_fail(pads: Cli, line: str, code: int) -> None:
    pads.source("big", 40 * CHUNK)
    if "big" in line:
        assert pads("put", "big").code == 0
    words = ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}", "x", *PPCLI]
    ran = subprocess.run(words, cwd=pads.root, env=pads.env, capture_output=True, check=False)
    assert ran.returncode == code, ran.stderr
    assert b"Traceback" not in ran.stderr
    assert b"bug" not in ran.stderr
    assert not (pads.data / "ppcli-crash.log").exists()
    pads.works()


@pytest.mark.parametrize("home", [None, ""])
def test_no_home(pads: Cli, home: str | None) -> None:
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        pads.env.pop(name, None)
    if home is not None:
        pads.env["HOME"] = home
    pads.works()
    del pads.env["PPCLI_DATA_DIR"], pads.env["PPCLI_CONFIG_DIR"]
    assert pads("ls", "no-such-name").code == 0
    code = (
        "import os, pwd; from ppcli import config; print(config.dirs().data, pwd.getpwuid(os.getuid()).pw_dir, sep='#')"
    )
    data, home = subprocess.check_output([sys.executable, "-c", code], env=pads.env, text=True).split("#")
    assert data.startswith(home.strip())


@pytest.mark.skipif(not ROOT, reason="takes a user without a passwd entry")
def test_a_user_without_any_home(pads: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "PPCLI_DATA_DIR", "PPCLI_CONFIG_DIR"):
        pads.env.pop(name, None)
    monkeypatch.setattr(os, "getuid", lambda: NOBODY - 1)
    before = sorted(pads.root.rglob("*"))
    pads.refuses(11, "local", "home", "put", "kept")
    assert sorted(pads.root.rglob("*")) == before
