"""`ppcli completion`: the scripts that make a shell complete ppcli's command line."""

from __future__ import annotations

from typing import cast

import click
from click.shell_completion import get_completion_class

from ppcli.cli.options import Command

PROGRAM = "ppcli"
VARIABLE = "_PPCLI_COMPLETE"
"""Set by the shell's script when it asks ppcli for completions."""


def script(shell: str) -> str:
    """The script for one shell: Click's, made from its template, since Click's own method runs bash."""
    from ppcli.cli.main import cli

    form = get_completion_class(shell)
    assert form is not None
    completer = form(cli, {}, PROGRAM, VARIABLE)
    return completer.source_template % cast(dict[str, str], completer.source_vars())


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
      eval "$(ppcli completion bash)"
      ppcli completion zsh > ~/.zfunc/_ppcli
      ppcli completion fish > ~/.config/fish/completions/ppcli.fish
    """
    click.echo(script(shell), nl=False)
