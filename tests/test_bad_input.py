"""Wrong words, sources and names: the real command has the exit code, the sentences and the JSON of DESIGN, and what
was stored before is there afterwards. `test_bad_disk` is about broken files, full disks and processes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from ppcli.cli.main import main

CHUNK = 4096
PPCLI = (sys.executable, "-m", "ppcli")
ROOT, NOBODY = os.geteuid() == 0, 65534


@dataclass(frozen=True)
class Ran:
    code: int
    stdout: bytes
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def result(self) -> dict[str, Any]:
        """The one `result`, which comes last."""
        events = self.events
        assert [event["event"] == "result" for event in events].index(True) == len(events) - 1, events
        assert events[-1]["exit_code"] == self.code
        return events[-1]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]


class Cli:
    """ppcli with its directories in `root`, which is the working directory too; `to` is the target."""

    def __init__(self, root: Path, to: str) -> None:
        self.root, self.to = root, to
        self.data, self.config = root / "data", root / "config"
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("PPCLI_")}
        self.env |= {"PPCLI_DATA_DIR": str(self.data), "PPCLI_CONFIG_DIR": str(self.config), "PPCLI_TARGET": to}
        self.env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent.parent), self.env.get("PYTHONPATH", "")])

    def __call__(self, *words: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> Ran:
        """Run it in this process."""
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace") for _ in range(2))
        with (
            mock.patch.dict(os.environ, self.env | (env or {}), clear=True),
            mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            contextlib.chdir(self.root),
        ):
            try:
                main(words)
            except SystemExit as end:
                assert isinstance(end.code, int)
                out.flush()
                err.flush()
                return Ran(end.code, out.buffer.getvalue(), err.buffer.getvalue().decode())

    def json(self, *words: str) -> Ran:
        ran = self(*words, "--json")
        assert ran.err == ""
        assert ran.result["ok"] == (ran.code == 0)
        return ran

    def start(self, *words: str, **more: Any) -> subprocess.Popen[bytes]:
        """Run it as a process, in the background."""
        piped: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [*PPCLI, *words], **{"env": self.env, "cwd": self.root, **piped, **more}
        )
        return process

    def process(self, *words: str, **more: Any) -> Ran:
        return finish(self.start(*words, **more))

    def source(self, name: str, size: int = 3 * CHUNK + 5) -> bytes:
        """Make a source; gives its bytes."""
        path, data = self.root / name, random.Random(name).randbytes(size)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return data

    def holds(self, name: str, data: bytes) -> None:
        ran = self("get", "--", name, "-")
        assert ran.code == 0, ran.err
        assert ran.stdout == data

    def works(self) -> None:
        """A correct command works after all that went wrong, and what was stored before is unharmed."""
        data = self.source("sound")
        assert self("put", "sound").code == 0
        self.holds("sound", data)
        if (kept := self.root / "kept").exists():
            self.holds("kept", kept.read_bytes())

    def refuses(self, code: int, kind: str, reason: str | None, *words: str, env: dict[str, str] | None = None) -> str:
        """Run it for a person and for a script. Gives what the person was told: what happened, and what to do."""
        plain, script = self(*words, env=env), self(*words, "--json", env=env)
        error = script.result["error"]
        assert (plain.code, script.code, error["kind"], error["reason"]) == (code, code, kind, reason), plain.err
        assert script.err == ""
        assert plain.stdout == b""
        lines = [line for line in plain.err.splitlines() if not line.startswith("ppcli: To go on: ")]
        assert all(line.startswith("ppcli: ") for line in lines), plain.err
        told = [line.removeprefix("ppcli: ") for line in lines[-2:]]
        for sentence in (*told, error["message"], error["hint"]):
            assert sentence.endswith("."), sentence
            assert sentence.strip() == sentence != ".", sentence
        return " ".join(told)


def finish(process: subprocess.Popen[bytes], timeout: float = 30) -> Ran:
    out, err = process.communicate(timeout=timeout)
    told = (err or b"").decode()
    assert "Traceback" not in told, told
    return Ran(process.returncode, out or b"", told)


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def make_cli(root: Path, scheme: str) -> Cli:
    store = root / "store"
    store.mkdir()
    cli = Cli(root, "pads:" if scheme == "pads" else f"file://{store}")
    cli.source("kept")
    assert cli("put", "kept", "--chunk-size", str(CHUNK)).code == 0
    return cli


@contextlib.contextmanager
def fast_directory() -> Iterator[Path]:
    """In memory where that can be had: nothing here is about the speed of fsync."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if os.access(shm, os.W_OK) else None) as name:
        yield Path(name).resolve()


