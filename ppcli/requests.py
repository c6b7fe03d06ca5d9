"""What a user asks for, one frozen object per command; filled by the command line, taken by the use cases in `app`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import TypeAlias

from ppcli.values import value

DEFAULT_JOBS = 20
DEFAULT_RETRIES = 5

Ask: TypeAlias = Callable[[str], bool | None]
"""Puts a yes/no question to the user; None when nobody is there to answer."""

Prompt: TypeAlias = Callable[[str, bool], str | None]
"""Asks the user for a text, which is not shown where the second argument says so; None when nobody is there."""


@value(frozen=True, slots=True)
class PutRequest:
    """`ppcli put`. Sizes are bytes, the rate is bytes per second; None means: not given on the command line."""

    sources: tuple[str, ...] = ()
    to: str | None = None
    name: str | None = None
    recursive: bool = False
    exclude: tuple[str, ...] = ()
    files_from: str | None = None
    null_separated: bool = False
    chunk_size: int | None = None
    jobs: int = DEFAULT_JOBS
    reserve_jobs: int = DEFAULT_JOBS
    retries: int = DEFAULT_RETRIES
    limit_rate: int | None = None
    checksum: bool = False
    immutable: bool = False
    fail_fast: bool = False
    fresh: bool = False
    dry_run: bool = False
    wait_lock: float = 0.0
    yes: bool = False


@value(frozen=True, slots=True)
class ResumeRequest:
    """`limit_rate` (bytes per second) and `at_once` (uploads) take the place of what the jobs had; None: they stay."""

    jobs: tuple[str, ...] = ()
    all: bool = False
    limit_rate: int | None = None
    at_once: int | None = None


@value(frozen=True, slots=True)
class StatusRequest:
    jobs: tuple[str, ...] = ()
    all: bool = False
    exit_code: bool = False


@value(frozen=True, slots=True)
class CancelRequest:
    jobs: tuple[str, ...] = ()
    all: bool = False
    yes: bool = False
    incomplete: bool = False
    to: str | None = None


@value(frozen=True, slots=True)
class RemoveRequest:
    names: tuple[str, ...]
    recursive: bool = False
    to: str | None = None


@value(frozen=True, slots=True)
class ListRequest:
    prefix: str = ""
    incomplete: bool = False
    to: str | None = None


@value(frozen=True, slots=True)
class GetRequest:
    """`dest` None: `./LASTPART`; `-`: standard output."""

    name: str
    dest: str | None = None
    recursive: bool = False
    force: bool = False
    to: str | None = None


@value(frozen=True, slots=True)
class LoginRequest:
    """`ppcli login`. With a `token` there is nothing to ask for."""

    to: str | None = None
    email: str | None = None
    token: str | None = field(default=None, repr=False)
