"""`get`: read objects back into files or to standard output, resumable and verified."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from ppcli import checksums, disk
from ppcli.app import partials
from ppcli.app.objects import listed, no_file, not_found, store_of
from ppcli.app.reading import Reader
from ppcli.app.receiving import Reception
from ppcli.app.workplace import Workplace
from ppcli.errors import Integrity, Rejected, Usage, local_error, local_io
from ppcli.events import FileCompleted, Result
from ppcli.model import Action, Evidence, Remote
from ppcli.names import safe_relative
from ppcli.requests import GetRequest
from ppcli.retry import Step
from ppcli.target import Ranged, Store, Target

STDOUT = "-"
_FILES = 8
"""Objects of a tree that are fetched side by side."""
_AHEAD = 64
"""Objects that may be fetched before the first of them is done."""


def get(place: Workplace, request: GetRequest) -> Result:
    """Raises `NotFound`; `Rejected` (`exists`) before a different file would be replaced, and (`forbidden`) for a name
    that would leave the directory; `Integrity` when what was read is not what was stored."""
    target, store, name = store_of(place, request.to, request.name)
    reader = Reader(place, store)
    try:
        with Reception(place.listener) as reception:
            fetch = _Fetch(place, request, target, store, reader, reception)
            if request.recursive:
                return fetch.tree(name)
            remote = place.call(Step.FIND, name, lambda: target.find(name))
            if remote is None:
                raise no_file(place, target, store, name, "fetch")
            return fetch.one(remote)
    finally:
        reader.close()


@dataclass(frozen=True, slots=True)
class _Fetched:
    """An object that is in its file; `size` bytes of it were read now and compared with `digest` where there is one."""

    remote: Remote
    path: Path
    digest: str | None
    action: Action
    size: int


class _Fetch:
    """One `get` under way. Several threads may fetch, different objects; the caller's tells of them."""

    def __init__(
        self,
        place: Workplace,
        request: GetRequest,
        target: Target,
        store: Store,
        reader: Reader,
        reception: Reception,
    ) -> None:
        self._place = place
        self._request = request
        self._target = target
        self._store = store
        self._reader = reader
        self._reception = reception

    def one(self, remote: Remote) -> Result:
        self._reception.expect(remote.size)
        self._reception.expect_no_more()
        if self._request.dest == STDOUT:
            return self._place.done(target=self._target.url, files=1, size=self._to_stdout(remote))
        return self.result([self._to_file(remote, self.destination(remote.name))])

    def result(self, fetched: Iterable[_Fetched]) -> Result:
        """Tells of each object as it comes."""
        files = size = unchanged = skipped = 0
        for one in fetched:
            self._tell(one)
            files, size = files + 1, size + one.size
            if one.action is Action.UNCHANGED:
                unchanged, skipped = unchanged + 1, skipped + one.remote.size
        done = self._place.done(target=self._target.url, files=files, size=size)
        return replace(done, files_unchanged=unchanged, bytes_skipped=skipped)

    def destination(self, name: str) -> Path:
        """Where a single object goes: DEST, or below it where it is a directory, or `./LASTPART`."""
        dest = Path(self._request.dest or ".")
        if self._request.dest is not None and not dest.is_dir() and not self._request.dest.endswith("/"):
            return dest
        return dest / safe_relative(name.rpartition("/")[2])

    def tree(self, name: str) -> Result:
        """Everything below `name`, by relative name, into DEST (by default a directory called like the last part)."""
        if self._request.dest == STDOUT:
            raise Usage("A tree cannot go to standard output.", hint="Give a directory as DEST.")
        prefix = name.rstrip("/") + "/" if name else ""
        last = prefix.rstrip("/").rpartition("/")[2] or "."
        root = Path(self._request.dest if self._request.dest is not None else last)

        def found() -> Iterator[tuple[Remote, Path]]:
            for remote in listed(self._place, self._store, prefix):
                path = root / safe_relative(remote.name[len(prefix) :])
                _stay_below(root, path)
                self._reception.expect(remote.size)
                yield remote, path
            self._reception.expect_no_more()

        result = self.result(self._fetched(found()))
        if not result.files_completed:
            raise not_found(prefix or name, self._target)
        return result

    def _fetched(self, found: Iterator[tuple[Remote, Path]]) -> Iterator[_Fetched]:
        """All of these, in order; side by side where ranges are read side by side."""
        first = next(found, None)
        if first is None:
            return
        found = chain((first,), found)
        if not isinstance(self._store, Ranged) or self._store.range_size(first[0]) is None:
            for remote, path in found:
                yield self._to_file(remote, path)
            return
        pool = ThreadPoolExecutor(_FILES, "get")
        coming: deque[Future[_Fetched]] = deque()
        try:
            for remote, path in found:
                coming.append(pool.submit(self._to_file, remote, path))
                if len(coming) > _AHEAD:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _to_stdout(self, remote: Remote) -> int:
        self._reception.silent = sys.stdout.isatty()  # which shows the bytes
        expected = self._expected(remote)
        algorithm = _algorithm(expected)
        digest = checksums.hasher(algorithm)
        size = 0
        for piece in self._reader.read(remote, 0):
            digest.update(piece)
            if not _print(piece):  # a reader that had enough is no failure
                return size
            size += len(piece)
            self._reception.add(len(piece))
        if size != remote.size or (expected and expected != f"{algorithm}:{digest.hexdigest()}"):
            raise _damaged(remote)
        return size

    def _to_file(self, remote: Remote, path: Path) -> _Fetched:
        """Read one object into `path`, going on where an earlier run stopped."""
        expected = self._expected(remote)
        if path.is_symlink() or path.exists():
            if path.is_file() and path.stat().st_size == remote.size and self._has(path, expected):
                self._reception.there(remote.size)
                return _Fetched(remote, path, expected, Action.UNCHANGED, 0)
            if not self._request.force:
                raise partials.exists(path)
        if self._request.recursive:
            with local_io(f"create {path.parent}"):
                path.parent.mkdir(parents=True, exist_ok=True)
        partial = partials.path_of(path, remote, expected)
        begun = partial.stat().st_size if partial.is_file() else 0
        with local_io(f"write {path}"), partials.opened(partial) as fd:
            size = self._fill(remote, fd, expected)
            partials.put_in_place(partial, path, force=self._request.force)
        return _Fetched(remote, path, expected, Action.RESUMED if begun else Action.SENT, size)

    def _has(self, path: Path, expected: str | None) -> bool:
        return expected is not None and self._place.file_digest(path.absolute(), True, _algorithm(expected)) == expected

    def _fill(self, remote: Remote, fd: int, expected: str | None) -> int:
        """Complete the partial file and verify it; what an earlier run left is read again only to be hashed."""
        algorithm = _algorithm(expected)
        digest = checksums.hasher(algorithm)
        offset = start = partials.hash_start(fd, remote.size, digest.update)
        self._reception.there(start)
        for piece in self._reader.read(remote, offset):
            disk.write_all(fd, piece, offset)
            digest.update(piece)
            offset += len(piece)
            self._reception.add(len(piece))
        if offset != remote.size or (expected and f"{algorithm}:{digest.hexdigest()}" != expected):
            os.ftruncate(fd, 0)
            raise _damaged(remote)
        disk.fsync(fd)
        return offset - start

    def _expected(self, remote: Remote) -> str | None:
        """The digest to compare with. Without one, only the bytes can be counted, and users are told."""
        digest = self._place.call(Step.READ, remote.name, lambda: self._target.digest(remote))
        if digest is None:
            self._place.warn("unverified", f"The target tells no digest of {remote.name}: only its size is compared.")
        return digest

    def _tell(self, one: _Fetched) -> None:
        """Only what was compared with a digest is verified."""
        remote, evidence = one.remote, Evidence.CONTENT if one.digest else None
        told = FileCompleted(
            None, remote.name, remote.location, remote.size, str(one.path), one.digest, one.action, one.size, evidence
        )
        self._place.listener.hear(told)


def _algorithm(digest: str | None) -> str:
    return checksums.SHA256 if digest is None else digest.partition(":")[0]


def _print(piece: memoryview | bytes) -> bool:
    """Write to stdout at once; False where nobody reads it any more. Raises `Local` where it cannot be written."""
    try:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        return False
    except OSError as error:
        raise local_error(error, "write to stdout") from error
    return True


def _stay_below(root: Path, path: Path) -> None:
    """A link inside the tree must not lead the writing elsewhere."""
    if not path.parent.resolve().is_relative_to(root.resolve()):
        raise Rejected(f"{path} would be outside {root}.", hint="Remove the link that leads there.", reason="forbidden")


def _damaged(remote: Remote) -> Integrity:
    return Integrity(
        f"What was read of {remote.name} is not what was stored.",
        hint="Run the same command again; when it repeats, the stored copy is damaged.",
        reason="damaged",
    )
