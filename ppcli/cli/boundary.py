"""The one error boundary: runs a use case, and turns whatever comes out of it into a result, a listener and a code."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn, Protocol

import click

from ppcli.cli.call import Call, View
from ppcli.cli.options import Globals
from ppcli.cli.streams import Stream, escape
from ppcli.errors import Damaged, Integrity, Internal, Interrupted, Local, PpcliError, StepFailure, Temporary, Usage
from ppcli.events import ErrorInfo, Listener, Result
from ppcli.requests import Ask


class Display(Listener, Protocol):
    """A listener that leaves the terminal as it should be when it is closed, which may happen more than once."""

    def close(self) -> None: ...

    def last_words(self) -> None:
        """The process ends at once: say how to go on, without a lock and without waiting for anybody."""
        ...


class _Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP outside the part of a use case that handles signals itself."""


def execute(call: Call, options: Globals) -> int:
    """Run the use case of a call, show its events and its one result, and give the exit code."""
    started = time.monotonic()
    out, err = Stream("stdout"), Stream("stderr")
    display = choose_display(options, call.view, out, err)
    try:
        with _termination_raises():
            try:
                result = _run(call, display, make_ask(options))
            except (Exception, KeyboardInterrupt) as error:
                result = _failure(error, options, time.monotonic() - started)
        display.hear(result)
    finally:
        display.close()
    return _delivered(result, call, out, None if options.json else err)


def refuse(error: BaseException, options: Globals) -> int:
    """Report a command line that could not be parsed, and give the exit code."""
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "ppcli"
        error = Usage(_sentence(error), hint=f"Run '{path} --help' to see how it is used.")
    display = choose_display(options, View(), Stream("stdout"), Stream("stderr"))
    result = _failure(error, options, 0.0)
    display.hear(result)
    display.close()
    return result.exit_code


def _sentence(error: click.ClickException) -> str:
    """What Click says, in one line; a value from the environment is called by its variable."""
    if isinstance(error, click.BadParameter) and error.ctx and error.param and error.param.name:
        origin = error.ctx.get_parameter_source(error.param.name)
        if origin is click.core.ParameterSource.ENVIRONMENT:
            error.param_hint = str(error.param.envvar)
    said = " ".join(error.format_message().split())
    return said if said.endswith((".", "?", "?)")) else f"{said}."


def choose_display(options: Globals, view: View, out: Stream, err: Stream) -> Display:
    """JSON where it was asked for, bars on a terminal, else plain lines."""
    if options.json:
        from ppcli.cli.json_lines import JsonLines

        return JsonLines(out, quiet=options.quiet)
    if err.isatty() and not options.quiet and os.environ.get("TERM") != "dumb":
        from ppcli.cli.bars import Bars

        return Bars(view, out=out, err=err, no_color=options.no_color)
    from ppcli.cli.plain import Plain

    return Plain(view, out=out, err=err, quiet=options.quiet)


def make_ask(options: Globals) -> Ask:
    """The function that asks a person on the terminal: stdin and stderr."""

    def ask(question: str) -> bool | None:
        if options.json or sys.stdin is None or not (sys.stdin.isatty() and Stream("stderr").isatty()):
            return None
        while True:
            click.echo(f"{escape(question)} [y/N] ", nl=False, err=True)
            answer = sys.stdin.readline().strip().lower()
            if answer in ("y", "yes"):
                return True
            if answer in ("", "n", "no"):
                return False

    return ask


def _run(call: Call, display: Display, ask: Ask) -> Result:
    from ppcli.app import App

    return call.use_case(App(display, ask, display.last_words))


def _failure(error: BaseException, options: Globals, elapsed: float) -> Result:
    """The result of a command that raised: before it had a job, or before it could go on with one, so that in either
    case it is to be run again."""
    if options.verbose and not isinstance(error, Usage):
        for line in "".join(traceback.format_exception(error)).splitlines():
            Stream("stderr").line(escape(line))
    if isinstance(error, KeyboardInterrupt):
        code = 143 if isinstance(error, _Terminated) else 130
        error = Interrupted(code, job=False)
    elif isinstance(error, StepFailure):
        error = _unanswered(error)
    elif not isinstance(error, PpcliError):
        error = _bug(error)
    info = ErrorInfo(error.kind, error.reason, error.message, error.hint_without_job, error.retryable)
    return Result(job=None, ok=False, exit_code=error.exit_code, elapsed=round(elapsed, 3), error=info)


def _unanswered(error: StepFailure) -> PpcliError:
    """A call to a target failed where nothing tried it again: trouble of the target or the way there, not a bug."""
    said = f"A call to the target failed: {str(error).rstrip('.')}."
    if isinstance(error, Damaged):
        return Integrity(said, hint="Check the target's disk, then run the same command again.", reason="damaged")
    return Temporary(said, hint="Run the same command again later.", reason=getattr(error, "reason", "retries"))


def _bug(error: BaseException) -> Internal:
    """What to say about an exception that nobody expected. Names the log with its traceback."""
    log = getattr(error, "log_path", None) or _write_crash_log(error)
    where = f"the log {log}" if log else "the output of the same command with -v"
    return Internal(
        f"This is a bug in ppcli: {_named(error)}.",
        hint=f"Please report it with {where}; everything confirmed is kept, and the same command goes on from there.",
    )


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _write_crash_log(error: BaseException) -> Path | None:
    """Append the traceback to a private file in the data dir; None where that cannot be done."""
    from ppcli.disk import make_dir, open_private

    try:
        from platformdirs import user_data_path

        directory = Path(os.environ.get("PPCLI_DATA_DIR") or user_data_path("ppcli"))
        make_dir(directory)
        path = directory / "ppcli-crash.log"
        with open(open_private(path, os.O_WRONLY | os.O_APPEND), "a", errors="backslashreplace") as log:
            log.write(time.strftime("%Y-%m-%dT%H:%M:%SZ\n", time.gmtime()))
            traceback.print_exception(error, file=log)
    except (OSError, RuntimeError):  # RuntimeError: no home directory
        return None
    return path


def _delivered(result: Result, call: Call, out: Stream, err: Stream | None) -> int:
    """The exit code, given that stdout may have failed. A reader that left is no failure, a full disk is one.

    `put` and `resume` end by what they did on the target, and say it; for the others stdout is all they do.
    """
    failure = out.failure
    if failure is None or isinstance(failure, BrokenPipeError) or not result.ok:
        return result.exit_code
    error = Local(f"Could not write to stdout: {failure.strerror}.", hint="Check where it goes.", reason="io")
    if err is not None:
        err.line(f"ppcli: {error.message}\nppcli: {error.hint}")
    return result.exit_code if call.view.locations else error.exit_code


@contextmanager
def _termination_raises() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end a command the way Ctrl-C does, except where they are ignored (nohup)."""

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        raise _Terminated

    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
