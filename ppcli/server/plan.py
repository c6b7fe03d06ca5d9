"""What a client wants to upload, and whether its sizes fit together and into the limits. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ppcli.server.limits import ServerLimits
from ppcli.server.refusal import Refused


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `initiate` asks for. `chunk_size` None: the length of the first chunk that comes tells it. `sha256` empty:
    nobody knows it before all chunks are there. `asset` is what a GraphWiz client told (`About`),
    None for others."""

    filepath: str
    hostname: str
    sha256: str
    file_size: int
    chunk_size: int | None
    total_chunks: int
    file_mtime: float = 0.0
    ip_address: str = ""
    asset: str | None = None


def check_plan(wanted: Wanted, limits: ServerLimits) -> None:
    """Whether the sizes of an upload fit together and into the limits. Raises `Refused` 413 or 422."""
    size, chunk, total = wanted.file_size, wanted.chunk_size, wanted.total_chunks
    if size > limits.max_file_size:
        raise Refused(413, f"file_size must not be above {limits.max_file_size}")
    if chunk is not None and not limits.chunk_min <= chunk <= limits.chunk_max:
        raise Refused(422, f"chunk_size must be from {limits.chunk_min} to {limits.chunk_max}")
    fewest, most = (count(size, chunk or bound) for bound in (limits.chunk_max, limits.chunk_min))
    if not fewest <= total <= most and not (size == 0 and total == 0):
        expected = str(fewest) if fewest == most else f"from {fewest} to {most}"
        raise Refused(422, f"total_chunks must be {expected} for these sizes")


def count(size: int, chunk_size: int) -> int:
    """How many chunks a file has; an empty one has one empty chunk."""
    return max(1, -(-size // chunk_size))


def implied_chunk_size(wanted: Wanted, chunk: int, length: int | None, limits: ServerLimits) -> int:
    """The only chunk size for which chunk number `chunk` is `length` bytes long. Raises `Refused` 400 or 411."""
    total, size = wanted.total_chunks, wanted.file_size
    if total == 1:
        return max(size, limits.chunk_min)
    if length is None:
        raise Refused(411, "The session was opened without chunk_size, so Content-Length is needed")
    if chunk == total - 1:
        found, rest = divmod(size - length, total - 1)
    else:
        found, rest = length, 0
    if rest or not limits.chunk_min <= found <= limits.chunk_max or count(size, found) != total:
        raise Refused(400, f"No chunk size makes chunk {chunk} {length} bytes long")
    return found
