"""From sources, lists and directories to names and paths."""

from __future__ import annotations

import io
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ppcli import collect as collect_module
from ppcli.collect import STDIN, Collected, Found, collect
from ppcli.errors import Usage
from ppcli.requests import PutRequest


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)


def put(*sources: str, stdin: bytes = b"", **options: object) -> Collected:
    return collect(replace(PutRequest(sources=sources), **options), io.BytesIO(stdin))


def names(collected: Collected) -> list[str]:
    return [found.name for found in collected.files]


def reason(found: Found) -> str | None:
    return found.error.reason if found.error else None


def test_a_file_is_named_by_its_last_component() -> None:
    make("a/b/c.txt", "d.txt")
    assert put("a/b/c.txt", "d.txt").files == (Found("c.txt", Path("a/b/c.txt")), Found("d.txt", Path("d.txt")))


def test_a_tree_is_named_without_its_own_name_and_sorted() -> None:
    make("tree/b/2", "tree/b/1", "tree/b.txt", "tree/a", "tree/c/d/e")
    Path("tree/empty").mkdir()
    collected = put("tree", recursive=True)
    assert names(collected) == ["a", "b.txt", "b/1", "b/2", "c/d/e"]
    assert collected.files[2].path == Path("tree/b/1")
    assert not collected.skipped


def test_a_prefix_goes_before_every_name() -> None:
    make("tree/b/2", "x")
    assert names(put("tree", "x", recursive=True, name="P/Q/")) == ["P/Q/b/2", "P/Q/x"]


def test_a_name_names_a_single_source() -> None:
    make("a", "b", "tree/only")
    assert names(put("a", name="N")) == ["N"]
    assert names(put("a", "./a", name="N")) == ["N"], "one source named twice is one"
    with pytest.raises(Usage):
        put("a", "b", name="N")
    with pytest.raises(Usage):
        put("tree", recursive=True, name="N")
    with pytest.raises(Usage):
        put("a", name="N/../x")


@pytest.mark.parametrize(
    ("sources", "options"),
    [
        ((), {}),
        (("",), {}),
        (("", "a"), {"recursive": True}),
        (("dir",), {}),
        (("a",), {"null_separated": True}),
        (("-",), {}),
        (("-",), {"name": "P/"}),
        (("-", "-"), {"name": "N"}),
        (("-",), {"name": "N", "files_from": "-"}),
        ((), {"files_from": ""}),
        ((), {"files_from": "missing-list"}),
        ((), {"files_from": "-"}),
        (("a",), {"name": ""}),
    ],
)
def test_usage_errors(sources: tuple[str, ...], options: dict[str, object]) -> None:
    make("a", "dir/x")
    with pytest.raises(Usage):
        put(*sources, **options)


def test_the_standard_input_and_a_file_of_its_name() -> None:
    make("-", "tree/-")
    assert put("-", name="N").files == (Found("N", STDIN),)
    for collected in (put("./-"), put(files_from="-", stdin=b"-\n")):
        assert names(collected) == ["-"]
        assert collected.files[0].path == Path("-").absolute() != STDIN
    os.chdir("tree")
    assert put(".", recursive=True).files == (Found("-", Path("-").absolute()),)


@pytest.mark.parametrize("url", ["file:///mnt/nas", "pads:", "PADS:///x"])
def test_a_target_is_no_source(url: str) -> None:
    make("a b")
    with pytest.raises(Usage) as caught:
        put("a b", url)
    assert f"ppcli put 'a b' --to {url}" in caught.value.hint


def test_secrets_of_a_url_are_not_repeated() -> None:
    with pytest.raises(Usage) as caught:
        put("file://user:hunter2@host/x?X-Amz-Signature=abc")
    told = caught.value.message + caught.value.hint
    assert "hunter2" not in told
    assert "abc" not in told


def test_a_file_that_looks_like_a_target_is_sent() -> None:
    make("pads:x")
    assert names(put("pads:x")) == ["pads:x"]


def test_bad_sources_fail_as_files(here: Path) -> None:
    make("good")
    os.mkfifo("fifo")
    Path("dangling").symlink_to("nowhere")
    collected = put("missing", "fifo", "/dev/null", "dangling", "good")
    assert [(found.name, reason(found)) for found in collected.files] == [
        ("missing", "missing"),
        ("fifo", "unreadable"),
        ("null", "unreadable"),
        ("dangling", "missing"),
        ("good", None),
    ]


def test_links_and_special_files_in_a_tree() -> None:
    make("tree/real", "other/file")
    Path("tree/link").symlink_to("real")
    Path("tree/to-dir").symlink_to("../other")
    Path("tree/dangling").symlink_to("nowhere")
    os.mkfifo("tree/fifo")
    collected = put("tree", recursive=True)
    assert names(collected) == ["link", "real"]
    assert {(skipped.path.name, skipped.code) for skipped in collected.skipped} == {
        ("to-dir", "directory_link"),
        ("dangling", "broken_link"),
        ("fifo", "special_file"),
    }


