"""Sizes, rates and durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppcli.units import format_duration, format_rate, format_size, parse_rate, parse_size

SIZES = st.integers(1, 2**50 - 1)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("123", 123),
        ("1B", 1),
        ("4K", 4096),
        ("4k", 4096),
        ("4KB", 4000),
        ("8MiB", 8 << 20),
        ("8mib", 8 << 20),
        ("10MB", 10_000_000),
        ("10 MB", 10_000_000),
        (" 1.5G ", 3 << 29),
        ("0.5KiB", 512),
        ("2T", 2 << 40),
        ("1.0000000001K", 1024),
    ],
)
def test_sizes_people_write(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "0.1", "-1", "+1", "K", "1iB", "1X", "1.", ".5K", "1e3", "1 2", "٣", "9" * 18 + "T", "1MiBs"]
)
def test_what_is_no_size_says_so_in_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"^'.*' is .*\.$"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "rate"), [("500K", 512_000), ("10MB/s", 10_000_000), ("1/S", 1), ("2 MiB /s", 2 << 20)]
)
def test_rates(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "/s", "fast", "0/s", "1M/h"])
def test_what_is_no_rate_says_so(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a rate"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), ((1 << 20) - 1, "1023.9 KiB"), (3 << 29, "1.5 GiB")],
)
def test_sizes_people_read(size: int, text: str) -> None:
    assert format_size(size) == text
    assert format_rate(size) == f"{text}/s"


@given(SIZES)
def test_a_size_survives_its_text_within_its_last_digit(size: int) -> None:
    again = parse_size(format_size(size))
    assert again <= size
    assert size - again <= max(size // 10, 1) if size >= 1024 else again == size


@given(SIZES, SIZES)
def test_a_larger_size_never_reads_smaller(one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert parse_size(format_size(small)) <= parse_size(format_size(large))


@given(SIZES)
def test_bytes_are_exact(size: int) -> None:
    assert parse_size(str(size)) == parse_rate(f"{size}/s") == size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0s"), (0.42, "0.4s"), (42.9, "42s"), (65, "1m05s"), (3725, "1h02m"), (90_000, "1d01h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
