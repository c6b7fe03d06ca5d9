"""The transports of one command: one for each origin, each with the tokens of that origin."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ppcli.config import Config
from ppcli.credentials import Source, Tokens, from_command, from_environment, from_file
from ppcli.errors import Usage
from ppcli.logins import Logins
from ppcli.origin import Origin, origin_of

if TYPE_CHECKING:
    from ppcli.transport import Transport


class Transports:
    """Gives and closes them. PPCLI_TOKEN and PPCLI_TOKEN_FILE do not say whose they are: they belong to the origin of
    PPCLI_TARGET, else to that of what the command is about (`choose`), else to that of default_target. Where that are
    several they belong to none: a token must not go to a server that it is not meant for."""

    def __init__(self, config: Config, config_dir: Path, environ: Mapping[str, str] = os.environ) -> None:
        self._config = config
        self._logins = Logins(config_dir)
        self._environ = environ
        self._lock = threading.Lock()
        self._made: dict[tuple[Origin, str | None], Transport] = {}
        self._anonymous = False
        self._about: set[Origin] = set()
        self._owner: Origin | None = None
        self._settled = bool(environ.get("PPCLI_TARGET"))
        with suppress(Usage):  # whoever needs the target will say so
            self._owner = origin_of(config.place(None, environ).url)
            self._settled = self._settled and self._owner is not None

    @property
    def token_without_owner(self) -> bool:
        """The environment has a token, and nothing says yet whose it is."""
        given = self._environ.get("PPCLI_TOKEN") or self._environ.get("PPCLI_TOKEN_FILE")
        return bool(given) and not (self._settled or self._owner)

    def choose(self, *urls: str) -> Sequence[str]:
        """The command is about the targets at these URLs. Gives all origins that it is about where they are more than
        before and the token of the environment might be for any of them."""
        before = len(self._about)
        self._about |= {origin for url in urls if (origin := origin_of(url))}
        if self._settled or not self._about:
            return ()
        self._owner = next(iter(self._about)) if len(self._about) == 1 else None
        told = self.token_without_owner and len(self._about) > before
        return sorted(map(str, self._about)) if told else ()

    def may_carry_secrets(self, base: str, url: str) -> bool:
        """Whether a secret may be sent to `base` for the target at `url`: encrypted, within this machine, or allowed by
        the target's table."""
        from ppcli.transport.routes import leaves_the_machine

        origin = Origin.parse(base)
        table = self._config.table_for(origin, url)
        return origin.secure or not leaves_the_machine(origin) or bool(table and table.plain_http_token)

    def send_no_tokens(self) -> None:
        """For a login: whatever tokens there are, they are not asked for."""
        self._anonymous = True

    def get(self, base: str, url: str | None = None) -> Transport:
        """The transport to `base`, for the target at `url`. Raises `Usage` for a base that names no host."""
        from ppcli.transport import Transport

        try:
            origin = Origin.parse(base)
        except ValueError as error:
            raise Usage(f"{base!r} cannot be used: {error}.", hint="Write it like https://host.") from error
        table = self._config.table_for(origin, url)
        key = (origin, table.url if table else None)
        with self._lock:
            if key not in self._made:
                self._made[key] = Transport(str(origin), None if self._anonymous else self._tokens(origin, url))
            return self._made[key]

    def close(self) -> None:
        with self._lock:
            made, self._made = list(self._made.values()), {}
        for transport in made:
            transport.close()

    def _tokens(self, origin: Origin, url: str | None) -> Tokens:
        table = self._config.table_for(origin, url)
        sources: list[Source] = []
        if origin == self._owner:
            sources += [from_environment(self._environ), from_file(self._environ)]
        if table and table.token_command:
            sources.append(from_command(table.token_command))
        sources.append(lambda: self._logins.find(origin))
        return Tokens(origin, *sources, plain_http=bool(table and table.plain_http_token))
