"""Where a pad store is, and the one in a directory: finding, making and opening it."""

from __future__ import annotations

import secrets
import threading
from pathlib import Path
from typing import Protocol

from ppcli import disk
from ppcli.errors import Corrupt, Local, local_io
from ppcli.model import Notice
from ppcli.pads import files, header, identity, key, ledger
from ppcli.pads.files import PadFiles
from ppcli.pads.identity import Identity
from ppcli.pads.key import UserKey
from ppcli.pads.store import PadStore


class Site(Protocol):
    """A place for one pad store. Any thread may ask."""

    @property
    def opened(self) -> PadStore | None:
        """The store as of the last look."""
        ...

    @property
    def pad_size(self) -> int | None:
        """The pad size of the store that is there, or None where there is none."""
        ...

    def look(self) -> PadStore | None:
        """The store as it is now; None where there is none. Raises `Credentials` without the key it was made with."""
        ...

    def create(self, pad_size: int) -> None:
        """Make a store, unless there is one by now; the user key too, where there is none."""
        ...

    def notices(self) -> list[Notice]: ...

    def close(self) -> None: ...


class Directory:
    """The `Site` of a store in the directory `root`. `mounted`: the directory above it has to be there."""

    def __init__(self, root: Path, config_dir: Path, *, mounted: bool) -> None:
        self._root = root
        self._config_dir = config_dir
        self._mounted = mounted
        self.opened: PadStore | None = None
        self._lock = threading.Lock()

    @property
    def pad_size(self) -> int | None:
        store = self.look()
        return store.identity.pad_size if store else None

    def look(self) -> PadStore | None:
        with self._lock:
            if self._mounted:
                _require_parent(self._root)
            found = find(self._root, self._config_dir)
            if self.opened and self.opened.identity != found:
                self.opened.close()
                self.opened = None
            if found and not self.opened:
                user_key = identity.require_key(found, key.load(self._config_dir), self._config_dir, str(self._root))
                self.opened = PadStore(self._root, found, PadFiles(self._root, found, user_key))
            return self.opened

    def create(self, pad_size: int) -> None:
        with local_io("create the pad store"):
            disk.make_dir(self._root)
            user_key = key.load_or_create(self._config_dir)
            with ledger.locked(self._root):
                if not identity.read(self._root):
                    files.prepare(self._root)
                    ledger.create(self._root)
                    identity.write(self._root, identity.make(user_key, secrets.token_bytes(16), pad_size))

    def notices(self) -> list[Notice]:
        damaged = self.opened.set_aside if self.opened else []
        said = "The pad index has been rebuilt; the old file was kept as"
        return [Notice("index_damaged", f"{said} {path}.") for path in damaged]

    def close(self) -> None:
        if self.opened:
            self.opened.close()
            self.opened = None


def find(root: Path, config_dir: Path) -> Identity | None:
    """The store in `root`, None where there is none. A `store.json` that is lost or damaged is made again from the
    pads. Raises `Corrupt` where that fails, `Credentials` where it takes a key that is not there."""
    try:
        found = identity.read(root)
        damaged = False
    except ValueError:
        found, damaged = None, True
    empty = not found and not any(files.files(root))
    if not found and not empty and not damaged:  # it is there before the first pad: another process may have made both
        found = identity.read(root)
    if found or (empty and not damaged):
        return found
    made = None if empty else _identify(root, config_dir)
    with ledger.locked(root), local_io("replace the pad store's identity"):
        if damaged:
            disk.set_aside(root / identity.NAME)
        if made:
            identity.write(root, made)
    return made


def _require_parent(root: Path) -> None:
    """Raises `Local` where not even the directory above `root` is there: a disk that is not mounted."""
    if not root.parent.is_dir():
        raise Local(
            f"There is no directory {root.parent}.",
            hint="Mount the disk or make the directory, then run the same command again.",
            reason="missing",
        )


def _identify(root: Path, config_dir: Path) -> Identity:
    user_key = key.load(config_dir)
    if user_key is None:
        raise identity.key_missing(config_dir, str(root))
    made = _identity_from_pads(root, user_key)
    if made is None:
        raise Corrupt(
            f"The pad store {root} has no readable {identity.NAME}, and its pads do not tell what was in it.",
            hint=f"Put back a copy of {identity.NAME}, or the user key that the store was made with.",
            reason="store",
        )
    return made


def _identity_from_pads(root: Path, user_key: UserKey) -> Identity | None:
    """The identity of a store whose `store.json` is lost, from any pad that this key made; None where there is none."""
    tried: set[tuple[bytes, int]] = set()
    for path in files.files(root):
        with local_io("look through the pads"), path.open("rb") as file:
            claimed = header.claim(file.read(header.SIZE))
        if claimed and claimed not in tried:
            tried.add(claimed)
            made = identity.make(user_key, *claimed)
            if any(PadFiles(root, made, user_key).walk().values()):
                return made
    return None
