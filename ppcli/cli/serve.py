"""`ppcli serve`: run a server, and make its users and tokens."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ppcli.cli.call import Call, View
from ppcli.cli.login import make_prompt
from ppcli.cli.options import Command, Globals
from ppcli.cli.params import complete_path
from ppcli.errors import Usage, not_installed
from ppcli.events import Result

if TYPE_CHECKING:
    from ppcli.app import App
    from ppcli.server.run import ServeRequest

_OWNER = "owner@localhost"


@click.command(cls=Command, short_help="Run a server that files can be put on.")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True, help="0 takes any free one.")
@click.option(
    "--data", metavar="DIR", shell_complete=complete_path, help="Where files are kept [default: the data dir]."
)
@click.option("--certfile", metavar="FILE", shell_complete=complete_path, help="A TLS certificate (PEM).")
@click.option("--keyfile", metavar="FILE", shell_complete=complete_path, help="Its key, where it is another file.")
@click.option("--insecure", is_flag=True, help="Listen beyond this computer without TLS.")
@click.option("--add-user", metavar="EMAIL", help="Make a user, or change a password, and exit.")
@click.option("--password-stdin", is_flag=True, help="With --add-user: the password is what stdin holds.")
@click.option(
    "--new-token", is_flag=False, flag_value=_OWNER, metavar="[EMAIL]", help="Print a new token of a user, and exit."
)
@click.option("--tokens", is_flag=True, help="List the tokens, by their ids, and exit.")
@click.option("--revoke-token", metavar="ID", help="End the token with this id, and exit.")
@click.pass_context
def serve(
    context: click.Context,
    host: str,
    port: int,
    data: str | None,
    certfile: str | None,
    keyfile: str | None,
    insecure: bool,
    add_user: str | None,
    password_stdin: bool,
    new_token: str | None,
    tokens: bool,
    revoke_token: str | None,
) -> Call:
    """Run a server that `ppcli put` and PutPlace clients can upload to.

    \b
      ppcli serve
      ppcli put big.iso --to http://127.0.0.1:8765

    The first start makes a user and prints a token; clients on this computer find it without being told. Limits are
    the table [server] of config.toml. It takes the extra `server`: see the README.
    """
    options = context.ensure_object(Globals)
    commands = {"--add-user": add_user, "--new-token": new_token, "--revoke-token": revoke_token}
    given = [name for name, value in commands.items() if value is not None] + ["--tokens"] * tokens
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)} are {'two' if len(given) == 2 else 'several'} commands.")
    if password_stdin and add_user is None:
        raise click.UsageError("--password-stdin goes with --add-user.")
    place = None if data is None else Path(data)
    if add_user is not None:
        return Call(lambda app: _done(_adding(app, options, place, add_user, password_stdin)))
    if new_token is not None:
        return Call(lambda app: _done(_making_token(app, place, new_token)))
    if tokens:
        return Call(lambda app: _done(_listing_tokens(app, place)))
    if revoke_token is not None:
        return Call(lambda app: _done(_revoking_token(app, place, revoke_token)))
    return Call(lambda app: _serve(app, options, host, port, place, insecure, certfile, keyfile), View())


def _serve(
    app: App,
    options: Globals,
    host: str,
    port: int,
    data: Path | None,
    insecure: bool,
    certfile: str | None,
    keyfile: str | None,
) -> Result:
    started = time.monotonic()
    _need_extra()
    from ppcli import config
    from ppcli.server import run

    request: ServeRequest = run.ServeRequest(
        host=host,
        port=port,
        data=data,
        insecure=insecure,
        certfile=None if certfile is None else Path(certfile),
        keyfile=None if keyfile is None else Path(keyfile),
        verbose=options.verbose,
        quiet_stderr=options.json,
    )
    run.serve(request, config.dirs(), app.listener)
    return Result(None, ok=True, exit_code=0, elapsed=round(time.monotonic() - started, 3))


def _adding(app: App, options: Globals, data: Path | None, email: str, from_stdin: bool) -> Callable[[], None]:
    def work() -> None:
        from ppcli import config
        from ppcli.server import accounts

        password = _stdin_password() if from_stdin else _asked_password(options, email)
        app.listener.hear(accounts.add_user(config.dirs(), data, email, password))

    return work


def _making_token(app: App, data: Path | None, email: str) -> Callable[[], None]:
    def work() -> None:
        from ppcli import config
        from ppcli.server import accounts

        app.listener.hear(accounts.new_token(config.dirs(), data, email))

    return work


def _listing_tokens(app: App, data: Path | None) -> Callable[[], None]:
    def work() -> None:
        from ppcli import config
        from ppcli.server import accounts

        for token in accounts.tokens(config.dirs(), data):
            app.listener.hear(token)

    return work


def _revoking_token(app: App, data: Path | None, prefix: str) -> Callable[[], None]:
    def work() -> None:
        from ppcli import config
        from ppcli.server import accounts

        app.listener.hear(accounts.revoke_token(config.dirs(), data, prefix))

    return work


def _done(work: Callable[[], None]) -> Result:
    started = time.monotonic()
    work()
    return Result(None, ok=True, exit_code=0, elapsed=round(time.monotonic() - started, 3))


def _stdin_password() -> str:
    text = "" if sys.stdin is None else sys.stdin.readline()
    return text.rstrip("\r\n")


def _asked_password(options: Globals, email: str) -> str:
    prompt = make_prompt(options)
    password = prompt(f"Password of {email}", True)
    if password is None:
        raise Usage("There is no terminal to ask for the password on.", hint="Use --password-stdin.", reason="password")
    if prompt("The same again", True) != password:
        raise Usage("The two passwords differ.", hint="Run the same command again.", reason="password")
    return password


def _need_extra() -> None:
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise not_installed("server", "ppcli serve") from error
