"""Sizes, rates and durations as people write and read them."""

from __future__ import annotations

import re

_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_PATTERN = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,18}))?\s*([KMGT]?)(B|IB)?", re.IGNORECASE)
_NAMES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_LARGEST = 2**63 - 1


def parse_size(text: str) -> int:
    """Bytes of a size: `8MiB`, `8M` and `8m` are binary, `10MB` is decimal, `123` is bytes. At least 1.

    Raises ValueError with a sentence that can be shown.
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None or (match[4] and match[4].upper() == "IB" and not match[3]):
        raise ValueError(f"{text!r} is not a size; write it like 8MiB, 10MB or 123.")
    whole, decimals, unit, suffix = match[1], match[2] or "", match[3].upper(), (match[4] or "").upper()
    factor = (1000 if unit and suffix == "B" else 1024) ** _POWERS[unit]
    size: int = int(whole + decimals) * factor // 10 ** len(decimals)
    if size < 1:
        raise ValueError(f"{text!r} is too small; the least is 1 byte.")
    if size > _LARGEST:
        raise ValueError(f"{text!r} is too large; the most is {_LARGEST} bytes.")
    return size


def parse_rate(text: str) -> int:
    """Bytes per second of a rate: a size, with or without `/s` after it. Raises ValueError like `parse_size`."""
    amount = text.strip()
    if amount.lower().endswith("/s"):
        amount = amount[:-2]
    try:
        return parse_size(amount)
    except ValueError:
        raise ValueError(f"{text!r} is not a rate; write it like 500K, 2MiB or 10MB/s.") from None


def format_size(size: int) -> str:
    """A size in its binary unit with one decimal, rounded down: what is not complete never looks complete."""
    unit = 0
    while unit < len(_NAMES) - 1 and size >= 1024 ** (unit + 1):
        unit += 1
    if unit == 0:
        return f"{size} B"
    tenths = size * 10 // 1024**unit
    return f"{tenths // 10}.{tenths % 10} {_NAMES[unit]}"


def format_rate(bytes_per_second: float) -> str:
    return f"{format_size(int(bytes_per_second))}/s"


def format_duration(seconds: float) -> str:
    """A duration in its two largest units: `0.4s`, `42s`, `1m05s`, `1h02m`, `3d04h`."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"
