"""One bar, for rich: what is done and what is left differ in more than their colour, which may not be shown or seen."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.segment import Segment

_LINES = ("━", "╸", "─")
_ASCII = ("#", "", ".")
"""What is done, half of it, what is left."""


class Bar:
    """As wide as there is room. It is full only when `done` is `total`; where nobody knows the total (None), empty."""

    def __init__(self, done: int, total: int | None, style: str) -> None:
        self._done = done
        self._total = total
        self._style = style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        full, half, left = _ASCII if options.ascii_only or options.legacy_windows else _LINES
        width, total = options.max_width, self._total
        halves = 2 * width * self._done // total if total else 0
        done = full * (halves // 2) + half * (halves % 2)
        yield Segment(done, console.get_style("bar.finished" if halves == 2 * width else self._style))
        yield Segment(left * (width - len(done)), console.get_style("bar.back"))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(4, options.max_width)
