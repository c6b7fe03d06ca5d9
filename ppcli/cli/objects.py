"""The commands about what is on a target: `ls`, `get`, `rm`, `pads recover`."""

from __future__ import annotations

import sys
from typing import Any

import click

from ppcli.cli.call import Call, View
from ppcli.cli.options import Command, Globals, Group
from ppcli.cli.params import complete_path, to_option
from ppcli.errors import Local
from ppcli.requests import GetRequest, ListRequest, RemoveRequest


@click.command("ls", cls=Command)
@click.argument("prefix", default="", metavar="[PREFIX]")
@click.option("-l", "long", is_flag=True, help="Size, modified, digest and name.")
@click.option("--incomplete", is_flag=True, help="Uploads that were begun and never completed.")
@to_option
def list_objects(prefix: str, long: bool, incomplete: bool, to: str | None) -> Call:
    """List the names on a target.

    \b
      ppcli ls
      ppcli ls -l trip/ --to /mnt/nas
    """
    request = ListRequest(prefix=prefix, incomplete=incomplete, to=to)
    return Call(lambda app: app.list(request), View(long=long))


@click.command(cls=Command)
@click.argument("name")
@click.argument("dest", required=False, shell_complete=complete_path)
@click.option("-r", "recursive", is_flag=True, help="Everything below NAME.")
@click.option("--force", is_flag=True, help="Replace a different file that is there already.")
@to_option
@click.pass_context
def get(context: click.Context, /, **options: Any) -> Call:
    """Fetch a name, or a location, into this directory or DEST.

    \b
      ppcli get big.iso
      ppcli get trip/ photos -r --to /mnt/nas
      ppcli get backup.tar - | tar x

    DEST - is stdout. A fetch that was cut short goes on where it stopped; what arrives is verified.
    """
    request = GetRequest(**options)
    if request.dest == "-" and context.ensure_object(Globals).json:
        raise click.UsageError("DEST - and --json both want stdout.")
    if request.dest == "-" and sys.stdout is None:
        raise Local("Stdout is closed, so nothing can be written to it.", hint="Name a file as DEST.", reason="io")
    return Call(lambda app: app.get(request), View(moved="received"))


@click.command(cls=Command)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("-r", "recursive", is_flag=True, help="Everything below each NAME.")
@to_option
def rm(names: tuple[str, ...], recursive: bool, to: str | None) -> Call:
    """Remove names, or locations, from a target.

    \b
      ppcli rm old.iso
      ppcli rm -r trip/ --to /mnt/nas
    """
    request = RemoveRequest(names=names, recursive=recursive, to=to)
    return Call(lambda app: app.remove(request))


@click.group(cls=Group)
def pads() -> None:
    """Look after a pad store."""


@pads.command()
@click.argument("target", required=False, metavar="[T]")
def recover(target: str | None) -> Call:
    """Rebuild the index of a pad store from the user key and the pads alone.

    \b
      ppcli pads recover
      ppcli pads recover pads:///mnt/disk/pads
    """
    return Call(lambda app: app.recover(target), View(moved="recovered"))
