"""Names: escaping, `--name`, and what may be written below a directory."""

from __future__ import annotations

import unicodedata
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppcli.errors import Rejected, Usage
from ppcli.names import check_name, escape, object_name, safe_relative, unescape

RAW = st.binary(max_size=40)
TEXT = st.text(max_size=40)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("plain name.iso", "plain name.iso"),
        ("naïve/日本.txt", "naïve/日本.txt"),
        ("100%.txt", "100%.txt"),
        ("%41", "%41"),
        (b"a\xffb", "a%FFb"),
        ("a\udcffb", "a%FFb"),
        ("tab\tline\n", "tab%09line%0A"),
        ("del\x7f", "del%7F"),
        ("c1\x85", "c1%C2%85"),
        (b"\xe2\x82", "%E2%82"),
        ("lone \ud800", "lone %ED%A0%80"),
    ],
)
def test_escape(raw: str | bytes, name: str) -> None:
    assert escape(raw) == name


@given(RAW)
def test_an_escaped_name_is_clean_utf8_and_stays_the_same(raw: bytes) -> None:
    name = escape(raw)
    assert not any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
    assert name.encode().decode() == name
    assert escape(name) == name


@given(RAW)
def test_text_and_bytes_escape_alike(raw: bytes) -> None:
    assert escape(raw.decode(errors="surrogateescape")) == escape(raw)


@given(RAW.filter(lambda raw: b"%" not in raw))
def test_unescape_gives_back_what_was_escaped(raw: bytes) -> None:
    name, text = escape(raw), raw.decode(errors="surrogateescape")
    assert unescape(name) == (text if text != name else None)


@pytest.mark.parametrize("name", ["%41", "100%", "%2F", "a%2e%2e", "%C3%A9", "plain"])
def test_what_escape_never_makes_is_not_unescaped(name: str) -> None:
    assert unescape(name) is None


@pytest.mark.parametrize("name", ["a", "a/b", "P/", "a/b/", "...", "a b", ".hidden"])
def test_good_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", "/", "//", "/a", "a//b", "a//", ".", "..", "a/..", "a/../b", "./a", "../"])
def test_bad_names_are_usage_errors(name: str) -> None:
    with pytest.raises(Usage):
        check_name(name)


@pytest.mark.parametrize(
    ("name", "own", "single", "result"),
    [
        (None, "a.txt", True, "a.txt"),
        (None, "d/a.txt", False, "d/a.txt"),
        ("N", "a.txt", True, "N"),
        ("N/x", None, True, "N/x"),
        ("P/", "a.txt", True, "P/a.txt"),
        ("P/Q/", "d/a.txt", False, "P/Q/d/a.txt"),
        (None, "a\udcff", True, "a%FF"),
        ("N\n", "a", True, "N%0A"),
    ],
)
def test_object_name(name: str | None, own: str | None, single: bool, result: str) -> None:
    assert object_name(name, own, single=single) == result


@pytest.mark.parametrize(("name", "own", "single"), [("N", "a", False), (None, None, True), ("P/", None, True)])
def test_names_that_do_not_fit(name: str | None, own: str | None, single: bool) -> None:
    with pytest.raises(Usage):
        object_name(name, own, single=single)


@given(TEXT)
def test_safe_relative_never_leaves_and_is_one_to_one(name: str) -> None:
    try:
        path = safe_relative(name)
    except Rejected as error:
        assert error.reason == "forbidden"
        return
    assert not path.is_absolute()
    assert str(path) == name
    assert Path("/base/dir") in Path("/base/dir", path).parents
    assert not {".", "..", ""} & set(path.parts)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "..", "a/../../b", "a//b", "a/", "./a", "a\0b"])
def test_unsafe_names_are_rejected(name: str) -> None:
    with pytest.raises(Rejected):
        safe_relative(name)


def test_a_safe_name() -> None:
    assert safe_relative("a/b c/..d") == PurePosixPath("a/b c/..d")
