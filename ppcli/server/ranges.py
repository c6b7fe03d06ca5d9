"""The Range header (RFC 9110, section 14): one range of bytes. Pure."""

from __future__ import annotations

import re

_ONE = re.compile(r"bytes=(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))", re.IGNORECASE)


class Unsatisfiable(Exception):
    """The range begins after the end."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The range [start, end) that is asked for; None for all of it, also where the header makes no sense or asks for
    several ranges, as the RFC allows."""
    match = None if header is None else _ONE.fullmatch(header.strip())
    if match is None:
        return None
    first, last, tail = match.groups()
    if tail is not None:
        if int(tail) == 0 or size == 0:
            raise Unsatisfiable
        return max(size - int(tail), 0), size
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise Unsatisfiable
    return start, min(int(last) + 1, size) if last else size
