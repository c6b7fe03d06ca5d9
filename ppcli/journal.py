"""An append-only file of JSON lines, each with its sequence number and its own checksum.

A line is `{"seq":7,...,"crc":"89abcdef"}`: crc is the CRC-32, in hex, of the line's bytes before `,"crc"`. Lines are
appended and fsynced in groups. A line that was cut by a kill can only be the last; it is cut off before the next
append. Damage is a different thing: see `Reading.damaged`.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ppcli import disk, records
from ppcli.errors import Local, local_error, local_io

_MARK = b',"crc":"'


@dataclass(slots=True)
class Reading:
    """What a journal holds: the records of its sound prefix (each with "seq"), and how many bytes that prefix has.

    `torn`: the rest is one line without its end, as a cut leaves it. `damaged`: a line that has its end is unsound.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    sound: int = 0
    torn: bool = False
    damaged: bool = False


def encode(body: str) -> bytes:
    """A line for `body`, a JSON object's text without its closing brace."""
    raw = body.encode()
    return raw + b'%s%08x"}\n' % (_MARK, zlib.crc32(raw))


def read(path: Path) -> Reading:
    """Read a journal without changing it. A missing file reads as empty. Raises `Local` on I/O errors."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Reading()
    except OSError as error:
        raise local_error(error, f"read {path}") from error
    return parse(data)


def parse(data: bytes) -> Reading:
    """The sound prefix of a journal's bytes: lines that check out and whose seq rises by one."""
    lines = data.split(b"\n")
    torn = bool(lines.pop())
    bodies: list[bytes] = []
    for line in lines:
        body, mark, rest = line.rpartition(_MARK)
        if not mark or rest != b'%08x"}' % zlib.crc32(body):
            break
        bodies.append(body)
    records = _records(bodies)
    sound = len(records) == len(lines)
    size = len(data) if sound and not torn else sum(len(line) + 1 for line in lines[: len(records)])
    return Reading(records, size, torn=sound and torn, damaged=not sound)


def _records(bodies: Sequence[bytes]) -> list[dict[str, Any]]:
    """What these lines say, up to the first that is no record or whose seq does not follow."""
    try:
        found = records.loads(b"[" + b"},".join(bodies) + b"}]") if bodies else []  # half the time of line by line
    except ValueError:
        found = []
    if len(found) != len(bodies):
        found = list(_one_by_one(bodies))
    for number, record in enumerate(found):
        sound = type(record) is dict and type(record.get("seq")) is int
        if not sound or (number and record["seq"] != found[number - 1]["seq"] + 1):
            return found[:number]
    return found


def _one_by_one(bodies: Sequence[bytes]) -> Iterator[Any]:
    for body in bodies:
        try:
            yield records.loads(body + b"}")
        except ValueError:
            return


class Journal:
    """The writing end. One thread owns it. `size` is its length in bytes."""

    def __init__(self, path: Path, size: int) -> None:
        """Append after the first `size` bytes; what follows them is cut off."""
        self.path = path
        with local_io(f"open {path}"):
            new = not path.exists()
            self._fd = disk.open_private(path, os.O_WRONLY)
            if os.fstat(self._fd).st_size > size:
                os.ftruncate(self._fd, size)
                disk.fsync(self._fd)
            if new:
                disk.fsync_dir(path.parent)
        self.size = size
        self._broken: Local | None = None

    def append(self, lines: Iterable[bytes]) -> None:
        """Append encoded lines and make them durable. A failure is final: nothing can be appended afterwards, because
        after a failed fsync nobody knows what is on the disk."""
        if self._broken:
            raise self._broken
        data = b"".join(lines)
        try:
            disk.write_all(self._fd, data, self.size)
            disk.fsync(self._fd)
        except OSError as error:
            self._broken = local_error(error, f"write {self.path}")
            raise self._broken from error
        self.size += len(data)

    def restart(self) -> None:
        """Replace the file by an empty one, in one step."""
        if self._broken:
            raise self._broken
        try:
            disk.write_atomic(self.path, ())
            fd = disk.open_private(self.path, os.O_WRONLY)
        except OSError as error:
            self._broken = local_error(error, f"replace {self.path}")
            raise self._broken from error
        os.close(self._fd)
        self._fd, self.size = fd, 0

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
