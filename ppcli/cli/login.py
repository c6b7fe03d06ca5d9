"""`ppcli login` and `ppcli logout`."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from ppcli.cli.call import Call
from ppcli.cli.options import Command, Globals
from ppcli.cli.streams import Stream, escape
from ppcli.errors import Usage
from ppcli.requests import LoginRequest, Prompt

_target = click.argument("target", required=False, metavar="[T]")


@click.command(cls=Command, short_help="Get a token from a target, and keep it.")
@_target
@click.option("--email", metavar="E", help="The account; without it, you are asked.")
@click.option("--token-stdin", is_flag=True, help="Keep the token that stdin holds; no password is asked for.")
@click.pass_context
def login(context: click.Context, target: str | None, email: str | None, token_stdin: bool) -> Call:
    """Get a token from a target, for an e-mail address and a password, and keep it.

    \b
      ppcli login https://uploads.example.org
      pass show uploads | ppcli login https://uploads.example.org --token-stdin

    The password is asked for on the terminal and not kept. The token goes to this server only; PPCLI_TOKEN,
    PPCLI_TOKEN_FILE and the token_command of config.toml count before it.
    """
    if token_stdin and email is not None:
        raise click.UsageError("--token-stdin takes no --email.")
    options = context.ensure_object(Globals)
    request = LoginRequest(to=target, email=email, token=_stdin() if token_stdin else None)
    return Call(lambda app: app.login(request, make_prompt(options), _make_tell(options)))


@click.command(cls=Command)
@_target
@click.pass_context
def logout(context: click.Context, target: str | None) -> Call:
    """Forget the token that `ppcli login` keeps for a target.

    \b
      ppcli logout https://uploads.example.org
    """
    options = context.ensure_object(Globals)
    return Call(lambda app: app.logout(target, _make_tell(options)))


def make_prompt(options: Globals) -> Prompt:
    """The function that asks a person on the terminal: stdin and stderr."""

    def prompt(question: str, hidden: bool) -> str | None:
        if options.json or sys.stdin is None or not (sys.stdin.isatty() and Stream("stderr").isatty()):
            return None
        asked = f"{escape(question)}: "
        if hidden:
            from getpass import getpass

            try:
                return getpass(asked)
            except EOFError:
                return ""
        click.echo(asked, nl=False, err=True)
        return sys.stdin.readline().strip()

    return prompt


def _make_tell(options: Globals) -> Callable[[str], None]:
    def tell(text: str) -> None:
        if not (options.quiet or options.json):
            Stream("stderr").line(f"ppcli: {escape(text)}")

    return tell


def _stdin() -> str:
    if sys.stdin is None:
        raise Usage("Stdin is closed, so no token can be read.", hint="Pipe one in.", reason="token")
    try:
        return sys.stdin.read(1 << 17)
    except UnicodeDecodeError:
        return "\ufffd"  # no token either