@pytest.fixture(name="root")
def _root() -> Iterator[Path]:
    with fast_directory() as path:
        yield path


@pytest.fixture(params=["pads", "file"])
def cli(request: pytest.FixtureRequest, root: Path) -> Cli:
    return make_cli(root, request.param)


@pytest.fixture
def pads(root: Path) -> Cli:
    return make_cli(root, "pads")


@pytest.fixture
def files(root: Path) -> Cli:
    return make_cli(root, "file")


def odd_sources(root: Path) -> None:
    """Everything that is no regular readable file."""
    os.mkfifo(root / "fifo")
    (root / "loop").symlink_to("loop")
    (root / "dir").mkdir()
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(root):
        server.bind("socket")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("nope", "missing"),
        ("kept/x", "missing"),
        ("nope/x", "missing"),
        ("loop", "unreadable"),
        ("fifo", "unreadable"),
        ("socket", "unreadable"),
        ("/dev/null", "unreadable"),
        ("/dev/zero", "unreadable"),
        ("x" * 300, "unreadable"),
    ],
)
def test_sources_that_cannot_be_read(cli: Cli, source: str, reason: str) -> None:
    odd_sources(cli.root)
    cli.refuses(4, "source", reason, "put", source)
    cli.refuses(4, "source", reason, "put", "-r", source)
    assert cli.json("put", source).of("file_failed")[0]["reason"] == reason
    assert cli.json("status", "--all").of("job")[1:] == []
    cli.works()


def test_a_listed_file_that_is_missing_fails_as_a_file(cli: Cli) -> None:
    (cli.root / "list").write_bytes(b"kept\nno\0name\nnope\r\n\n")
    ran = cli.json("put", "--files-from", "list")
    assert (ran.code, ran.result["files_unchanged"], ran.result["files_failed"]) == (10, 1, 2)
    assert {event["reason"] for event in ran.of("file_failed")} == {"missing"}
    cli.refuses(2, "usage", None, "put", "--files-from", "nolist")


