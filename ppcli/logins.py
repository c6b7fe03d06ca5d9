"""The login store: one 0600 file in the config dir with the tokens of `ppcli login`, one for each origin."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ppcli import disk, records
from ppcli.errors import Credentials, local_error, local_io
from ppcli.lock import Lock
from ppcli.origin import Origin, origin_of

FORMAT = "ppcli-logins/1"
NAME = "logins.json"
_WAIT = 10.0


class Logins:
    """Any number of processes may use one store at once: each change is made under a lock and replaces the file."""

    def __init__(self, config_dir: Path) -> None:
        self.path = config_dir / NAME

    def find(self, origin: Origin) -> str | None:
        """The token of an origin. Raises `Credentials` where the file is damaged, `Local` where it cannot be read."""
        return self._load().get(str(origin))

    def all(self) -> dict[Origin, str]:
        """Every token. Raises as `find` does."""
        return {origin: token for text, token in self._load().items() if (origin := origin_of(text)) is not None}

    def save(self, origin: Origin, token: str) -> None:
        """Keep a token, durably, in place of the one there was. A damaged file is set aside. Raises `Local`."""
        with self._changing():
            try:
                tokens = self._load()
            except Credentials:
                with local_io(f"set {self.path} aside"):
                    disk.set_aside(self.path)
                tokens = {}
            self._store(tokens | {str(origin): token})

    def forget(self, origin: Origin) -> bool:
        """Whether there was a token. Raises as `find` does."""
        if self.find(origin) is None:
            return False
        with self._changing():
            tokens = self._load()
            found = tokens.pop(str(origin), None) is not None
            self._store(tokens)
        return found

    def _changing(self) -> Lock:
        with local_io(f"create {self.path.parent}"):
            disk.make_dir(self.path.parent)
        lock = Lock(self.path.with_name(f".{NAME}.lock"))
        lock.acquire(str(self.path), wait=_WAIT)
        return lock

    def _load(self) -> dict[str, str]:
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise local_error(error, f"read {self.path}") from error
        tokens = _tokens(raw)
        if tokens is None:
            raise Credentials(
                f"The login store {self.path} is damaged.",
                hint="Run 'ppcli login' again; the damaged file is then kept beside the new one.",
                reason="damaged",
            )
        return tokens

    def _store(self, tokens: dict[str, str]) -> None:
        text = json.dumps({"format": FORMAT, "tokens": tokens}, indent=1) + os.linesep
        with local_io(f"write {self.path}"):
            disk.write_atomic(self.path, [text.encode()])


def _tokens(raw: bytes) -> dict[str, str] | None:
    """None where it is not what `_store` writes."""
    try:
        value: Any = records.loads(raw)
    except ValueError:
        return None
    match value:
        case {"format": "ppcli-logins/1", "tokens": dict(tokens)} if all(isinstance(t, str) for t in tokens.values()):
            return dict(tokens)
    return None
