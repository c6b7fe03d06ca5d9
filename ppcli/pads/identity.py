"""`store.json`: what makes a directory a pad store. It is written last, so a store is there whole or not at all."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ppcli import disk, records
from ppcli.errors import Credentials, Usage, local_error
from ppcli.pads.key import KEY_FILE, UserKey

FORMAT = "ppcli-pads/1"
NAME = "store.json"

PAD_DEFAULT = 4 << 20
PAD_MIN = 64
PAD_MAX = 1 << 30


@dataclass(frozen=True, slots=True)
class Identity:
    """Which store this is. `id` is 16 bytes in hex, `pad_size` bytes; `key_check` tells which user key made it."""

    id: str
    pad_size: int
    key_check: str


def make(key: UserKey, store_id: bytes, pad_size: int) -> Identity:
    return Identity(store_id.hex(), pad_size, key.check(store_id, pad_size))


def read(root: Path) -> Identity | None:
    """The identity of the store in `root`; None where there is no store. Raises `ValueError` where it is damaged, and
    `Local` on I/O errors."""
    try:
        text = (root / NAME).read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise local_error(error, "read the pad store") from error
    values = records.loads(text)
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT or set(values) != set(Identity.__slots__):
        raise ValueError(f"not a {FORMAT}")
    found = Identity(**values)
    sound = isinstance(found.id, str) and isinstance(found.pad_size, int) and isinstance(found.key_check, str)
    if not sound or len(bytes.fromhex(found.id)) != 16 or not PAD_MIN <= found.pad_size <= PAD_MAX:
        raise ValueError("not the identity of a store")
    return found


def write(root: Path, identity: Identity) -> None:
    disk.write_atomic(root / NAME, [json.dumps({"format": FORMAT, **asdict(identity)}).encode() + b"\n"])


def choose_pad_size(found: int | None, asked: int | None) -> int:
    """The pad size of the store, which has `found`, or of the one to be made (None). Raises `Usage` where another was
    asked for, or where there are no such pads."""
    size = asked or found or PAD_DEFAULT
    if found and size != found:
        raise Usage(
            f"The pads of this store have {found} bytes each, not {size}.",
            hint=f"Leave out --chunk-size, or give {found}; a store's pad size never changes.",
        )
    if not PAD_MIN <= size <= PAD_MAX:
        raise Usage(
            f"A pad store cannot have pads of {size} bytes.",
            hint=f"Choose --chunk-size between {PAD_MIN} bytes and {PAD_MAX >> 30} GiB.",
        )
    return size


def require_key(identity: Identity, key: UserKey | None, config_dir: Path, where: str) -> UserKey:
    """The key, which must be the one that the store was made with. Raises `Credentials`."""
    if key is None:
        raise key_missing(config_dir, where)
    if key.check(bytes.fromhex(identity.id), identity.pad_size) != identity.key_check:
        raise Credentials(
            f"The pad store {where} was made with another user key than the one in {config_dir / KEY_FILE}.",
            hint="Put the key it was made with there, or use another directory for a new store.",
            reason="key",
        )
    return key


def key_missing(config_dir: Path, where: str) -> Credentials:
    return Credentials(
        f"The user key of the pad store {where} is missing.",
        hint=f"Put it back at {config_dir / KEY_FILE}; without it the pads cannot be read.",
        reason="key",
    )
