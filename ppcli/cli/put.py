"""`ppcli put`."""

from __future__ import annotations

import sys
from typing import Any

import click

from ppcli.cli.call import Call, View
from ppcli.cli.options import Command
from ppcli.cli.params import complete_path, count_value, rate_value, seconds_value, size_value, to_option, yes_option
from ppcli.errors import SourceError
from ppcli.requests import DEFAULT_JOBS, DEFAULT_RETRIES, PutRequest


@click.command(cls=Command)
@click.argument("sources", nargs=-1, metavar="SOURCE...", shell_complete=complete_path)
@to_option
@click.option("--name", metavar="N", help="The name on the target; `P/` goes before every name.")
@click.option("-r", "recursive", is_flag=True, help="Send directories, with all that is below.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave these out (.gitignore patterns); repeatable.")
@click.option(
    "--files-from", metavar="FILE|-", shell_complete=complete_path, help="Read the sources from a file, one a line."
)
@click.option("-0", "null_separated", is_flag=True, help="In --files-from, names end with NUL.")
@click.option("--chunk-size", callback=size_value, metavar="SIZE", help="Bytes per chunk, like 8MiB.")
@click.option(
    "--jobs",
    callback=count_value,
    default=str(DEFAULT_JOBS),
    envvar="PPCLI_JOBS",
    metavar="N",
    help=f"At most N uploads at once ({DEFAULT_JOBS}; or PPCLI_JOBS).",
)
@click.option(
    "--reserve-jobs",
    callback=count_value,
    default=str(DEFAULT_JOBS),
    metavar="N",
    help=f"At most N reservations at once ({DEFAULT_JOBS}).",
)
@click.option(
    "--retries",
    callback=count_value,
    default=str(DEFAULT_RETRIES),
    metavar="N",
    help=f"Attempts per chunk and step ({DEFAULT_RETRIES}).",
)
@click.option(
    "--limit-rate",
    callback=rate_value,
    envvar="PPCLI_LIMIT_RATE",
    metavar="RATE",
    help="Bytes per second, like 2MiB (or PPCLI_LIMIT_RATE).",
)
@click.option("--checksum", is_flag=True, help="Read every file again, also where it looks unchanged.")
@click.option("--immutable", is_flag=True, help="Never replace other content under a name.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first file that fails.")
@click.option("--fresh", is_flag=True, help="Cancel unfinished work on these files and start over.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent; send nothing.")
@click.option(
    "--wait-lock", callback=seconds_value, default="0", metavar="SECONDS", help="Wait for another run of this job."
)
@yes_option
def put(**options: Any) -> Call:
    """Send files to a target, or go on where an earlier run stopped.

    \b
      ppcli put big.iso --to /mnt/nas
      ppcli put -r photos --name trip/ --to /mnt/nas
      tar c . | ppcli put - --name backup.tar

    SOURCE is a file, a directory with -r, or - for stdin. Stdin is written to a local spool first and sent after
    its end, so it needs --name; a producer that dies looks like EOF, and what it wrote so far is sent.

    One location a file is printed on stdout. When a run is cut short, the same command goes on with what is missing.
    """
    request = PutRequest(**options)
    if sys.stdin is None and ("-" in request.sources or request.files_from == "-"):
        raise SourceError("Stdin is closed, so it cannot be read.", hint="Pipe something in.", reason="unreadable")
    return Call(lambda app: app.put(request), View(locations=True, moved="sent"))