@contextlib.contextmanager
def no_privileges(cli: Cli) -> Iterator[None]:
    """As a user who owns the directories and may do nothing else; everything is loaded by then."""
    if not ROOT:
        yield
        return
    for path in (cli.root, *cli.root.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_without_permission(cli: Cli) -> None:
    data = cli.source("secret")
    (cli.root / "secret").chmod(0)
    with no_privileges(cli):
        cli.refuses(4, "source", "unreadable", "put", "secret")
        (cli.root / "secret").chmod(0o400)
        assert cli("put", "secret").code == 0
    cli.holds("secret", data)


def test_a_data_dir_without_permission(cli: Cli) -> None:
    cli.source("b")
    (cli.data / "jobs").chmod(0o500)
    with no_privileges(cli):
        cli.refuses(11, "local", "read_only", "put", "b")
    (cli.data / "jobs").chmod(0o700)
    cli.works()


def test_odd_things_in_a_tree_are_skipped_with_a_warning(cli: Cli) -> None:
    tree = cli.root / "tree"
    data = cli.source("tree/deep/file")
    odd_sources(tree)
    (tree / "loop").unlink()
    (tree / "broken").symlink_to("nothing")
    (tree / "link").symlink_to("deep")
    ran = cli.json("put", "-r", "tree")
    assert ran.code == 0
    assert {event["code"] for event in ran.of("warning")} == {"special_file", "directory_link", "broken_link"}
    assert {event["name"] for event in ran.of("file_skipped")} == {"fifo", "socket", "broken", "link"}
    cli.holds("deep/file", data)
    cli.refuses(2, "usage", None, "put", "tree")
    assert cli.json("put", "-r", "tree/dir").code == 0


def test_names_with_odd_bytes_come_back_as_they_were(cli: Cli) -> None:
    names = {
        b"new\nline": "new%0Aline",
        b"esc\x1b[31m": "esc%1B[31m",
        b"\xff\xfe": "%FF%FE",
        "ümläut".encode(): "ümläut",
        b"per%41cent": "per%41cent",
        b"-r": "-r",
        b" ": " ",
    }
    (cli.root / "odd").mkdir()
    for raw in names:
        (cli.root / "odd" / os.fsdecode(raw)).write_bytes(raw)
    plain = cli("put", "-r", "odd")
    assert plain.code == 0
    assert len(plain.stdout.splitlines()) == len(names)
    assert "\x1b" not in plain.stdout.decode() + plain.err
    listed = [event["name"] for event in cli.json("ls").of("object")]
    assert sorted(listed) == sorted(["kept", *names.values()])
    for raw, name in names.items():
        cli.holds(name, raw)
    for location in plain.stdout.decode().splitlines():
        assert cli("get", location, "-").stdout in names
    assert cli("get", "", "back", "-r").code == 0
    assert len(list((cli.root / "back").iterdir())) == len(names) + 1


BAD_WORDS: Sequence[tuple[str, ...]] = (
    *(("put", "kept", "--name", name) for name in ("", "..", ".", "/", "/a", "a//b", "a/../b", "./a", "../", "a/..")),
    *(("put", "kept", "--chunk-size", size) for size in ("0", "-1", "", "x", "4 apples", "1e99", "0.1", "9999999G")),
    *(("put", "kept", "--to", to) for to in ("", " ", "nowhere", "pads:#x", "pads://x", "file://host/x", "file:x")),
    ("put", "kept", "--to", "https://me:hunter2@host"),
    ("put", "kept", "--to", "https://host/?X-Amz-Signature=hunter2"),
    *(("put", "kept", option, "0") for option in ("--jobs", "--retries", "--reserve-jobs", "--limit-rate")),
    *(("put", "kept", "--wait-lock", seconds) for seconds in ("-1", "nan", "x", "inf")),
    ("put",),
    ("put", ""),
    ("put", "-"),
    ("put", "-", "-", "--name", "x"),
    ("put", "kept", "-0"),
    ("put", "kept", "kept2/kept"),
    ("put", "kept", "two", "--name", "x"),
    ("put", "kept", "--no-such-option"),
    ("put", "--files-from", ""),
    ("no-such-command",),
    ("resume", "x", "--all"),
    ("cancel",),
    ("cancel", "x", "--incomplete"),
    ("cancel", "--all", "--to", "pads:"),
    ("status", "x", "--all"),
    ("rm",),
    ("get",),
)


@pytest.fixture(scope="module", params=["pads", "file"])
def shared(request: pytest.FixtureRequest) -> Iterator[Cli]:
    """For what must not change anything."""
    with fast_directory() as root:
        cli = make_cli(root, request.param)
        cli.source("kept2/kept")
        cli.source("two")
        yield cli
        cli.works()


@pytest.mark.parametrize("words", BAD_WORDS, ids=" ".join)
def test_usage_errors_change_nothing(shared: Cli, words: tuple[str, ...]) -> None:
    before = sorted(shared.root.rglob("*"))
    plain, script = shared(*words), shared(*words, "--json")
    assert (plain.code, script.code, plain.stdout, script.err) == (2, 2, b"", "")
    error = script.result["error"]
    assert error["kind"] == "usage"
    assert error["hint"] != ""
    assert error["message"] in plain.err
    assert "hunter2" not in plain.err + script.stdout.decode()
    assert sorted(shared.root.rglob("*")) == before


def test_a_target_as_a_source_prints_what_to_type(cli: Cli) -> None:
    for url in ("pads:", "pads:///x", "file:///x"):
        assert f"ppcli put kept --to {url}" in cli.refuses(2, "usage", None, "put", "kept", url)


def test_an_unknown_scheme_lists_the_known_ones(cli: Cli) -> None:
    told = cli.refuses(2, "usage", None, "put", "kept", "--to", "gopher://host")
    assert "file" in told
    assert "pads" in told
    cli.refuses(2, "usage", "target", "put", "kept", env={"PPCLI_TARGET": ""})
    cli.refuses(2, "usage", "target", "ls", env={"PPCLI_TARGET": " "})


def test_a_pad_store_keeps_its_pad_size(pads: Cli) -> None:
    pads.source("other")
    told = pads.refuses(2, "usage", None, "put", "other", "--chunk-size", "8K")
    assert "4" in told
    assert pads("put", "other", "--chunk-size", "4K").code == 0


@pytest.mark.parametrize(
    "text",
    [
        "garbage",
        "default_target = 3",
        "[targets.x]\nurl = 1",
        "targets = 1",
        "keep_jobs = true",
        "keep_jobs = 'x'",
        "\0",
    ],
)
def test_a_config_that_makes_no_sense(cli: Cli, text: str) -> None:
    (cli.config).mkdir(exist_ok=True)
    (cli.config / "config.toml").write_text(text)
    cli.refuses(2, "usage", "config", "put", "kept")
    cli.refuses(2, "usage", "config", "status")
    (cli.config / "config.toml").write_bytes(b"\xff\xfe")
    cli.refuses(2, "usage", "config", "ls")
    (cli.config / "config.toml").unlink()
    cli.works()


def test_targets_that_are_not_there(cli: Cli) -> None:
    cli.source("b")
    places = ["file:///no/such/dir", f"{cli.root}/nothing", f"{cli.root}/kept", "pads:///no/such/dir", "/dev/null"]
    for place in places:
        plain = cli("put", "b", "--to", place)
        assert (plain.code, plain.stdout) == (11, b""), (place, plain.err)
        assert cli.json("put", "b", "--to", place).result["error"]["kind"] == "local"
        assert cli("ls", "--to", place).code == 11
    assert not (cli.root / "nothing").exists()
    cli.works()


def test_names_that_are_not_there(cli: Cli) -> None:
    for words in (("get", "nope"), ("get", "nope/", "-r"), ("rm", "nope"), ("rm", "-r", "nope/")):
        cli.refuses(9, "not_found", "name", *words)
    assert cli.json("ls", "nope").code == 0
    ran = cli.json("rm", "nope", "kept")
    assert ran.code == 9
    assert cli("get", "kept", "-").code == 9


def test_get_never_replaces_another_file(cli: Cli) -> None:
    mine = cli.root / "mine"
    mine.write_bytes(b"mine")
    cli.refuses(5, "rejected", "exists", "get", "kept", "mine")
    assert mine.read_bytes() == b"mine"
    cli.refuses(2, "usage", None, "get", "kept", "-", "-r")
    assert cli("get", "kept", "-", "--json").code == 2
    assert cli("get", "kept", "mine", "--force").code == 0
    assert mine.read_bytes() == (cli.root / "kept").read_bytes()
    assert cli.json("get", "kept", "mine").of("file_completed")[0]["action"] == "unchanged"
    assert [path.name for path in cli.root.glob(".ppcli*")] == []


def test_get_never_leaves_its_directory(files: Cli) -> None:
    (files.root / "outside").write_bytes(b"outside")
    for name in ("../outside", "x/../../outside", "/etc/passwd"):
        ran = files("get", name, "inside")
        assert ran.code in (2, 5, 9), ran.err
        assert not (files.root / "inside").exists()
    (files.root / "back").mkdir()
    (files.root / "back" / "deep").symlink_to(files.root)
    files.source("tree/deep/escape")
    assert files("put", "-r", "tree").code == 0
    files.refuses(5, "rejected", "forbidden", "get", "", "back", "-r")
    assert not (files.root / "escape").exists()


def test_immutable(cli: Cli) -> None:
    before = (cli.root / "kept").read_bytes()
    assert cli.json("put", "kept", "--immutable").of("file_completed")[0]["action"] == "unchanged"
    cli.source("other")
    cli.refuses(5, "rejected", "exists", "put", "other", "--name", "kept", "--immutable")
    cli.holds("kept", before)


def test_one_bad_file_does_not_stop_the_others(cli: Cli) -> None:
    a, b = cli.source("a"), cli.source("b")
    ran = cli.json("put", "a", "gone", "b")
    assert (ran.code, ran.result["error"]["kind"], ran.result["state"]) == (10, "partial", "failed")
    assert ran.of("job_finished")[0]["exit_code"] == 10
    cli.holds("a", a)
    cli.holds("b", b)
    job = ran.of("job_started")[0]["job"]
    assert cli("status", "--exit-code", job).code == 10
    assert cli.json("resume").code in (4, 10)  # the one file that this run was about, of several that the job has
    gone = cli.source("gone")
    again = cli.json("resume")
    assert (again.code, again.result["bytes_sent"]) == (0, len(gone))
    cli.holds("gone", gone)


def test_fail_fast_sends_nothing_after_the_first_failure(cli: Cli) -> None:
    for name in ("a", "b"):
        cli.source(name)
    ran = cli.json("put", "gone", "a", "b", "--fail-fast")
    assert (ran.code, ran.result["files_completed"], ran.result["bytes_sent"]) == (10, 0, 0)
    cli.source("gone")
    assert cli.json("resume").result["files_completed"] == 3
