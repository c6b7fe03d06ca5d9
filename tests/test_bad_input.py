"""Wrong words, sources and names: the real command has the exit code, the sentences and the JSON of DESIGN, and what
was stored before is there afterwards. `test_bad_disk` is about broken files, full disks and processes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cli_kit import NOBODY, ROOT, Cli, fast_directory, make_cli


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
    (tree / "deep" / "gone").symlink_to("nothing")
    ran = cli.json("put", "-r", "tree", "--name", "p/")
    assert ran.code == 0
    assert {event["code"] for event in ran.of("warning")} == {"special_file", "directory_link", "broken_link"}
    skipped = {event["name"]: event["source"] for event in ran.of("file_skipped")}
    assert skipped == {f"p/{name}": str(tree / name) for name in ("fifo", "socket", "broken", "link", "deep/gone")}
    cli.holds("p/deep/file", data)
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
        b"pads:": "pads:",
        b"file:x": "file:x",
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


def test_a_directory_is_named_as_one(cli: Cli) -> None:
    """As `put` does; and as with a name that is not there, nothing is fetched or removed."""
    cli.source("tree/deep/a"), cli.source("tree/b")
    assert cli("put", "-r", "tree", "--name", "p/").code == 0
    for name, files in (("p", "2 files"), ("p/", "2 files"), ("p/deep", "1 file")):
        for command, doing in (("get", "fetch"), ("rm", "remove")):
            told = cli.refuses(9, "not_found", "name", command, name)
            assert told.startswith(f"{name!r} is a directory with {files} at "), told
            assert told.endswith(f"Add `-r` to {doing} what is in it.")
    assert cli("rm", "-r", "p").code == 0
    assert "There is no 'p'" in cli.refuses(9, "not_found", "name", "get", "p")


def test_get_never_replaces_another_file(cli: Cli) -> None:
    mine = cli.root / "mine"
    mine.write_bytes(b"mine")
    cli.refuses(5, "rejected", "exists", "get", "kept", "mine")
    assert mine.read_bytes() == b"mine"
    cli.refuses(2, "usage", None, "get", "kept", "-", "-r")
    assert cli("get", "kept", "-", "--json").code == 2
    assert cli("get", "kept", "mine", "--force").code == 0
    assert mine.read_bytes() == (cli.root / "kept").read_bytes()
    told = cli.json("get", "kept", "mine").of("file_completed")[0]
    digest = f"sha256:{hashlib.sha256(mine.read_bytes()).hexdigest()}"
    assert (told["action"], told["digest"], told["evidence"]) == ("unchanged", digest, "content")
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
