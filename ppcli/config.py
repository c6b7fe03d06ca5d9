"""Where ppcli keeps things, and what `config.toml` says: directories, the default target, named targets.

`config.toml`: `default_target = "NAME or URL"`, `keep_jobs = DAYS`, and tables `[targets.NAME]` with `url = "URL"` and,
where they are needed, `token_command` (a line, or a list of words) and `plain_http_token = true`. A key that is not
known is an error: a mistyped one must not look like success. `[server]` is read by `ppcli serve`.
"""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import platformdirs

from ppcli.errors import Local, Usage, local_error
from ppcli.origin import Origin, origin_of

DEFAULT_URL = "pads:"
KEEP_JOBS_DAYS = 30.0
_LONGEST_DAYS = 100_000
_KEYS = ("default_target", "keep_jobs", "targets", "server")
_TARGET_KEYS = ("url", "token_command", "plain_http_token")
_PATH_SIGN = re.compile(r"(/|\./|\.\./|~|\.$|\.\.$)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_SIGNED = re.compile(
    r"(?i)^(x-amz-(signature|credential|security-token)|signature|sig|token|access_token|awsaccesskeyid)$"
)


@dataclass(frozen=True, slots=True)
class Dirs:
    """`data` holds no secret and may be cached; `config` holds the user key."""

    data: Path
    config: Path


@dataclass(frozen=True, slots=True)
class Place:
    """Which target was chosen: its URL, and whether nobody chose it."""

    url: str
    by_default: bool = False


@dataclass(frozen=True, slots=True)
class TargetTable:
    """`[targets.NAME]`. `token_command` are the words of a command that prints a token; `plain_http_token` lets the
    token go over plain http to another machine."""

    url: str
    token_command: tuple[str, ...] = field(default=(), repr=False)
    plain_http_token: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    default_target: str | None = None
    keep_jobs: float = KEEP_JOBS_DAYS
    targets: Mapping[str, TargetTable] = field(default_factory=dict)

    def table_for(self, origin: Origin, url: str | None = None) -> TargetTable | None:
        """What is configured for an origin, however its target was chosen: the table of this very place, however its
        URL is written, else the first of this origin."""
        tables = [table for table in self.targets.values() if origin_of(table.url) == origin]
        same = [table for table in tables if url is not None and _within(table.url) == _within(url)]
        return next(iter(same or tables), None)

    def place(self, to: str | None, environ: Mapping[str, str] = os.environ) -> Place:
        """The target of a command: `--to`, then `PPCLI_TARGET`, then `default_target`, then `pads:`. Raises `Usage`."""
        if to is not None:
            return Place(self._url(to, "--to"))
        if "PPCLI_TARGET" in environ:
            return Place(self._url(environ["PPCLI_TARGET"], "PPCLI_TARGET"))
        if self.default_target is not None:
            return Place(self._url(self.default_target, "default_target"))
        return Place(DEFAULT_URL, by_default=True)

    def _url(self, text: str, origin: str) -> str:
        if not text.strip():
            raise Usage(
                f"{origin} is empty.", hint="Give a target, or leave it out to store on this computer.", reason="target"
            )
        text = self.targets[text].url if text in self.targets else text
        if _PATH_SIGN.match(text):
            return "file://" + quote(os.path.abspath(_expanded(text)), safe="/")  # noqa: PTH100 - keeps links
        if ":" not in text:
            known = ", ".join(sorted(self.targets)) or "none"
            raise Usage(
                f"There is no target named {text!r} in config.toml (known: {known}).",
                hint=f"For a directory write './{text}'.",
                reason="target",
            )
        _refuse_secrets(text)
        return text


def _within(url: str) -> tuple[str, list[tuple[str, str]]]:
    """What tells places of one origin apart."""
    parts = urlsplit(url)
    return unquote(parts.path).rstrip("/"), sorted(parse_qsl(parts.query, keep_blank_values=True))


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise Usage(f"{text!r} names no home directory.", hint="Write the whole path.", reason="target") from error


def _refuse_secrets(url: str) -> None:
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError as error:
        raise Usage(f"The target is not a URL: {error}.", hint="Check --to.", reason="target") from error
    if password is not None or any(_SIGNED.match(key) for key, _ in parse_qsl(parts.query, keep_blank_values=True)):
        raise Usage(
            "A target URL must not hold a password or a signature.",
            hint="Use PPCLI_TOKEN or PPCLI_TOKEN_FILE.",
            reason="secret",
        )
    if parts.fragment or url.endswith("#"):
        raise Usage("A target is a place, never a name.", hint="Use --name to name the file.", reason="target")


