"""What every command understands: the global options, before and after the subcommand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

import click

from ppcli import __version__

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

TAKES_VALUE = frozenset(
    {
        "--to",
        "--name",
        "--exclude",
        "--files-from",
        "--chunk-size",
        "--jobs",
        "--reserve-jobs",
        "--retries",
        "--limit-rate",
        "--wait-lock",
        "--email",
        "--host",
        "--port",
        "--data",
        "--certfile",
        "--keyfile",
        "--add-user",
        "--new-token",
        "--revoke-token",
    }
)
"""The options whose next word is their value; a test compares them with the commands."""


class Globals:
    """The global options of this run."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self.quiet = False
        self.verbose = False
        self.no_color = False


def asks_for_json(words: Iterable[str]) -> bool:
    """Whether a command line asks for `--json`, told before it is parsed, so that usage errors are JSON as well."""
    rest = iter(words)
    for word in rest:
        if word == "--":
            return False
        if word == "--json":
            return True
        if word in TAKES_VALUE:
            next(rest, None)
    return False


def _remember(context: click.Context, option: click.Parameter, value: bool) -> None:
    """Switch on what was given; the same option that is absent at the other place changes nothing."""
    if value and option.name:
        setattr(context.ensure_object(Globals), option.name, True)


def _show_version(context: click.Context, _option: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        click.echo(f"ppcli {__version__}")
        context.exit()


def _global_options() -> list[click.Parameter]:
    switches = [
        (["--json"], "One JSON object per line on stdout."),
        (["-q", "--quiet"], "Results and errors only."),
        (["-v", "--verbose"], "More on stderr, tracebacks included."),
        (["--no-color"], "No colours (NO_COLOR does the same)."),
    ]
    options: list[click.Parameter] = [
        click.Option(names, is_flag=True, expose_value=False, callback=_remember, help=text) for names, text in switches
    ]
    version = click.Option(
        ["--version"],
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_show_version,
        help="Show the version.",
    )
    return [*options, version]


def _with_globals(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a command, extended by what all commands share."""
    params = [*(attributes.get("params") or []), *_global_options()]
    return {"context_settings": CONTEXT, **attributes, "params": params}


class Command(click.Command):
    """A command that takes the global options too."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**_with_globals(attributes))


class Group(click.Group):
    """A group that takes the global options too and loads each of its commands when it is used.

    `lazy` maps a name to `module:attribute`.
    """

    command_class = Command

    def __init__(self, *, lazy: Mapping[str, str] | None = None, **attributes: Any) -> None:
        super().__init__(no_args_is_help=False, **_with_globals(attributes))
        self._lazy = lazy or {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not (args or ctx.resilient_parsing or ctx.ensure_object(Globals).json):
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._lazy[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command