def test_a_link_to_a_directory_that_is_named_is_followed() -> None:
    make("tree/a")
    Path("link").symlink_to("tree")
    assert names(put("link", recursive=True)) == ["a"]


def test_a_link_loop_fails_as_a_file_later_and_never_hangs() -> None:
    make("tree/a")
    Path("tree/loop").symlink_to("loop")
    collected = put("tree", recursive=True)
    assert "a" in names(collected)


def test_an_unreadable_directory_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    make("tree/a", "tree/sub/b", "tree/z")
    scan = os.scandir

    def guarded(path: Path) -> object:
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(collect_module.os, "scandir", guarded)
    collected = put("tree", recursive=True)
    assert [(found.path.name, reason(found)) for found in collected.files] == [
        ("a", None),
        ("sub", "unreadable"),
        ("z", None),
    ]
    assert names(collected)[1] == "sub"


def test_an_empty_directory_is_a_warning() -> None:
    Path("tree/sub").mkdir(parents=True)
    collected = put("tree", recursive=True)
    assert not collected.files
    assert [skipped.code for skipped in collected.skipped] == ["empty_directory"]


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (("*.o",), ["a.c", "build/b.c", "keep/x"]),
        (("build/",), ["a.c", "a.o", "keep/x"]),
        (("/a.*",), ["build/b.c", "build/b.o", "keep/x"]),
        (("*", "!keep/", "!keep/**"), ["keep/x"]),
        (("*.o", "!b.o"), ["a.c", "build/b.c", "build/b.o", "keep/x"]),
    ],
)
def test_exclude_takes_gitignore_patterns(patterns: tuple[str, ...], left: list[str]) -> None:
    make("tree/a.c", "tree/a.o", "tree/build/b.c", "tree/build/b.o", "tree/keep/x")
    assert names(put("tree", recursive=True, exclude=patterns)) == left


def test_an_excluded_link_gives_no_warning() -> None:
    make("tree/a")
    Path("tree/link").symlink_to("nowhere")
    assert not put("tree", recursive=True, exclude=("link",)).skipped


@pytest.mark.parametrize(
    ("data", "null"), [(b"a\n\nb c\n", False), (b"a\r\nb c", False), (b"a\0b c\0", True), (b"\0a\0\0b c", True)]
)
def test_lists(data: bytes, null: bool) -> None:
    make("a", "b c")
    Path("list").write_bytes(data)
    assert names(put(files_from="-", stdin=data, null_separated=null)) == ["a", "b c"]
    assert names(put(files_from="list", null_separated=null)) == ["a", "b c"]


def test_a_list_follows_the_same_rules_as_sources() -> None:
    make("tree/a", "b")
    listed = b"tree\nb\nmissing\n"
    assert names(put(files_from="-", stdin=listed, recursive=True)) == ["a", "b", "missing"]
    with pytest.raises(Usage):
        put(files_from="-", stdin=listed)


def test_one_missing_line_fails_as_a_file() -> None:
    make("a")
    assert [reason(found) for found in put(files_from="-", stdin=b"a\nb\n").files] == [None, "missing"]


def test_names_in_a_list_may_be_any_bytes() -> None:
    raw = b"bad\xff\n name\t"
    Path(os.fsdecode(raw)).write_bytes(b"")
    collected = put(files_from="-", stdin=raw + b"\0", null_separated=True)
    assert names(collected) == ["bad%FF%0A name%09"]
    assert os.fsencode(collected.files[0].path) == raw
    assert collected.files[0].error is None


def test_two_sources_with_one_name() -> None:
    make("x/f", "y/f")
    with pytest.raises(Usage) as caught:
        put("x/f", "y/f")
    assert "x/f" in caught.value.message
    assert "y/f" in caught.value.message
    with pytest.raises(Usage):
        put("x/f", "missing/f")


def test_one_source_twice_is_sent_once() -> None:
    make("x/f")
    Path("link").symlink_to("x")
    assert put("x/f", "./x/f", "link/f", str(Path("x/f").absolute())).files == (Found("f", Path("x/f")),)
    assert names(put("x", "x/f", recursive=True)) == ["f"]


def test_many_files_are_quick(here: Path) -> None:
    for directory in range(20):
        Path(f"tree/{directory}").mkdir(parents=True)
        for number in range(250):
            os.close(os.open(f"tree/{directory}/{number}", os.O_CREAT))
    began = time.monotonic()
    assert len(put("tree", recursive=True, exclude=("*.tmp",)).files) == 5000
    assert time.monotonic() - began < 2
