"""Values and options that several commands share. Functions, as Click's types differ between versions."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from ppcli.units import parse_rate, parse_size

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

T = TypeVar("T")


def parsed_by(
    parse: Callable[[str], T],
) -> Callable[[click.Context, click.Parameter, str | None], T | None]:
    """An option's callback from a function that raises ValueError with a sentence to show."""

    def callback(context: click.Context, param: click.Parameter, value: str | None) -> T | None:
        try:
            return None if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error), context, param) from None

    return callback


def environment(variable: str, parse: Callable[[str], T]) -> T | None:
    """What a variable says, for a command that has no option for it; None where it is unset or empty."""
    text = os.environ.get(variable)
    try:
        return parse(text) if text else None
    except ValueError as error:
        raise click.UsageError(f"Invalid value for {variable}: {error}") from None


def parse_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{text!r} is not a number of seconds; write it like 30 or 0.5.")
    return seconds


def parse_count(text: str) -> int:
    count = int(text) if re.fullmatch("[0-9]{1,9}", text.strip()) else 0
    if count < 1:
        raise ValueError(f"{text!r} is not a whole number from 1 on.")
    return count


def complete_path(_context: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Let the shell complete a path. Whether it is there is for the use case to find out."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def complete_job(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """The jobs that a command is about and that are not yet named. Whatever goes wrong, the shell is told nothing."""
    from click.shell_completion import CompletionItem

    from ppcli.cli.streams import escape

    with contextlib.suppress(Exception):
        from ppcli.app import suggesting

        named = context.params.get(param.name or "") or ()
        finished = context.command.name == "status"
        found = suggesting.jobs(incomplete, but=named, finished=finished)
        return [CompletionItem(job, help=escape(told)) for job, told in found]
    return []


size_value = parsed_by(parse_size)
count_value = parsed_by(parse_count)
rate_value = parsed_by(parse_rate)
seconds_value = parsed_by(parse_seconds)

to_option = click.option("--to", metavar="T", help="The target: a URL, a directory, or a name of config.toml.")
yes_option = click.option(
    "--yes", is_flag=True, envvar="PPCLI_YES", help="Answer yes to every question (or PPCLI_YES)."
)
