"""The entry point. Importing it costs Click and nothing else; commands and listeners load when they are used."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from ppcli.cli import streams
from ppcli.cli.options import Globals, Group, asks_for_json

_COMMANDS = {
    "put": "ppcli.cli.put:put",
    "resume": "ppcli.cli.jobs:resume",
    "status": "ppcli.cli.jobs:status",
    "cancel": "ppcli.cli.jobs:cancel",
    "ls": "ppcli.cli.objects:list_objects",
    "get": "ppcli.cli.objects:get",
    "rm": "ppcli.cli.objects:rm",
    "pads": "ppcli.cli.objects:pads",
    "login": "ppcli.cli.login:login",
    "logout": "ppcli.cli.login:logout",
    "serve": "ppcli.cli.serve:serve",
    "completion": "ppcli.cli.completion:completion",
}

_EPILOG = """\b
Exit codes:
   0  done                          8  a state file is damaged; it was set aside
   1  a bug, please report it       9  no such job, or no such name
   2  wrong arguments              10  several files, some failed
   3  credentials are needed       11  this machine: disk full, not writable
   4  the source is unreadable     75  network or server trouble: `ppcli resume`
   5  the target refuses          130  stopped by Ctrl-C: `ppcli resume`
   6  damaged on the way          143  stopped by SIGTERM: `ppcli resume`
   7  another process runs the job
"""


@click.group(cls=Group, lazy=_COMMANDS, epilog=_EPILOG)
def cli() -> None:
    """Put files somewhere else and never lose your place.

    \b
      ppcli put big.iso --to /mnt/nas
      ppcli status
      ppcli resume

    Kill it anywhere and run it again: only what is missing is sent.
    """


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Run one command line and exit with its code."""
    streams.prepare()
    try:
        code = run(sys.argv[1:] if words is None else list(words))
    except KeyboardInterrupt:  # so early or so late that there is nothing to say about it
        code = 130
    for name in ("stdout", "stderr"):
        streams.Stream(name).flush()
    sys.exit(code)


def run(words: list[str]) -> int:
    """Parse one command line, call its use case, and give the exit code. Everything is said by then."""
    if "_PPCLI_COMPLETE" in os.environ:
        return _complete()
    options = Globals(json=asks_for_json(words))
    try:
        with cli.make_context("ppcli", words, obj=options) as context:
            call = cli.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except BrokenPipeError:  # nobody reads the help to its end
        return 0
    except (Exception, KeyboardInterrupt) as error:
        from ppcli.cli.boundary import refuse

        return refuse(error, options)
    if call is None:
        return 0
    from ppcli.cli.boundary import execute

    return execute(call, options)


def _complete() -> int:
    from click.shell_completion import shell_complete

    from ppcli.cli.completion import PROGRAM, VARIABLE

    return shell_complete(cli, {}, PROGRAM, VARIABLE, os.environ[VARIABLE])
