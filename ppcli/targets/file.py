"""`file:///dir`: plain files in a directory, such as a NAS mount or a USB disk.

A file grows as `.ppcli-JOB-KEY.part` beside its final place and is renamed when it is complete: what has a name is
whole, and a reader of the old content keeps it. A slot is the chunk's offset.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from ppcli.errors import Damaged, Integrity, NotFound, PpcliError, Rejected, SessionLost, SourceError
from ppcli.model import Evidence, FilePlan, Incomplete, Limits, Notice, Part, Receipt, Remote, Session, Slot, Survey
from ppcli.names import escape
from ppcli.pieces import pieces
from ppcli.target import Body, Target
from ppcli.targets import Settings, slots
from ppcli.targets.file_partials import Partial, Partials, checksum, holds, link_new
from ppcli.targets.file_tree import Stored, Tree, disk_io, failure, parse, partial_name, refused, url_of

_SIZE, _INODE = "size", "inode"
_LIMITS = Limits(chunk_min=1, chunk_max=1 << 40, chunk_default=8 << 20, open_leaves_trace=False)


def connect(url: str, settings: Settings) -> Target:
    """Raises `Usage` for a URL that is no directory on this machine. Whether it exists is asked later."""
    return FileTarget(parse(url), settings)


class FileTarget:
    """A `Target` and a `Store`. Every OSError becomes `Local`, or `Rejected` where the fault is in the file."""

    def __init__(self, root: Path, settings: Settings) -> None:
        self.url = url_of(root)
        self._tree = Tree(root)
        self._partials = Partials()
        self._placed: dict[tuple[str, int], Path] = {}
        self._file_digest = settings.file_digest
        self._known_digest = settings.known_digest
        umask = os.umask(0o077)  # there is no way to ask; made here, before there are threads that create files
        os.umask(umask)
        self._mode = 0o666 & ~umask

    def limits(self, size: int) -> Limits:
        self._tree.check()
        return _LIMITS

    def find(self, name: str, digest: str | None = None) -> Remote | None:
        self._tree.check()
        found = self._tree.lookup(name)
        return self._remote(found) if found else None

    def digest(self, remote: Remote, *, fresh: bool = False) -> str | None:
        found = self._stored(remote)
        try:
            return self._file_digest(found.path, fresh) if found else None
        except SourceError as error:
            if isinstance(error.__cause__, OSError) and error.reason != "missing":
                raise failure(error.__cause__, f"read {remote.location}") from error
            return None

    def open(self, file: FilePlan, old: Session | None, base: Remote | None) -> Session:
        final = self._final(file)
        path = self._placed[file.job, file.key] = final.with_name(partial_name(file.job, file.key))
        if old and self._published(old, file):
            inode = int(old.detail[_INODE])
        elif old:
            inode = self._partials.reattach(path, int(old.detail.get(_SIZE, file.size)), file.size)
        else:
            self._tree.make_parent(final)
            inode = self._partials.create(path, file.size)
            with disk_io(f"create {path}"):
                self._tree.sync(path.parent)
        name = PurePosixPath(file.name).with_name(path.name)
        return Session(str(name), detail={_SIZE: str(file.size), _INODE: str(inode)})

    def survey(self, session: Session, file: FilePlan, known: Sequence[Receipt]) -> Survey:
        """Written is durable here, so what the manifest knows is there, unless somebody cut the partial."""
        whole = self._published(session, file)
        if not whole:
            with self._partials.using(self._partial_path(file)) as partial:
                whole = os.fstat(partial.fd).st_size == file.size
        return Survey({got.index: got for got in known if got.checksum and whole}, authoritative=True)

    def reserve(self, session: Session, file: FilePlan, parts: Sequence[Part]) -> Sequence[Slot]:
        return [part.offset for part in parts]

    def adopt(self, session: Session, file: FilePlan, part: Part, base: Slot, body: Body) -> Receipt | None:
        return None

    def upload(self, session: Session, file: FilePlan, part: Part, slot: Slot, body: Body) -> Receipt:
        with self._partials.using(self._partial_path(file)) as partial:
            partial.write(body, slots.number(slot))
        return Receipt(part.index, part.size, slot, body.checksum)

    def confirm(self, session: Session, file: FilePlan, receipt: Receipt) -> Receipt:
        with self._partials.using(self._partial_path(file)) as partial, disk_io(f"read {partial.path}"):
            if checksum(partial.fd, slots.number(receipt.slot), receipt.size) != receipt.checksum:
                raise Damaged(f"{partial.path} holds other bytes at {receipt.slot} than were written")
        return replace(receipt, evidence=Evidence.CONTENT)

    def complete(self, session: Session, file: FilePlan, receipts: Sequence[Receipt], *, doubtful: bool) -> Remote:
        final, path = self._final(file), self._partial_path(file)
        try:
            with self._partials.using(path) as partial:
                if os.fstat(partial.fd).st_size != file.size:
                    raise SessionLost(f"{path} was cut to another size")
                partial.finish(self._mode_for(final), file.modified)
                self._publish(partial, final, file, receipts)
        except SessionLost:
            if not (doubtful and self._same(final, file, receipts)):
                raise
        self._forget(file)
        with disk_io(f"write {final.parent}"):
            self._tree.sync(final.parent)
        if remote := self.find(file.name):
            return remote
        raise SessionLost(f"{final} was removed at once")

    def abort(self, session: Session | None, file: FilePlan, slots: Sequence[Slot] = ()) -> None:
        with contextlib.suppress(Rejected):  # such a name was never opened
            self._unlink(self._forget(file))

    def notices(self) -> Sequence[Notice]:
        return ()

    def close(self) -> None:
        self._partials.close()

    def list(self, prefix: str) -> Iterator[Remote]:
        for entry in self._tree.walk(prefix):
            if not entry.partial_of and (found := self._tree.stored(entry.raw)):
                digest = None
                with contextlib.suppress(PpcliError):  # gone by now
                    digest = self._known_digest(found.path)
                yield replace(self._remote(found), digest=digest)

    def read(self, remote: Remote, offset: int) -> Iterator[memoryview]:
        found = self._stored(remote)
        if not found:
            raise NotFound(f"{escape(remote.name)!r} is not in {self.url}.", hint="`ppcli ls` lists what is.")
        path = found.path
        with disk_io(f"read {path}"):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for piece in pieces(fd, offset, max(remote.size - offset, 0)):
                offset += len(piece)
                yield piece
        except OSError as error:
            raise failure(error, f"read {path}") from error
        finally:
            os.close(fd)
        if offset < remote.size:
            raise Integrity(f"{path} got shorter while it was read.", hint="Get it again.", reason="changed")

    def remove(self, names: Sequence[str]) -> Sequence[str]:
        removed, directories = [], set()
        try:
            for name in names:
                if found := self._tree.lookup(name):
                    directories.add(found.path.parent)
                    with disk_io(f"remove {found.path}"):
                        found.path.unlink(missing_ok=True)
                    removed.append(name)
        finally:
            for directory in directories:
                with disk_io(f"write {directory}"):
                    self._tree.sync(directory)
        return removed

    def incomplete(self) -> Iterator[Incomplete]:
        for entry in self._tree.walk():
            if entry.partial_of and (info := self._tree.info(entry.path)):
                yield Incomplete(entry.name, None, entry.partial_of, info.st_size, info.st_mtime)

    def discard(self, upload: Incomplete) -> None:
        if path := self._tree.partial(upload.id):
            self._unlink(path)

    def locate(self, location: str) -> str | None:
        raw = self._tree.raw_name(location)
        return escape(raw) if raw else None

    def _final(self, file: FilePlan) -> Path:
        """Where the file will be. Raises `Rejected` where it cannot be."""
        path = self._tree.place(file.name)
        try:
            mode = path.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return path
        except OSError as error:
            raise failure(error, f"look up {path}") from error
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            kind = "a directory" if stat.S_ISDIR(mode) else "a special file"
            raise refused(f"{path} is {kind}.", "exists")
        return path

    def _partial_path(self, file: FilePlan) -> Path:
        known = self._placed.get((file.job, file.key))
        return known or self._tree.place(file.name).with_name(partial_name(file.job, file.key))

    def _forget(self, file: FilePlan) -> Path:
        path = self._partial_path(file)
        self._placed.pop((file.job, file.key), None)
        self._partials.drop(path)
        return path

    def _remote(self, found: Stored) -> Remote:
        info, location = found.info, self._tree.location(found.raw)
        version = f"{info.st_ino}-{info.st_size}-{info.st_mtime_ns}-{info.st_ctime_ns}"
        return Remote(escape(found.raw), location, info.st_size, modified=info.st_mtime, version=version)

    def _stored(self, remote: Remote) -> Stored | None:
        """Its location tells more exactly than its name."""
        raw = self._tree.raw_name(remote.location)
        return self._tree.stored(raw) if raw else self._tree.lookup(remote.name)

    def _mode_for(self, final: Path) -> int:
        """The permissions that the replaced file has, or that a plain new file would get."""
        replaced = self._tree.info(final)
        return replaced.st_mode & 0o777 if replaced else self._mode

    def _same(self, final: Path, file: FilePlan, receipts: Sequence[Receipt]) -> bool:
        return self._tree.info(final) is not None and holds(final, file.size, receipts)

    def _published(self, session: Session, file: FilePlan) -> bool:
        """Whether the session's partial became the final file already, by a `complete` that was not recorded. Its inode
        says so; where inodes change (FAT), the session counts as lost. Only `complete` looks at the content."""
        info = self._tree.info(self._final(file))
        if not info or info.st_size != file.size or session.detail.get(_INODE) != str(info.st_ino):
            return False
        self._unlink(self._partial_path(file))  # the second name that an immutable `complete` may have left
        return True

    def _publish(self, partial: Partial, final: Path, file: FilePlan, receipts: Sequence[Receipt]) -> None:
        """Give the partial its final name in one step. Raises `SessionLost` where it is gone."""
        with disk_io(f"rename {partial.path} to {final}"):
            try:
                if not file.immutable:
                    partial.path.replace(final)
                elif link_new(partial.path, final) or self._same(final, file, receipts):
                    partial.path.unlink(missing_ok=True)
                else:
                    raise refused(f"{final} has other content, and --immutable forbids to replace it.", "exists")
            except FileNotFoundError as error:
                raise SessionLost(f"{partial.path} is gone") from error

    def _unlink(self, path: Path) -> None:
        self._partials.drop(path)
        with disk_io(f"remove {path}"), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
            self._tree.sync(path.parent)
