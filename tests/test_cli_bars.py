"""The bars, drawn by a recording console: they fit, they tell the truth, and nothing tears them."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace

import pytest
from rich.console import Console
from scripted_app import COMPLETED, GONE, JOB, MIB, STARTED, Script, Tty, ended, progress, run

from ppcli.cli.bars import Bars
from ppcli.cli.call import View
from ppcli.cli.streams import Stream
from ppcli.events import Event, JobFinished, JobStarted, Receiving, ReservationProgress, Retrying, Stopping
from ppcli.model import JobState

PAUSED = JobFinished(JOB, JobState.PAUSED, 75)
DONE = JobFinished(JOB, JobState.COMPLETED, 0)
RETRY = Retrying(JOB, "a\x1b.bin", 3, "upload", 1, 0.5, "connection reset")
_PIECE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|[\r\n]|[^\x1b\r\n]+")


def seen(output: str) -> list[str]:
    """The lines on a terminal (a very tall and wide one) after some output."""
    lines, row, column = [""], 0, 0
    for piece in _PIECE.finditer(output):
        text, command = piece[0], piece[2]
        if text == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif text == "\r":
            column = 0
        elif command == "A":
            row -= int(piece[1] or 1)
        elif command == "K":
            lines[row] = ""
        elif command is None:
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
            column += len(text)
    return "\n".join(lines).rstrip("\n").split("\n")


class Sheet(io.StringIO):
    encoding = "utf-8"


class Screen:
    """Bars on a console of some width; each event comes a second after the one before."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.file = Sheet()
        console = Console(file=self.file, width=width, height=24, force_terminal=True, color_system=None)
        self.now = 0.0
        self.bars = Bars(
            View(locations=True, moved="sent"),
            out=Stream("stdout"),
            err=Stream("stderr"),
            clock=lambda: self.now,
            console=console,
        )

    def show(self, *events: Event) -> list[str]:
        """What is on the screen after the events."""
        for event in events:
            self.now += 1.0
            self.bars.hear(event)
        return seen(self.file.getvalue())


def cells(line: str) -> tuple[str, ...]:
    """A bar's line without its bar: label, percent, amounts, note."""
    return tuple(re.sub("[━╸─]", " ", line).split())


@pytest.fixture(params=[80, 140])
def screen(request: pytest.FixtureRequest) -> Screen:
    return Screen(request.param)


def test_three_bars_fit_the_width(screen: Screen) -> None:
    shown = screen.show(STARTED, ReservationProgress(JOB, 20, 25), progress(30 * MIB, 20 * MIB, 4.0 * MIB))
    drawn = shown[-3:]
    assert [cells(line) for line in drawn] == [
        ("Reserved", "80%", "20/25", "chunks"),
        ("Sent", "30%", "30.0", "MiB/100.0", "MiB", "4.0", "MiB/s"),
        ("Confirmed", "20%", "20.0", "MiB/100.0", "MiB", "20s", "left"),
    ]
    assert len(shown) == 4
    assert {len(line) for line in drawn} == {screen.width - 1}


def test_what_is_left_looks_unlike_what_is_done(screen: Screen) -> None:
    """Without a colour."""
    shown = screen.show(STARTED, ReservationProgress(JOB, 25, 25), progress(99 * MIB, 20 * MIB))[-3:]
    bars = [re.sub("[^━╸─]", "", line) for line in shown]
    assert len({*map(len, bars)}) == 1
    width = len(bars[0])
    assert bars[0] == "━" * width
    assert bars[1] != bars[0] and bars[1].startswith("━" * (width - 2))
    assert bars[2].count("━") == width // 5 and bars[2].endswith("─" * (width * 4 // 5 - 1))


def test_bars_in_ascii(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sheet, "encoding", "ascii")
    shown = screen.show(STARTED, progress(50 * MIB, 0))
    assert re.search(r" #+\.+ ", shown[-2]) and re.search(r" \.+ ", shown[-1])
    assert screen.file.getvalue().isascii()


@pytest.mark.parametrize("width", [20, 40, 63, 64])
def test_narrow_terminals_never_wrap(width: int) -> None:
    big = JobStarted(JOB, "pads:", 1, 100_000, 1023 << 40, resumed=False)
    narrow = Screen(width)
    shown = narrow.show(big, ReservationProgress(JOB, 99_999, 100_000), progress(1, 1, total=1023 << 40), PAUSED)[-3:]
    assert [line.split()[0] for line in shown] == ["Reserved", "Sent", "Confirmed"]
    assert all(len(line) < width for line in shown)


