"""stdout and stderr as they really are: closed at the start, closed half way, or unable to encode a name."""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
from typing import Literal, TextIO

# C0, DEL, C1, line separators, everything that turns the direction of text, and bytes that are not UTF-8
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape(text: str) -> str:
    """Text from outside, made safe for a terminal: control characters become `\\x1b`, `\\n`, `\\u202e`."""
    return _UNSAFE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if "\udc80" <= character <= "\udcff":  # a byte that was not UTF-8 (PEP 383)
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


class Stream:
    """A standard stream to write to. When it breaks, the rest is dropped and the program goes on.

    `failure` is the error it broke with. A file object as far as rich needs one.
    """

    def __init__(self, name: Literal["stdout", "stderr"]) -> None:
        self._name = name
        self.failure: OSError | None = None

    @property
    def _file(self) -> TextIO | None:
        file: TextIO | None = getattr(sys, self._name)
        return file

    @property
    def encoding(self) -> str:
        return getattr(self._file, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        file = self._file
        if file is not None and self.failure is None:
            try:
                file.write(text)
            except OSError as error:
                self._give_up(file, error)
        return len(text)

    def flush(self) -> None:
        file = self._file
        if file is not None and self.failure is None:
            try:
                file.flush()
            except OSError as error:
                self._give_up(file, error)

    def line(self, text: str) -> None:
        self.write(text + "\n")
        self.flush()

    def at_once(self, text: str) -> None:
        """Past the buffer and its lock, as from a signal handler; dropped where it would have to wait, as for a
        terminal that was stopped with ^S."""
        with contextlib.suppress(OSError, ValueError):  # closed, or a descriptor that `select` cannot take
            if text and select.select((), (self.fileno(),), (), 0)[1]:
                os.write(self.fileno(), text.encode(self.encoding, "backslashreplace"))

    def isatty(self) -> bool:
        file = self._file
        return file is not None and file.isatty()

    def fileno(self) -> int:
        """The descriptor behind it. Raises OSError where there is none."""
        file = self._file
        if file is None:
            raise OSError(f"{self._name} is closed")
        return file.fileno()

    def _give_up(self, file: TextIO, error: OSError) -> None:
        """What is still in the buffer goes to /dev/null, or the interpreter would complain when it ends."""
        self.failure = error
        with contextlib.suppress(OSError):
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, file.fileno())
            os.close(sink)


def prepare() -> None:
    """Make the standard streams safe to use, once, before anything is opened or printed.

    A descriptor that is closed is taken by /dev/null, or the next file that is opened would become stdout.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # closed, or a stand-in of a test
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def same_terminal(one: Stream, other: Stream) -> bool:
    """Whether both streams are one terminal."""
    try:
        return one.isatty() and other.isatty() and os.fstat(one.fileno()).st_rdev == os.fstat(other.fileno()).st_rdev
    except OSError:
        return False
