"""The user key, and what is derived from it: a secret and an address for every pad of a store.

    secret    = HMAC-SHA256(user key, "ppcli-pad/1" | store id (16 bytes) | pad number (8 bytes, big-endian))
    address   = SHA-256(secret), lower-case hex
    key check = HMAC-SHA256(user key, "ppcli-pad-store/1" | store id (16 bytes) | pad size (8 bytes, big-endian)), hex

Whoever knows a pad's secret may write it, whoever knows its address may read it. Neither is ever stored or shown.

A server is told secrets when it is written to, so no secret may be good at another place. What a server names as its
store's id could be the one of somebody else's: for pads behind a server, the store id of these formulas is made here,
from the id that the server tells and the origin (`https://host:port`) that it is reached by.

    store id  = the first 16 bytes of SHA-256("ppcli-pad-place/1" | id the server tells (16 bytes) | origin)
    tag       = the first 16 bytes of HMAC-SHA256(user key, "ppcli-pad-tag/1" | origin), hex: which store there is ours
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ppcli import disk
from ppcli.errors import Credentials, local_error, local_io
from ppcli.lock import Lock

KEY_FILE = "user.key"
GAP = 10_000
"""So many numbers in a row without a pad, and there are no more."""
_KEY_BYTES = 32
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Pad:
    """A pad of one store, with the two values that give access to it."""

    number: int
    secret: bytes = field(repr=False)
    address: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class UserKey:
    """32 random bytes: everything a person needs to get back what they stored."""

    value: bytes = field(repr=False)

    def check(self, store_id: bytes, pad_size: int) -> str:
        """Shows that a store was made with this key, and nothing else about it."""
        return hmac.digest(self.value, b"ppcli-pad-store/1" + store_id + pad_size.to_bytes(8), "sha256").hex()

    def tag(self, origin: str) -> str:
        """By what a server knows the store of this key, and nothing else about the key; another one at each origin."""
        return hmac.digest(self.value, b"ppcli-pad-tag/1" + origin.encode(), "sha256")[:16].hex()

    def pad(self, store_id: bytes, number: int) -> Pad:
        secret = hmac.digest(self.value, b"ppcli-pad/1" + store_id + number.to_bytes(8), "sha256")
        return Pad(number, secret, hashlib.sha256(secret).hexdigest())


def bound(told: bytes, origin: str) -> bytes:
    """The store id for what the server at `origin` tells as its own (16 bytes each)."""
    return hashlib.sha256(b"ppcli-pad-place/1" + told + origin.encode()).digest()[:16]


def numbers_of(addresses: Collection[str], address: Callable[[int], str]) -> Iterator[int]:
    """The numbers whose addresses are among these, in order."""
    left = len(addresses)
    number = last = 0
    while left and number - last <= GAP:
        if address(number) in addresses:
            left, last = left - 1, number
            yield number
        number += 1


def load(config_dir: Path) -> UserKey | None:
    """The key of this user, or None. Raises `Credentials` where the file holds no key, `Local` on I/O errors."""
    path = config_dir / KEY_FILE
    try:
        value = bytes.fromhex(path.read_text("ascii").strip())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise local_error(error, "read the user key") from error
    except ValueError:
        value = b""
    if len(value) != _KEY_BYTES:
        raise Credentials(
            f"The user key file {path} does not hold a key.",
            hint="Put back a copy of it; without the key the pads cannot be read.",
            reason="key",
        )
    return UserKey(value)


def load_or_create(config_dir: Path) -> UserKey:
    """The key of this user, made when there is none. However many processes ask at once, all get the same."""
    if found := load(config_dir):
        return found
    path, lock = config_dir / KEY_FILE, Lock(config_dir / f".{KEY_FILE}.lock")
    with local_io("create the user key"):
        disk.make_dir(config_dir)
        lock.acquire(str(path), _PATIENCE)
        with lock:
            if not path.exists():
                disk.write_atomic(path, [secrets.token_hex(_KEY_BYTES).encode() + b"\n"])
    made = load(config_dir)
    assert made is not None
    return made