def test_a_paused_job_leaves_what_is_so(screen: Screen) -> None:
    events = [STARTED, ReservationProgress(JOB, 25, 25), progress(99 * MIB + 1023 * 1024, 60 * MIB), PAUSED]
    shown = screen.show(*events, ended(JobState.PAUSED, 75, GONE))
    assert len(shown) == 8
    assert [cells(line)[1] for line in shown[1:4]] == ["100%", "99%", "60%"]
    assert cells(shown[3])[2:] == ("60.0", "MiB/100.0", "MiB", "paused")
    assert shown[-2:] == [f"ppcli: {GONE.hint}", f"ppcli: To go on: ppcli resume {JOB}"]


def test_a_completed_job_ends_full_even_when_the_last_numbers_were_not_told(screen: Screen) -> None:
    final = screen.show(STARTED, ReservationProgress(JOB, 20, 25), progress(90 * MIB, 80 * MIB), DONE)[-3:]
    assert [cells(line)[1] for line in final] == ["100%"] * 3
    assert cells(final[2])[-1] == "completed"
    assert cells(final[1])[2:5] == ("100.0", "MiB/100.0", "MiB")


def test_a_resumed_job_starts_where_it_was(screen: Screen) -> None:
    shown = screen.show(STARTED, progress(0, 40 * MIB, 0.0))
    assert [cells(line)[1] for line in shown[-2:]] == ["40%", "40%"]
    shown = screen.show(progress(30 * MIB, 50 * MIB))
    assert [cells(line)[1] for line in shown[-2:]] == ["70%", "50%"]


def test_bars_wait_for_the_first_numbers(screen: Screen) -> None:
    screen.show(STARTED)
    screen.now += 0.5
    screen.bars.tick()
    assert "Sent" not in screen.file.getvalue()
    screen.now += 0.5
    screen.bars.tick()
    assert "Sent" in screen.file.getvalue()


def test_bytes_that_go_twice_do_not_fill_the_bar(screen: Screen) -> None:
    shown = screen.show(STARTED, progress(10 * MIB, 0), RETRY, progress(105 * MIB, 80 * MIB))
    assert cells(shown[-2])[1] == "99%"
    assert cells(screen.show(progress(105 * MIB, 100 * MIB))[-2])[1] == "100%"


def test_a_lost_session_takes_sent_back_too(screen: Screen) -> None:
    shown = screen.show(STARTED, progress(0, 0), progress(60 * MIB, 50 * MIB), progress(60 * MIB, 0))
    assert [cells(line)[1] for line in shown[-2:]] == ["0%", "0%"]
    assert [cells(line)[1] for line in screen.show(progress(80 * MIB, 10 * MIB))[-2:]] == ["20%", "10%"]


@pytest.mark.parametrize(("state", "percent"), [(JobState.FAILED, "0%"), (JobState.COMPLETED, "100%")])
def test_empty_files(screen: Screen, state: JobState, percent: str) -> None:
    empty = JobStarted(JOB, "pads:", 2, 2, 0, resumed=False)
    final = screen.show(empty, progress(0, 0, total=0), JobFinished(JOB, state, 0))[-3:]
    assert [cells(line)[1] for line in final] == [percent] * 3


def test_notices_come_above_the_bars(screen: Screen) -> None:
    shown = screen.show(STARTED, progress(10 * MIB, 0), RETRY)
    assert "a\\x1b.bin" in shown[1]
    assert "connection reset" in shown[1]
    assert [line.split()[0] for line in shown[2:]] == ["Reserved", "Sent", "Confirmed"]


def test_what_the_terminal_echoes_does_not_shift_the_bars(screen: Screen) -> None:
    screen.show(STARTED, progress(10 * MIB, 0))
    assert screen.file.getvalue().endswith("\r")
    screen.show(RETRY)
    assert screen.file.getvalue().endswith("\r")
    screen.file.write("^C")
    assert [line.split()[0] for line in screen.show(PAUSED)[2:]] == ["Reserved", "Sent", "Confirmed"]


def test_stopping_is_said_above_the_bars_and_in_them(screen: Screen) -> None:
    shown = screen.show(STARTED, progress(30 * MIB, 20 * MIB, 4.0 * MIB), Stopping(JOB, 130, 5.0))
    assert "stopping" in shown[1] and "second Ctrl-C" in shown[1]
    assert cells(shown[-1])[-1] == "stopping"
    assert cells(screen.show(PAUSED)[-1])[-1] == "paused"


