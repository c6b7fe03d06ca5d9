"""What a `put` sends: from sources, lists and directories to an ordered list of names and paths."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, TypeAlias

from ppcli.errors import SourceError, Usage
from ppcli.names import check_name, escape, object_name
from ppcli.requests import PutRequest
from ppcli.source import fingerprint
from ppcli.targets import SCHEMES

STDIN = Path("-")
"""Stands for the standard input. A file of that name has the path `./-` made absolute."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SECRETS = re.compile(r"(?<=//)[^/@]*@|\?.*(?:sig|token|key|cred|passw).*", re.IGNORECASE)

Excluded: TypeAlias = Callable[[str], bool]
"""Whether a path relative to a source directory (a directory's ends in `/`) matches `--exclude`."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file to send. With an `error` it fails without being sent."""

    name: str
    path: Path
    error: SourceError | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that is not sent, and no failure: the `code` and text of a warning. `name` is what it would have."""

    name: str
    path: Path
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Collected:
    """In the order of the sources, sorted by name within directories; no two files have one name."""

    files: tuple[Found, ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, slots=True)
class _Own:
    """A file with its own name (None: the standard input), before `--name`."""

    name: str | None
    path: Path
    error: SourceError | None = None
    in_tree: bool = False


def collect(request: PutRequest, stdin: BinaryIO) -> Collected:
    """Find what `request` asks to send; only `--files-from -` reads `stdin`. Raises `Usage` where that is unclear."""
    if request.name is not None:
        check_name(request.name)
    skipped: list[Skipped] = []
    owns = list(_Walk(request, _excluded(request.exclude), skipped).sources(_sources(request, stdin)))
    single = len(owns) == 1 and not owns[0].in_tree
    files = [Found(object_name(request.name, own.name, single=single), own.path, own.error) for own in owns]
    return Collected(tuple(_unique(files).values()), tuple(skipped))


def _sources(request: PutRequest, stdin: BinaryIO) -> list[Path]:
    """Every SOURCE and every line of the list, once."""
    listed: list[Path] = []
    if request.files_from is not None:
        if request.files_from == "-" and "-" in request.sources:
            raise Usage(
                "The standard input cannot be a source and the list of files at once.",
                hint="Put the list into a file: `--files-from FILE`.",
            )
        listed = [_not_stdin(Path(line)) for line in _lines(request, stdin)]
        if not listed and not request.sources:
            raise Usage("The list of --files-from names no file.", hint="Check what writes the list.")
    elif request.null_separated:
        raise Usage("-0 says how a list is separated.", hint="Add `--files-from FILE`.")
    elif not request.sources:
        raise Usage("There is nothing to send.", hint="Name at least one SOURCE, or `--files-from FILE`.")
    if request.sources.count("-") > 1:
        raise Usage("The standard input can be sent only once.", hint="Name `-` once.")
    return list(dict.fromkeys([_named(source, request) for source in request.sources] + listed))


def _named(source: str, request: PutRequest) -> Path:
    if not source:
        raise Usage("A SOURCE is empty.", hint="Check the variable that should hold it.")
    if source == "-":
        return STDIN
    known = ":" in source and source.partition(":")[0].lower() in SCHEMES
    if (known or _URL.match(source)) and not os.path.lexists(source):
        url = _SECRETS.sub("", source).partition("#")[0]
        others = shlex.join(other for other in request.sources if other != source) or "SOURCE"
        raise Usage(
            f"{escape(url)} is a target, not a source.",
            hint=f"Type `ppcli put {escape(others)} --to {escape(shlex.quote(url))}`.",
        )
    return _not_stdin(Path(source))


def _not_stdin(path: Path) -> Path:
    return path.absolute() if path == STDIN else path


def _lines(request: PutRequest, stdin: BinaryIO) -> Iterator[str]:
    name = request.files_from or ""
    if not name:
        raise Usage("--files-from is empty.", hint="Check the variable that should hold it.")
    try:
        data = stdin.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise Usage(
            f"The list {escape(name)!r} cannot be read: {error.strerror or error}.", hint="Check --files-from."
        ) from error
    if request.null_separated:
        return (os.fsdecode(line) for line in data.split(b"\0") if line)
    return (os.fsdecode(line) for line in (raw.removesuffix(b"\r") for raw in data.split(b"\n")) if line)


def _excluded(patterns: tuple[str, ...]) -> Excluded:
    if not patterns:
        return lambda path: False
    from pathspec import GitIgnoreSpec

    try:
        return GitIgnoreSpec.from_lines(patterns).match_file
    except ValueError as error:
        raise Usage(
            f"--exclude has a pattern that is none: {error}", hint="Write it as in a .gitignore file."
        ) from error


@dataclass(slots=True)
class _Walk:
    """Turns paths into files; what is left out goes to `skipped`."""

    request: PutRequest
    excluded: Excluded
    skipped: list[Skipped] = field(default_factory=list)

    def sources(self, paths: list[Path]) -> Iterator[_Own]:
        for path in paths:
            if path == STDIN:
                yield _Own(None, path)
            elif not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir fails where it may not look
                yield _file(path)
            elif not self.request.recursive:
                raise Usage(f"{escape(str(path))} is a directory.", hint="Add `-r` to send what is in it.")
            else:
                yield from self._directory(path)

    def _directory(self, top: Path) -> Iterator[_Own]:
        empty = True
        for own in self._tree(top):
            empty = False
            yield own
        if empty:
            self._skip(top.name, top, "empty_directory", "has no files to send")

    def _tree(self, top: Path) -> Iterator[_Own]:
        """Files are named relative to `top`, sorted by these names. Directories are pushed with a `/` at the end."""
        stack = [""]
        while stack:
            name = stack.pop()
            if name and not name.endswith("/"):
                yield _Own(name, _not_stdin(top / name), in_tree=True)
                continue
            try:
                with os.scandir(top / name) as entries:
                    stack += sorted(self._entries(name, entries), reverse=True)
            except OSError as error:
                yield _Own(
                    name.rstrip("/") or top.name or str(top), top / name, _unreadable(top / name, error), in_tree=True
                )

    def _entries(self, prefix: str, entries: Iterator[os.DirEntry[str]]) -> Iterator[str]:
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                if not self.excluded(name + "/"):
                    yield name + "/"
            elif not self.excluded(name) and self._is_file(name, entry):
                yield name

    def _is_file(self, name: str, entry: os.DirEntry[str]) -> bool:
        """Whether a tree's entry is sent. A link that cannot be followed for other reasons fails when it is read."""
        try:
            if entry.is_file():
                return True
            if entry.is_dir():
                self._skip(name, Path(entry.path), "directory_link", "is a link to a directory")
            elif entry.is_symlink():
                self._skip(name, Path(entry.path), "broken_link", "is a link to nothing that could be sent")
            else:
                self._skip(name, Path(entry.path), "special_file", "is no regular file")
        except OSError:
            return True
        return False

    def _skip(self, name: str, path: Path, code: str, why: str) -> None:
        prefix = self.request.name or ""
        told = f"{escape(str(path))} {why}; it is not sent."
        self.skipped.append(Skipped(escape(prefix + name if prefix.endswith("/") else name), path, code, told))


def _file(path: Path) -> _Own:
    try:
        fingerprint(path)
    except SourceError as error:
        return _Own(path.name, path, error)
    return _Own(path.name, path)


def _unreadable(path: Path, error: OSError) -> SourceError:
    return SourceError(
        f"The directory {path} cannot be read: {error.strerror or error}.",
        hint="Check its permissions, or leave it out with --exclude.",
        reason="unreadable",
    )


def _unique(files: list[Found]) -> Mapping[str, Found]:
    """By name, in order. The same source given twice counts once; two sources with one name are a `Usage` error."""
    found: dict[str, Found] = {}
    for file in files:
        other = found.setdefault(file.name, file)
        if other is not file and os.path.realpath(other.path) != os.path.realpath(file.path):
            raise Usage(
                f"Two sources would be named {file.name!r}: {escape(str(other.path))} and {escape(str(file.path))}.",
                hint="Send them in two calls, with another --name for one of them.",
            )
    return found


def real_paths(files: Sequence[Found]) -> tuple[Found, ...]:
    """Sources are known by their real path, so that another way to the same file finds its unfinished job."""
    directories: dict[Path, Path] = {}
    return tuple(
        found if found.path == STDIN else replace(found, path=_real(found.path, directories)) for found in files
    )


def _real(path: Path, directories: dict[Path, Path]) -> Path:
    """`directories` holds what was found out already: a tree has few of them and many files."""
    try:
        if path.name in ("", "..") or _may_be_a_link(path):
            return path.resolve()
        parent = path.parent
        if (real := directories.get(parent)) is None:
            real = directories[parent] = parent.resolve()
        return real / path.name
    except (OSError, RuntimeError, ValueError):  # links in a circle, a NUL: it cannot be read either, and is told so
        return path.absolute()


def _may_be_a_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except OSError:  # it may not be looked at
        return True
