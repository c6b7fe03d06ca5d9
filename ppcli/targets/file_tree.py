"""The directory behind a `file:` target: which path a name, a location and a URL stand for, and what is in it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes, urlsplit

from ppcli import disk
from ppcli.errors import Local, PpcliError, Rejected, Usage, local_error
from ppcli.groupsync import GroupSync
from ppcli.names import escape, safe_relative, unescape
from ppcli.values import value

_PARTIAL = re.compile(r"\.ppcli-(?P<job>.+)-(?P<key>[0-9]+)\.part")
_NO_SUCH_NAME = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, *_NO_SUCH_NAME)
_FORM = "A file target is a directory on this machine: file:///dir or /dir."
_NO_DIR_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)


@value(frozen=True, slots=True)
class Entry:
    """A file below the root. `partial_of` is the job id where it is an unfinished upload of ours."""

    name: str
    raw: str
    path: Path
    partial_of: str | None


@value(frozen=True, slots=True)
class Stored:
    """A finished file: its raw name, its path and its status (of what a link leads to)."""

    raw: str
    path: Path
    info: os.stat_result


@contextlib.contextmanager
def disk_io(doing: str) -> Iterator[None]:
    """Turn every OSError of the block into what a file target raises for it."""
    try:
        yield
    except OSError as error:
        raise failure(error, doing) from error


def failure(error: OSError, doing: str) -> PpcliError:
    """What a file target raises for an OSError: `Local`, or `Rejected` where the fault is in the file."""
    if error.errno == errno.EFBIG:
        return Rejected(
            f"Could not {doing}: the file is too large for the target's file system.",
            hint="Choose another target with --to.",
            reason="too_large",
        )
    if error.errno in _NO_SUCH_NAME:
        return refused(f"Could not {doing}: the target's file system does not take such a name.", "unsupported")
    local = local_error(error, doing)
    if local.reason == "read_only":
        local.hint = "Make the target's directory writable, or choose another target with --to."
    return local


def refused(message: str, reason: str) -> Rejected:
    return Rejected(message, hint="Choose another name with --name.", reason=reason)


def parse(url: str) -> Path:
    """The absolute path of a file URL; `..` and doubled slashes are gone. Raises `Usage`."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise Usage(f"{url!r} is no URL: {error}.", hint=_FORM) from error
    raw = unquote_to_bytes(os.fsencode(parts.path))
    if parts.scheme.lower() != "file" or parts.netloc.lower() not in ("", "localhost"):
        raise Usage(f"A file URL cannot name another host ({parts.hostname}).", hint=_FORM)
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise Usage("A file URL has no query and no fragment.", hint="Write ? as %3F and # as %23.")
    if not raw.startswith(b"/") or b"\0" in raw:
        raise Usage(f"{url!r} has no absolute path.", hint=_FORM)
    return Path(os.fsdecode(b"/" + os.path.normpath(raw).lstrip(b"/")))


def url_of(path: Path) -> str:
    return "file://" + quote(os.fsencode(path))


def partial_name(job: str, key: int) -> str:
    return f".ppcli-{job}-{key}.part"


