"""What a parsed command line comes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ppcli.app import App
    from ppcli.events import Result


@dataclass(frozen=True, slots=True)
class View:
    """How people see the results on stdout.

    locations   the location of every file that is there now
    long        objects with size, modified and digest, not the name alone
    details     a job as a block of lines, not as one line
    moved       what was done to the bytes, for the line at the end; without it there is no such line
    nothing     what to say on stderr when there was nothing to show or do
    """

    locations: bool = False
    long: bool = False
    details: bool = False
    moved: str = ""
    nothing: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """The one use case to run, and how its results are shown."""

    use_case: Callable[[App], Result]
    view: View = View()