def dirs(environ: Mapping[str, str] = os.environ) -> Dirs:
    """The two directories; nothing is created. Without a HOME, that of the passwd entry is taken."""
    data, config = environ.get("PPCLI_DATA_DIR"), environ.get("PPCLI_CONFIG_DIR")
    if not os.environ.get("HOME"):
        os.environ.pop("HOME", None)  # an empty HOME would make every path relative; unset, the passwd entry counts
    return Dirs(
        data=_directory(data, "PPCLI_DATA_DIR", platformdirs.user_data_dir),
        config=_directory(config, "PPCLI_CONFIG_DIR", _config_dir),
    )


def _config_dir(name: str, appauthor: Literal[False]) -> str:
    """On macOS both directories would be one, and the key would be in what CI caches."""
    usual = platformdirs.user_config_dir(name, appauthor)
    return f"{usual}-config" if usual == platformdirs.user_data_dir(name, appauthor) else usual


def _directory(given: str | None, variable: str, usual: Callable[..., str]) -> Path:
    """Raises `Local` for a user without a home: a directory called `~` must not appear somewhere."""
    if given:
        return Path(os.path.abspath(given))  # noqa: PTH100 - keeps links
    try:
        path = Path(usual("ppcli", appauthor=False))
    except RuntimeError:
        path = Path()
    if not path.is_absolute():
        raise Local("This user has no home directory.", hint=f"Set HOME or {variable}.", reason="home")
    return path


def load(directory: Path) -> Config:
    """`config.toml` of the config dir; without one, the defaults. Raises `Usage` for one that makes no sense."""
    path = directory / "config.toml"
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return Config()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Usage(f"{path} cannot be read: {error}.", hint="Mend or remove it.", reason="config") from error
    except OSError as error:
        raise local_error(error, f"read {path}") from error
    _refuse_unknown(raw, _KEYS, "config.toml")
    return Config(
        default_target=_typed(raw, "default_target", str, None),
        keep_jobs=_days(float(_typed(raw, "keep_jobs", (int, float), KEEP_JOBS_DAYS))),
        targets={name: _target_table(name, table) for name, table in _typed(raw, "targets", dict, {}).items()},
    )


def _refuse_unknown(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise Usage(f"{where} has an unknown key {key!r}.", hint=f"Known are: {', '.join(known)}.", reason="config")


def _days(days: float) -> float:
    if not 0 <= days <= _LONGEST_DAYS:
        raise Usage(
            f"keep_jobs in config.toml must be from 0 to {_LONGEST_DAYS} days.", hint="Mend it there.", reason="config"
        )
    return days


def _target_table(name: str, table: Any) -> TargetTable:
    where = f"[targets.{name}] in config.toml"
    url = table.get("url") if isinstance(table, dict) else None
    if not isinstance(url, str) or not (_SCHEME.match(url) or _PATH_SIGN.match(url)):
        raise Usage(f'{where} needs url = "URL".', hint="Mend it there.", reason="config")
    _refuse_unknown(table, _TARGET_KEYS, where)
    plain = table.get("plain_http_token", False)
    if not isinstance(plain, bool):
        raise Usage(f"plain_http_token of {where} must be true or false.", hint="Mend it there.", reason="config")
    return TargetTable(url, _command(table.get("token_command"), where), plain)


def _command(value: Any, where: str) -> tuple[str, ...]:
    """The words of a token_command; no shell sees them. The errors do not repeat it: it may hold a secret."""
    if value is None:
        return ()
    try:
        words = shlex.split(value) if isinstance(value, str) else value
    except ValueError:
        words = None
    if not (isinstance(words, list) and words and words[0] and all(isinstance(word, str) for word in words)):
        raise Usage(
            f"token_command of {where} must be a command line, or a list of its words.",
            hint='Write it like token_command = "pass show uploads".',
            reason="config",
        )
    return tuple(words)


def _typed(raw: Mapping[str, Any], key: str, kind: type[Any] | tuple[type[Any], ...], default: Any) -> Any:
    value = raw.get(key, default)
    if value is not default and (not isinstance(value, kind) or isinstance(value, bool)):
        raise Usage(f"{key} in config.toml has the wrong type.", hint="Mend it there.", reason="config")
    return value