class Tree:
    """Paths below one root. No path that it gives leads outside of it, by `..` or by links.

    A raw name is a relative path as the file system has it; a name is that after `names.escape`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real: Path | None = None
        self._making = threading.Lock()
        self._syncs: dict[Path, GroupSync] = {}

    def check(self) -> Path:
        """The root without links. Raises `Local` where it is not there: an unmounted disk must not look empty."""
        with disk_io(f"open {self.root}"):
            if self.root.is_dir():
                self._real = self._real or self.root.resolve()
                return self._real
        raise Local(
            f"The directory {self.root} does not exist.",
            hint="Mount the disk, or create the directory.",
            reason="missing",
        )

    def place(self, raw: str) -> Path:
        """The path of a raw name, there or not; its directory may be missing. Raises `Rejected` where none can be."""
        path = self._resolve(raw)
        if _PARTIAL.fullmatch(path.name):
            raise refused(f"The name {escape(raw)!r} is that of an unfinished upload.", "unsupported")
        return path

    def partial(self, name: str) -> Path | None:
        """The path of an unfinished upload that `walk` gave under `name`; None where the name is none of that kind."""
        for raw in (name, unescape(name)):
            path = self._resolve(raw) if raw else None
            if path and _PARTIAL.fullmatch(path.name) and path.exists():
                return path
        return None

    def _resolve(self, raw: str) -> Path:
        """The path of a raw name, with no links in its directory."""
        relative, root = safe_relative(raw), self.check()
        if "/" not in raw:
            return root / raw
        parent = Path(os.path.realpath(root / relative.parent))
        if not parent.is_relative_to(root):
            raise refused(f"The directory of {escape(raw)!r} is a link that leads outside of {self.root}.", "forbidden")
        return parent / relative.name

    def stored(self, raw: str) -> Stored | None:
        """The finished file with that raw name."""
        path = self.place(raw)
        info = self.info(path)
        return Stored(raw, path, info) if info else None

    def lookup(self, name: str) -> Stored | None:
        """The finished file that is there under `name`."""
        for raw in (name, unescape(name)):
            with contextlib.suppress(Rejected):  # a name that cannot be here is not here
                if raw and (found := self.stored(raw)):
                    return found
        return None

    def info(self, path: Path) -> os.stat_result | None:
        """The status of a regular file, or of one below the root that `path` links to; None for anything else."""
        try:
            found = path.lstat()
            if stat.S_ISLNK(found.st_mode) and Path(os.path.realpath(path, strict=True)).is_relative_to(self.check()):
                found = path.stat()
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            raise failure(error, f"look up {path}") from error
        return found if stat.S_ISREG(found.st_mode) else None

    def location(self, raw: str) -> str:
        return url_of(self.root / raw)

    def raw_name(self, location: str) -> str | None:
        """The raw name that a location stands for; None where it is none of here."""
        try:
            path = parse(location)
        except Usage:
            return None
        return str(path.relative_to(self.root)) if self.root in path.parents else None

    def make_parent(self, path: Path) -> None:
        """Create the missing directories above `path`, durably, with the permissions that plain mkdir gives."""
        root = self.check()
        with self._making, disk_io(f"create {path.parent}"):
            missing = []
            directory = path.parent
            while not directory.is_dir() and directory != root:
                missing.append(directory)
                directory = directory.parent
            for directory in reversed(missing):
                try:
                    with contextlib.suppress(FileExistsError):
                        directory.mkdir()
                except NotADirectoryError:
                    break
                self.sync(directory.parent)
        if not path.parent.is_dir():
            raise refused(f"{path.parent} cannot be a directory: a file is in the way.", "exists")

    def sync(self, directory: Path) -> None:
        """Make creations, renames and removals in a directory durable, together with other threads."""
        self._syncs.setdefault(directory, GroupSync(lambda: _sync_dir(directory))).wait()

    def walk(self, prefix: str = "") -> Iterator[Entry]:
        """All files and links whose name starts with `prefix`, sorted by name. No link to a directory is followed."""
        root = self.check()
        stack = [("", "")]
        while stack:
            name, raw = stack.pop()
            if name and not name.endswith("/"):
                partial = _PARTIAL.fullmatch(raw.rpartition("/")[2])
                yield Entry(name, raw, root / raw, partial["job"] if partial else None)
                continue
            for child in sorted(_scan(root, raw), reverse=True):
                full = name + child[0]
                if full.startswith(prefix) or (full.endswith("/") and prefix.startswith(full)):
                    stack.append((full, raw + child[1]))


def _scan(root: Path, raw: str) -> Iterator[tuple[str, str]]:
    """The names and raw names of a directory's entries; those of directories end in `/`. Special files are left out."""
    path = root / raw
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield escape(entry.name) + "/", entry.name + "/"
                elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
                    yield escape(entry.name), entry.name
    except FileNotFoundError:  # removed while we look around
        return
    except OSError as error:
        raise failure(error, f"list {path}") from error


def _sync_dir(directory: Path) -> None:
    try:
        disk.fsync_dir(directory)
    except OSError as error:
        if error.errno not in _NO_DIR_SYNC:  # some network file systems cannot; they write through
            raise
