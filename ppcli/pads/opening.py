"""Finding, making and opening the store in a directory."""

from __future__ import annotations

import secrets
from pathlib import Path

from ppcli import disk
from ppcli.errors import Corrupt, Local, local_io
from ppcli.pads import identity, key, ledger, medium, recover
from ppcli.pads.identity import Identity
from ppcli.pads.store import PadStore


def find(root: Path, config_dir: Path) -> Identity | None:
    """The store in `root`, None where there is none. A `store.json` that is lost or damaged is made again from the
    pads. Raises `Corrupt` where that fails, `Credentials` where it takes a key that is not there."""
    try:
        found = identity.read(root)
        damaged = False
    except ValueError:
        found, damaged = None, True
    empty = not found and not any(medium.files(root))
    if found or (empty and not damaged):
        return found
    made = None if empty else _identify(root, config_dir)
    with ledger.locked(root), local_io("replace the pad store's identity"):
        if damaged:
            disk.set_aside(root / identity.NAME)
        if made:
            identity.write(root, made)
    return made


def create(root: Path, config_dir: Path, pad_size: int) -> None:
    """Make a store, unless there is one by now; the user key too, where there is none."""
    with local_io("create the pad store"):
        disk.make_dir(root)
        user_key = key.load_or_create(config_dir)
        with ledger.locked(root):
            if not identity.read(root):
                medium.prepare(root)
                ledger.create(root)
                identity.write(root, identity.make(user_key, secrets.token_bytes(16), pad_size))


def require_parent(root: Path) -> None:
    """Raises `Local` where not even the directory above `root` is there: a disk that is not mounted."""
    if not root.parent.is_dir():
        raise Local(
            f"There is no directory {root.parent}.",
            hint="Mount the disk or make the directory, then run the same command again.",
            reason="missing",
        )


def open_store(root: Path, found: Identity, config_dir: Path) -> PadStore:
    """The store in `root`. Raises `Credentials` without the key it was made with."""
    return PadStore(root, found, identity.require_key(found, key.load(config_dir), config_dir, str(root)))


def _identify(root: Path, config_dir: Path) -> Identity:
    user_key = key.load(config_dir)
    if user_key is None:
        raise identity.key_missing(config_dir, str(root))
    made = recover.identify(root, user_key)
    if made is None:
        raise Corrupt(
            f"The pad store {root} has no readable {identity.NAME}, and its pads do not tell what was in it.",
            hint=f"Put back a copy of {identity.NAME}, or the user key that the store was made with.",
            reason="store",
        )
    return made