def test_a_fetch_has_one_bar(screen: Screen) -> None:
    shown = screen.show(Receiving(None, 30 * MIB, 100 * MIB, 5.0 * MIB))
    assert [cells(line) for line in shown] == [
        ("Received", "30%", "30.0", "MiB/100.0", "MiB", "5.0", "MiB/s,", "14s", "left")
    ]
    assert len(shown[0]) == screen.width - 1
    assert cells(screen.show(Receiving(None, 40 * MIB, 100 * MIB, 0.0))[0])[1:] == (
        *("40%", "40.0", "MiB/100.0", "MiB", "0", "B/s"),
    )
    shown = screen.show(Receiving(None, 100 * MIB, 100 * MIB, 5.0 * MIB), replace(ended(), job=None, state=None))
    assert cells(shown[0]) == ("Received", "100%", "100.0", "MiB/100.0", "MiB", "completed")
    assert len(shown) == 2 and shown[1].startswith("ppcli: done after ")


def test_a_tree_of_unknown_size_has_no_percentage(screen: Screen) -> None:
    shown = screen.show(Receiving(None, 30 * MIB, None, 5.0 * MIB))
    assert cells(shown[0]) == ("Received", "30.0", "MiB", "5.0", "MiB/s")
    shown = screen.show(replace(ended(JobState.PAUSED, 75, GONE), job=None, state=None))
    assert cells(shown[0]) == ("Received", "30.0", "MiB", "stopped")


def test_two_jobs_at_once_have_bars_each(screen: Screen) -> None:
    other = JobStarted("8b", "pads:", 1, 1, 10, resumed=False)
    shown = screen.show(STARTED, other, progress(10 * MIB, 0), DONE)
    assert len(shown) == 8
    assert [cells(shown[row])[-1] for row in (4, 7)] == ["completed", "B"]
    screen.bars.close()
    shown = seen(screen.file.getvalue())
    assert len(shown) == 8
    assert [cells(shown[row])[-1] for row in (4, 7)] == ["completed", "stopped"]


def test_drawn_at_most_ten_times_a_second(screen: Screen) -> None:
    screen.show(STARTED, progress(0, 0))
    before = screen.file.getvalue().count("Confirmed")
    for number in range(1000):
        screen.now += 0.001
        screen.bars.hear(progress(number, 0))
    assert screen.file.getvalue().count("Confirmed") - before <= 10


def test_a_crash_leaves_the_bars_and_says_so_below() -> None:
    script = Script([STARTED, progress(30 * MIB, 20 * MIB)], KeyboardInterrupt())
    outcome = run("put", "a", script=script, typed="")
    assert outcome.code == 130
    shown = seen(outcome.err)
    assert cells(shown[3])[-1] == "stopped"
    assert shown[4] == "ppcli: stopped after 0.0s"
    assert shown[5].startswith("ppcli: Stopped by a signal")
    assert "\x1b[?25l" not in outcome.err  # the cursor is never hidden


def test_locations_stay_on_stdout_where_that_is_no_terminal() -> None:
    outcome = run("put", "a", script=Script([STARTED, progress(1, 1), COMPLETED, DONE], ended()), typed="")
    assert outcome.out == "pads:#a.bin\n"
    assert "pads:#a.bin" not in outcome.err


def test_locations_go_above_the_bars_where_both_are_one_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppcli.cli.bars.same_terminal", lambda *_: True)
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    shown = Screen(80).show(STARTED, progress(1, 1), COMPLETED)
    assert out.getvalue() == ""
    assert shown[1] == "pads:#a.bin"
    assert shown[2].startswith("Reserved")


@pytest.mark.parametrize(
    ("words", "env", "bars"),
    [
        (["put", "a"], {"TERM": "xterm"}, True),
        (["put", "a"], {"TERM": "dumb"}, False),
        (["put", "a", "-q"], {"TERM": "xterm"}, False),
        (["put", "a", "--json"], {"TERM": "xterm"}, False),
    ],
)
def test_bars_are_for_terminals(words: list[str], env: dict[str, str], bars: bool) -> None:
    outcome = run(*words, script=Script([STARTED, progress(1, 1), DONE], ended()), env=env, typed="")
    assert ("Confirmed" in outcome.err) is bars


@pytest.mark.parametrize(("words", "env"), [(["--no-color"], {}), ([], {"NO_COLOR": "1"}), ([], {})])
def test_colours_can_be_switched_off(words: list[str], env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    env = {"TERM": "xterm-256color", "COLORTERM": "", **env}
    outcome = run("put", "a", *words, script=Script([STARTED, progress(1, 1), DONE], ended()), env=env, typed="")
    assert bool(re.search(r"\x1b\[[0-9;]*[39][0-9;]*m", outcome.err)) is not bool(words or "NO_COLOR" in env)


def test_a_terminal_that_goes_away_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(Tty):
        def write(self, _text: str) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())
    bars = Bars(View(), out=Stream("stdout"), err=Stream("stderr"))
    for event in (STARTED, progress(1, 1), DONE, ended()):
        bars.hear(event)
    bars.close()
