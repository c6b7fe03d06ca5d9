"""The store behind a server: whose pads they are, and the index of them in the data dir.

    pads-http/<store id>/index.json, index.jsonl, index.lock     as in a directory's store
    pads-http/<store id>/held.json                               the id by which the server knows this index
    pads-http/index.lock                                         held while that id changes

One index counts at a time; the server refuses the writes of all others. An index that is not here, that does not count
any more, or that is an old copy (the server knows how far it had come) is made again from the pads, and counts from
then on.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

from ppcli import disk, records
from ppcli.errors import Transient, local_io
from ppcli.model import Notice
from ppcli.pads import identity, key, ledger
from ppcli.pads.api import Api, Told
from ppcli.pads.key import UserKey, bound
from ppcli.pads.remote import RemotePads
from ppcli.pads.store import PadStore
from ppcli.transport import Transport

FOLDER = "pads-http"
_HELD = "held.json"


class RemoteSite:
    """A `Site`. It asks the server once: a store that is not there then is there only after `create`."""

    def __init__(self, transport: Transport, data_dir: Path, config_dir: Path) -> None:
        self.opened: PadStore | None = None
        self.looked = False
        """Whether the server was asked."""
        self.renewed = False
        """Whether the index was made again from the pads just now."""
        self._transport = transport
        self._origin = str(transport.origin)
        self._folder = data_dir / FOLDER
        self._config_dir = config_dir
        self._notices: list[Notice] = []
        self._lock = threading.Lock()

    @property
    def pad_size(self) -> int | None:
        return self.opened.identity.pad_size if self.opened else None

    def look(self) -> PadStore | None:
        """Without a user key no store there can be ours."""
        with self._lock:
            user_key = None if self.looked else key.load(self._config_dir)
            if user_key:
                told = self._api(user_key).store()
                self.opened = self._open(told, user_key) if told else None
            self.looked = True
            return self.opened

    def create(self, pad_size: int) -> None:
        with self._lock, self._alone():
            user_key = key.load_or_create(self._config_dir)
            index = secrets.token_hex(16)
            told = self._api(user_key).make(pad_size, index)
            if told.index == index:  # it is new, so its index is empty
                root = self._root(told)
                with ledger.locked(root):
                    ledger.create(root)
                    self._hold(root, index)
            self.looked = False

    def require_key(self) -> None:
        """Raises `Credentials` where there is no user key."""
        if key.load(self._config_dir) is None:
            raise identity.key_missing(self._config_dir, f"at {self._origin}")

    def notices(self) -> list[Notice]:
        damaged = self.opened.set_aside if self.opened else []
        said = "The pad index has been rebuilt; the old file was kept as"
        return [*self._notices, *(Notice("index_damaged", f"{said} {path}.") for path in damaged)]

    def close(self) -> None:
        if self.opened:
            self.opened.close()
            self.opened, self.looked = None, False

    def _api(self, user_key: UserKey) -> Api:
        return Api(self._transport, user_key.tag(self._origin))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Which index counts is changed by one process of this data dir at a time."""
        with local_io("create the pad index"):
            disk.make_dir(self._folder)
        with ledger.locked(self._folder):
            yield

    def _root(self, told: Told) -> Path:
        root = self._folder / bound(told.store_id, self._origin).hex()
        with local_io("create the pad index"):
            disk.make_dir(root)
        return root

    def _open(self, told: Told, user_key: UserKey) -> PadStore:
        root = self._root(told)
        held = _held(root)
        if held != told.index:
            told = self._take_over(root, held, user_key)
        store = self._store(root, told, user_key)
        if store.seq < told.seq:  # an old copy of the data dir was put back
            store.close()
            store = self._store(root, self._take_over(root, told.index, user_key), user_key)
        return store

    def _store(self, root: Path, told: Told, user_key: UserKey) -> PadStore:
        found = identity.make(user_key, bound(told.store_id, self._origin), told.pad_size)
        return PadStore(root, found, RemotePads(self._api(user_key), found, user_key, told.index), told.seq)

    def _take_over(self, root: Path, held: str | None, user_key: UserKey) -> Told:
        """Make our index count in place of `held`, which does not, and have it made again. In this order: killed in
        between, it does not count yet, or there is no index that could be taken for a good one."""
        api = self._api(user_key)
        with self._alone(), ledger.locked(root):
            told = api.store()
            if told is None:
                raise Transient("the server does not know its pads any more")
            if told.index == _held(root) != held:
                return told  # another process here was quicker
            with local_io("set the old pad index aside"):
                for name in (ledger.SNAPSHOT, ledger.JOURNAL):
                    with contextlib.suppress(FileNotFoundError):
                        disk.set_aside(root / name)
            index = secrets.token_hex(16)
            self._hold(root, index)
            api.take_over(index, told.index)
        self.renewed = True
        if told.pads:
            said = "was not in this data dir, or is an old copy: it has been made again from the pads"
            self._notices.append(Notice("index_rebuilt", f"The index of the pads at {self._origin} {said}."))
        return Told(told.store_id, told.pad_size, index, told.seq, told.pads)

    def _hold(self, root: Path, index: str) -> None:
        with local_io("write the pad index"):
            record = json.dumps({"server": self._origin, "index": index})
            disk.write_atomic(root / _HELD, [record.encode() + b"\n"])


def _held(root: Path) -> str | None:
    """The id of the index in `root`; None where there is none."""
    with local_io("read the pad index"):
        try:
            return str(records.loads((root / _HELD).read_bytes())["index"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
