"""The system calls that change something, as plain data."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeps.kit.ptrace import Registers

AT_FDCWD = -100
NUMBERS = {
    1: "write",
    18: "pwrite64",
    20: "writev",
    44: "sendto",
    46: "sendmsg",
    74: "fsync",
    75: "fdatasync",
    76: "truncate",
    77: "ftruncate",
    82: "rename",
    83: "mkdir",
    84: "rmdir",
    85: "creat",
    86: "link",
    87: "unlink",
    88: "symlink",
    90: "chmod",
    91: "fchmod",
    2: "open",
    257: "openat",
    258: "mkdirat",
    263: "unlinkat",
    264: "renameat",
    265: "linkat",
    280: "utimensat",
    285: "fallocate",
    296: "pwritev",
    316: "renameat2",
}
"""Of x86-64. Calls that ppcli never makes are here to be noticed should it begin to."""

SENDS = ("sendto", "sendmsg")
WRITES = ("write", "pwrite64", "writev", "pwritev")
SYNCS = ("fsync", "fdatasync")
_MADE = os.O_CREAT | os.O_TRUNC
_BY_NAME = {"rename": (0, 1), "link": (0, 1), "symlink": (1,)} | dict.fromkeys(
    ("truncate", "mkdir", "rmdir", "unlink", "chmod"), (0,)
)
"""Which arguments are paths."""
_AT = {
    "mkdirat": ("mkdir", (0,)),
    "unlinkat": ("unlink", (0,)),
    "utimensat": ("utimensat", (0,)),
    "renameat": ("rename", (0, 2)),
    "renameat2": ("rename", (0, 2)),
    "linkat": ("link", (0, 2)),
}
"""What these are without a directory's file descriptor, and which arguments are such, each followed by its path."""


@dataclass(slots=True)
class Call:
    """`paths` are absolute: what it names, or what its file descriptor is. `data` are the bytes of a write or send,
    `offset` where a write begins, `size` that of a truncation, `made`: the file was not there before; `result` is what
    it returned, below zero an errno; None: it never came to its end."""

    kind: str
    paths: tuple[str, ...] = ()
    data: bytes = b""
    offset: int = 0
    size: int = 0
    made: bool = False
    result: int | None = None

    @property
    def path(self) -> str:
        return self.paths[0] if self.paths else ""

    def below(self, roots: Sequence[str]) -> bool:
        return any(path == root or path.startswith(root + "/") for root in roots for path in self.paths)

    @property
    def like_others(self) -> bool:
        """Makes one of the 256 directories of a new pad store; what is true of the last is true of all."""
        return re.search(r"/pads/(?!ff)[0-9a-f]{2}$", self.path) is not None

    def __str__(self) -> str:
        names = ", ".join(os.path.basename(path) or path for path in self.paths)
        return f"{self.kind}({names}{f', {len(self.data)} bytes' if self.data else ''})"


def decode(process: int, regs: Registers) -> Call | None:
    """The call that a thread of `process` is about to make; None for one that changes nothing."""
    kind, words = NUMBERS[regs.orig_rax], regs.arguments
    if kind in ("open", "openat", "creat"):
        return _open(process, kind, words)
    if kind in (*SENDS, *WRITES):
        return _transfer(process, kind, words)
    if kind in _BY_NAME:
        return Call(kind, tuple(_path(process, AT_FDCWD, words[at]) for at in _BY_NAME[kind]), size=words[1])
    if kind in _AT:
        plain, places = _AT[kind]
        return Call(plain, tuple(_path(process, words[at], words[at + 1]) for at in places))
    return Call("fsync" if kind in SYNCS else kind, (_of_fd(process, words[0]),), size=words[1])


def _open(process: int, kind: str, words: Sequence[int]) -> Call | None:
    """Only what makes or empties a file."""
    at = 1 if kind == "openat" else 0
    flags = _MADE if kind == "creat" else words[at + 1]
    path = _path(process, words[0] if at else AT_FDCWD, words[at]) if flags & _MADE else ""
    there = os.path.lexists(path)
    return Call("open", (path,), made=not there) if path and (not there or flags & os.O_TRUNC) else None


def _transfer(process: int, kind: str, words: Sequence[int]) -> Call:
    call = Call("send" if kind in SENDS else kind, (_of_fd(process, words[0]),))
    if kind in ("write", "pwrite64", "sendto"):
        call.data = _memory(process, words[1], words[2])
    if kind == "pwrite64":
        call.kind, call.offset = "write", words[3]
    elif kind == "write" and call.path.startswith("/"):
        call.offset = _position(process, words[0], call.path)
    return call


def _memory(process: int, address: int, size: int) -> bytes:
    fd = os.open(f"/proc/{process}/mem", os.O_RDONLY)
    try:
        return os.pread(fd, size, address)
    finally:
        os.close(fd)


def _text(process: int, address: int) -> str:
    read = b""
    while b"\0" not in read:
        read += _memory(process, address + len(read), 256 - (address + len(read)) % 256)
    return os.fsdecode(read.partition(b"\0")[0])


def _signed(word: int) -> int:
    return (word & 0xFFFFFFFF) - ((word & 0x80000000) << 1)


def _path(process: int, fd: int, address: int) -> str:
    """As the call means it, `.` and `..` taken out; the last component is not followed."""
    base = f"/proc/{process}/cwd" if _signed(fd) == AT_FDCWD else f"/proc/{process}/fd/{_signed(fd)}"
    if not address:  # utimensat of a file descriptor
        return os.readlink(base)
    named = _text(process, address)
    return os.path.normpath(named if named.startswith("/") else os.path.join(os.readlink(base), named))


def _of_fd(process: int, fd: int) -> str:
    try:
        return os.readlink(f"/proc/{process}/fd/{_signed(fd)}")
    except OSError:
        return ""


def _position(process: int, fd: int, path: str) -> int:
    lines = Path(f"/proc/{process}/fdinfo/{fd}").read_text().splitlines()
    told = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    if int(told["flags"], 8) & os.O_APPEND:
        return os.stat(path).st_size
    return int(told["pos"])
