"""The transports of one command: one for each origin, each with the tokens of that origin."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
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
    """Gives and closes them. PPCLI_TOKEN and PPCLI_TOKEN_FILE do not say whose they are: they belong to the chosen
    target (`choose`), else to PPCLI_TARGET, else to the first origin that is asked for, and to no other."""

    def __init__(self, config: Config, config_dir: Path, environ: Mapping[str, str] = os.environ) -> None:
        self._config = config
        self._logins = Logins(config_dir)
        self._environ = environ
        self._lock = threading.Lock()
        self._made: dict[tuple[Origin, str | None], Transport] = {}
        self._chosen: Origin | None = None
        self._anonymous = False
        if environ.get("PPCLI_TARGET"):
            with suppress(Usage):  # whoever needs the target will say so
                self.choose(config.place(None, environ).url)

    def choose(self, url: str) -> None:
        """The user chose this target."""
        self._chosen = origin_of(url) or self._chosen

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
                self._chosen = self._chosen or origin
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
        if origin == self._chosen:
            sources += [from_environment(self._environ), from_file(self._environ)]
        if table and table.token_command:
            sources.append(from_command(table.token_command))
        sources.append(lambda: self._logins.find(origin))
        return Tokens(origin, *sources, plain_http=bool(table and table.plain_http_token))
