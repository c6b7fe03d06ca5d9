"""Pure planning: how a file is cut into chunks."""

from __future__ import annotations

from ppcli.errors import Rejected, Usage
from ppcli.model import Chunk, Limits

SANE_CHUNKS = 10_000
USUAL_CHUNK_SIZE = 8 << 20
"""Bytes; what most targets would choose, for a plan that is made while the target cannot be asked."""


def chunk_size(size: int, limits: Limits, wanted: int | None = None) -> int:
    """The chunk size (bytes) for a file of `size` bytes.

    By default `limits.chunk_default`, doubled until the file has at most 10,000 chunks (or the target's own limit, if
    that is lower), and at most `limits.chunk_max`. `wanted` is taken as it is or refused, but gives
    way where `limits.server_cuts`. Raises `Usage` for a `wanted` outside the limits, `Rejected` (reason `too_large`)
    for a file that no allowed chunk size can hold.
    """
    most = limits.max_chunks
    if most is not None and size > most * limits.chunk_max:
        raise Rejected(
            f"The file is too large for the target: {size} bytes, at most {most * limits.chunk_max}.",
            hint="Split it, or choose another target.",
            reason="too_large",
        )
    if wanted is not None:
        return _checked(size, limits, wanted)
    chosen = max(limits.chunk_default, limits.chunk_min)
    while chosen < limits.chunk_max and chunk_count(size, chosen) > min(SANE_CHUNKS, most or SANE_CHUNKS):
        chosen *= 2
    return min(chosen, limits.chunk_max)


def _checked(size: int, limits: Limits, wanted: int) -> int:
    if limits.server_cuts:
        return min(max(wanted, limits.chunk_min), limits.chunk_max)
    if not limits.chunk_min <= wanted <= limits.chunk_max:
        allowed = (
            f"exactly {limits.chunk_min}"
            if limits.chunk_min == limits.chunk_max
            else f"{limits.chunk_min} to {limits.chunk_max}"
        )
        raise Usage(f"The target does not take a chunk size of {wanted} bytes.", hint=f"It takes {allowed} bytes.")
    if limits.max_chunks is not None and chunk_count(size, wanted) > limits.max_chunks:
        least = -(-size // limits.max_chunks)
        raise Usage(
            f"A chunk size of {wanted} bytes makes more than the {limits.max_chunks} chunks that the target takes.",
            hint=f"Use at least {least} bytes, or leave --chunk-size out.",
        )
    return wanted


def fits(size: int, chunk: int, limits: Limits) -> bool:
    """May a file of `size` bytes be cut into chunks of `chunk` bytes?"""
    few = limits.max_chunks is None or chunk_count(size, chunk) <= limits.max_chunks
    return few and limits.chunk_min <= chunk <= limits.chunk_max


def chunk_count(size: int, chunk: int) -> int:
    """How many chunks a file of `size` bytes has; an empty file has one empty chunk."""
    return max(1, -(-size // chunk))


def plan_chunks(size: int, chunk: int) -> list[Chunk]:
    """All chunks of a file, planned, in order of offset; only the last may be shorter."""
    last = chunk_count(size, chunk) - 1
    chunks = [Chunk(index, index * chunk, chunk) for index in range(last)]
    chunks.append(Chunk(last, last * chunk, size - last * chunk))
    return chunks


def replan_chunks(old: list[Chunk], size: int, chunk: int) -> list[Chunk]:
    """The plan for a source whose size changed: chunks with the same range keep their state, all others are planned
    anew."""
    fresh = plan_chunks(size, chunk)
    for index, (before, after) in enumerate(zip(old, fresh, strict=False)):
        if before.size == after.size:
            fresh[index] = before
    return fresh
