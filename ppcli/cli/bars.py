"""The listener for a terminal: three bars per running job, everything else printed above them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import IO, cast

from rich.console import Console, Group, RenderableType
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.table import Table
from rich.text import Text

from ppcli.cli.bar import Bar
from ppcli.cli.call import View
from ppcli.cli.gauge import Download, Gauge, Hashing
from ppcli.cli.narrator import Narrator
from ppcli.cli.results import result_lines
from ppcli.cli.streams import Stream, same_terminal
from ppcli.events import (
    Event,
    HashingProgress,
    JobEvent,
    JobFinished,
    JobStarted,
    Receiving,
    ReservationProgress,
    Result,
    Retrying,
    Stopping,
    UploadProgress,
)
from ppcli.model import JobState

REFRESH = 0.1
"""Seconds between two drawings."""
PATIENCE = 1.0
"""Seconds that a job may take to say where it stands before its bars are drawn from zero."""
_TO_LINE_START = Control(ControlType.CARRIAGE_RETURN)
"""After a drawing the cursor goes here, or the `^C` that a terminal shows would wrap and shift the next drawing."""
_WIDE, _MEDIUM = 64, 40


class _Terminal(Console):
    """A console that never hides the cursor: then no way to die can leave it hidden."""

    def show_cursor(self, show: bool = True) -> bool:
        return False


class Bars:
    """Draws on stderr while jobs run; drawings are driven by `hear` and `tick`, at most ten a second.

    Bars of a finished job stay as they were at its end.
    """

    def __init__(
        self,
        view: View,
        *,
        out: Stream,
        err: Stream,
        no_color: bool = False,
        clock: Callable[[], float] = time.monotonic,
        console: Console | None = None,
    ) -> None:
        self._view = view
        self._out = out
        self._err = err
        self._shared = same_terminal(out, err)
        self._clock = clock
        self._console = console or _Terminal(
            file=cast(IO[str], err), force_terminal=True, force_interactive=True, no_color=no_color or None
        )
        self._narrator = Narrator(self._say, clock, view)
        self._gauges: dict[str | None, Gauge | Download] = {}
        self._hashing: Hashing | None = None
        self._live: Live | None = None
        self._drawn_at = 0.0

    def hear(self, event: Event) -> None:
        for line in result_lines(event, self._view):
            self._give(line)
        if isinstance(event, JobStarted | Result):
            self._hashed()
        if isinstance(event, Result):
            if None in self._gauges and event.ok:
                self._finish(None, JobState.COMPLETED)
            self.close()
        elif isinstance(event, Receiving):
            self._receive(event)
        elif isinstance(event, HashingProgress):
            self._hash(event)
        elif isinstance(event, JobEvent):
            self._measure(event)
        self._narrator.hear(event)
        if isinstance(event, JobStarted):
            self._gauges[event.job] = Gauge(event, self._clock())
        self.tick()

    def tick(self) -> None:
        now = self._clock()
        if now - self._drawn_at < REFRESH or not self._shown():
            return
        if self._live is None:
            if not any(gauge.moving or now - gauge.started_at >= PATIENCE for gauge in self._shown()):
                return
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
                get_renderable=self._draw,
            )
            self._live.start()
        self._drawn_at = now
        self._live.refresh()
        self._console.control(_TO_LINE_START)

    def close(self) -> None:
        """Leave the bars of jobs that broke off as they are."""
        for job in list(self._gauges):
            self._finish(job, None)

    def last_words(self) -> None:
        """Below the bars, which stay as they are: the cursor is on their last line."""
        below = "\n" if self._live is not None else ""
        self._err.at_once(below + self._narrator.last_words())

    def _shown(self) -> list[Gauge | Download | Hashing]:
        return [*([self._hashing] if self._hashing else []), *self._gauges.values()]

    def _receive(self, event: Receiving) -> None:
        """What a `get` fetches belongs to no job."""
        download = self._gauges.setdefault(None, Download(event, self._clock()))
        assert isinstance(download, Download)
        download.event = event

    def _hash(self, event: HashingProgress) -> None:
        if self._hashing is None:
            self._hashing = Hashing(event, self._clock())
        self._hashing.measure(event, self._clock())
        if event.bytes_hashed >= event.bytes_total:
            self._hashed()

    def _hashed(self) -> None:
        """The reading is over: its bar goes."""
        self._hashing = None
        if not self._gauges:
            self._still()

    def _still(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _measure(self, event: JobEvent) -> None:
        gauge = self._gauges.get(event.job)
        if not isinstance(gauge, Gauge):
            return
        match event:
            case UploadProgress():
                gauge.upload(event)
            case ReservationProgress():
                gauge.reserve(event)
            case Retrying():
                gauge.resend()
            case Stopping():
                gauge.stop()
            case JobFinished():
                self._finish(event.job, event.state)

    def _finish(self, job: str | None, state: JobState | None) -> None:
        """Print a job's bars for good, above those that still move."""
        gauge = self._gauges.pop(job)
        gauge.finish(state, self._clock())
        if not self._gauges:
            self._still()
        self._console.print(_drawing(gauge, self._console.width))

    def _draw(self) -> RenderableType:
        return Group(*(_drawing(gauge, self._console.width) for gauge in self._shown()))

    def _say(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)
        if self._live is not None:
            self._console.control(_TO_LINE_START)

    def _give(self, line: str) -> None:
        """A result for stdout; where that is the terminal with the bars, they make room for it."""
        if self._live is not None and self._shared:
            self._say(line)
        else:
            self._out.line(line)


def _drawing(gauge: Gauge | Download | Hashing, width: int) -> Table:
    """Lines that fit the terminal; the last column stays free, as some terminals wrap when it is written."""
    grid = Table.grid(padding=(0, 1))
    grid.width = max(width - 1, 1)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(no_wrap=True, justify="right")
    if width >= _WIDE:
        grid.add_column(no_wrap=True, justify="right", min_width=21)
    if width >= _MEDIUM:
        grid.add_column(no_wrap=True, justify="right", min_width=12)
    style = "bar.complete" if gauge.completed or not gauge.finished else "yellow"
    for row in gauge.rows():
        cells: list[RenderableType] = [row.label, Bar(row.done, row.total, style), row.percent]
        if width >= _WIDE:
            cells.append(row.amount)
        if width >= _MEDIUM:
            cells.append(row.note)
        grid.add_row(*cells)
    return grid
