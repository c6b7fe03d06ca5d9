"""Tokens: where they come from, and the one origin that each may be sent to.

Nothing here shows a token: not in an error, a log, a repr or an argument of a process.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from ppcli.errors import Credentials
from ppcli.origin import Origin

COMMAND_TIMEOUT = 60.0
"""Seconds that a token_command may take."""
LONGEST_TOKEN = 1 << 16

_TOKEN = re.compile(r"[\x21-\x7e]+")

Source: TypeAlias = Callable[[], str | None]
"""Reads a token anew; None where it has none. Raises `Credentials` where it should have one and cannot."""


class Tokens:
    """The token of one origin, from the first of `sources` that has one. Any number of threads may ask."""

    def __init__(self, origin: Origin, *sources: Source, plain_http: bool = False) -> None:
        """`plain_http` allows it to go unencrypted to another machine."""
        self.origin = origin
        self._sources = sources
        self._safe_way = origin.secure or origin.loopback or plain_http
        self._allowed = plain_http
        self._lock = threading.Lock()
        self._token: str | None = None
        self._asked = False
        self._failure: Credentials | None = None
        self._refused: set[str | None] = set()

    def leave_the_machine(self) -> None:
        """Requests go through a proxy elsewhere, also those to loopback."""
        self._safe_way = self.origin.secure or self._allowed

    def current(self) -> str | None:
        """The token to send, or None. Raises `Credentials` where a source fails, or where the token would go over
        plain http to another machine."""
        if not self._asked:
            with self._lock:
                if not self._asked:
                    self._token = self._read()
                    self._asked = True
        return self._token

    def refresh(self, used: str | None) -> str | None:
        """A token other than `used`, which the server refused; None where there is none. Of several threads that
        come with the same one, the first asks the sources again."""
        with self._lock:
            if self._asked and self._token != used:
                return self._token
            if used in self._refused:
                return None
            self._token, self._asked = self._read(), True
            if self._token == used:
                self._refused.add(used)
                return None
            return self._token

    def _read(self) -> str | None:
        """What failed once is not tried again: twenty threads would wait for one hanging command in turn."""
        if self._failure:
            raise Credentials(self._failure.message, hint=self._failure.hint, reason=self._failure.reason)
        try:
            token = next(filter(None, (source() for source in self._sources)), None)
            if token and not self._safe_way:
                raise self._unsafe()
        except Credentials as error:
            self._failure = error
            raise
        return token

    def _unsafe(self) -> Credentials:
        return Credentials(
            f"The token for {self.origin} is not sent: http:// is not encrypted.",
            hint="Use https://, or write plain_http_token = true into the target's table of config.toml.",
            reason="plain_http",
        )


def from_environment(environ: Mapping[str, str] = os.environ) -> Source:
    """PPCLI_TOKEN. Set but empty, as an unset variable of a CI system is, it counts as absent."""
    return lambda: checked(environ.get("PPCLI_TOKEN", ""), "PPCLI_TOKEN")


def from_file(environ: Mapping[str, str] = os.environ) -> Source:
    """The content of the file that PPCLI_TOKEN_FILE names; what surrounds it may be white space."""

    def read() -> str | None:
        name = environ.get("PPCLI_TOKEN_FILE")
        if not name:
            return None
        hint = "Check PPCLI_TOKEN_FILE."
        try:
            with Path(name).open("rb") as file:
                text = file.read(LONGEST_TOKEN + 1)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is no path"
            raise Credentials(f"The token file {name} cannot be read: {why}.", hint=hint, reason="token_file") from None
        token = checked(text.decode("utf-8", "replace"), f"the token file {name}")
        if token is None:
            raise Credentials(f"The token file {name} is empty.", hint=hint, reason="token_file")
        return token

    return read


def from_command(argv: Sequence[str]) -> Source:
    """What a command prints. Only its name and its exit code are ever told: its arguments, its output and its stderr
    may hold secrets."""
    name = Path(argv[0]).name

    def run() -> str | None:
        import subprocess

        try:
            ran = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=COMMAND_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _command_failed(name, f"did not end within {COMMAND_TIMEOUT:.0f} seconds") from None
        except (OSError, ValueError) as error:
            raise _command_failed(name, f"cannot be run: {getattr(error, 'strerror', None) or 'bad name'}") from None
        if ran.returncode:
            how = f"exit code {ran.returncode}" if ran.returncode > 0 else f"signal {-ran.returncode}"
            raise _command_failed(name, f"failed ({how})")
        token = checked(ran.stdout.decode("utf-8", "replace"), f"what the token_command {name!r} prints")
        if token is None:
            raise _command_failed(name, "printed nothing")
        return token

    return run


def checked(text: str, where: str) -> str | None:
    """A token without the white space around it; None for nothing. Raises `Credentials` for what no token can be, so
    that it cannot add headers of its own."""
    token = text.strip()
    if not token:
        return None
    if not _TOKEN.fullmatch(token) or len(token) > LONGEST_TOKEN:
        raise Credentials(
            f"{where[0].upper()}{where[1:]} is not a token: it must be one word of ASCII characters.",
            hint="Check where it comes from.",
            reason="token",
        )
    return token


def _command_failed(name: str, how: str) -> Credentials:
    return Credentials(
        f"The token_command {name!r} {how}.",
        hint="Run it by hand to see why; it is in the target's table of config.toml.",
        reason="token_command",
    )
