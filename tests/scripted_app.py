"""A stand-in for `ppcli.app`: replays events, then returns a result or raises. Run as a script it is `ppcli` with it.

python scripted_app.py SCENARIO WORD...
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from ppcli.cli.main import main
from ppcli.errors import Busy
from ppcli.events import (
    ByteCounts,
    ChunkConfirmed,
    ChunkCounts,
    ErrorInfo,
    Event,
    FileCompleted,
    FileFailed,
    FilePlanned,
    FileSkipped,
    HashingProgress,
    IncompleteListed,
    JobFinished,
    JobStarted,
    JobStatus,
    Listener,
    ObjectListed,
    ReservationPlanned,
    ReservationProgress,
    Result,
    Retrying,
    Serving,
    TokenCreated,
    TokenListed,
    TokenRevoked,
    UploadProgress,
    UserAdded,
    WarningRaised,
)
from ppcli.model import Action, Evidence, JobState
from ppcli.requests import Ask

MIB = 1 << 20
JOB = "7f3a9c"
STARTED = JobStarted(JOB, "pads:", files=1, chunks=25, bytes=100 * MIB, resumed=False)
COMPLETED = FileCompleted(
    JOB, "a.bin", "/x/a.bin", 100 * MIB, "pads:#a.bin", "sha256:00ff", Action.SENT, 100 * MIB, Evidence.CONTENT
)
GONE = ErrorInfo("temporary", None, "The server does not answer.", "Look at the network.", retryable=True)
STATUS = JobStatus(
    JOB,
    state=JobState.PAUSED,
    target="pads:",
    resumable=True,
    created="2026-01-02T03:04:05Z",
    updated="2026-01-02T03:05:05.250Z",
    pid=None,
    files=3,
    sources=("/x/a.bin", "/x/b.bin"),
    chunks=ChunkCounts(planned=10, reserved=3, uploaded=2, confirmed=10, total=25),
    bytes=ByteCounts(confirmed=40 * MIB, total=100 * MIB),
    evidence=Evidence.ETAG,
    expires_at="2026-01-09T03:04:05Z",
    last_error=GONE,
    resume_command=f"ppcli resume {JOB}",
)


def progress(sent: int, confirmed: int, rate: float = 5.0 * MIB, *, total: int = 100 * MIB) -> UploadProgress:
    return UploadProgress(JOB, sent, confirmed, total, rate)


def ended(state: JobState = JobState.COMPLETED, code: int = 0, error: ErrorInfo | None = None) -> Result:
    """The result of a job with one file that sent 100 MiB in 20 seconds."""
    done = int(state is JobState.COMPLETED)
    return Result(
        JOB,
        ok=code == 0,
        exit_code=code,
        state=state,
        target="pads:",
        files_total=1,
        files_completed=done,
        bytes_sent=100 * MIB,
        elapsed=20.0,
        error=error,
    )


OK = Result(None, ok=True, exit_code=0)

EVERY_EVENT: tuple[Event, ...] = (
    STARTED,
    ReservationProgress(JOB, reserved=20, total=25),
    progress(30 * MIB, 20 * MIB),
    HashingProgress(None, bytes_hashed=10 * MIB, bytes_total=20 * MIB),
    ReservationPlanned(None, "pads+https://host", 21, 4, 0, 1, 4 * MIB, 84 * MIB, 16 * MIB, 0),
    ChunkConfirmed(JOB, "a.bin", chunk=0, confirmed=1, total=25, evidence=Evidence.CONTENT),
    Retrying(JOB, "a.bin", chunk=None, step="open", attempt=1, delay=0.5, cause="connection refused"),
    FilePlanned(None, "a.bin", "/x/a.bin", size=100 * MIB, chunks=25, chunk_size=4 * MIB),
    COMPLETED,
    FileFailed(JOB, "b.bin", "/x/b.bin", size=None, kind="source", reason="missing", message="There is no /x/b.bin."),
    FileSkipped(JOB, "c", "/x/c", size=None, reason="link to a directory"),
    WarningRaised(None, "default_target", "Stored on this computer only."),
    STATUS,
    ObjectListed("a.bin", 100 * MIB, "sha256:00ff", "2026-01-02T03:04:05Z"),
    IncompleteListed("u1", "a.bin", None, 5, None),
    Serving("http://127.0.0.1:8765", "127.0.0.1", 8765, "/srv/ppcli", pid=4711, version="0.1.0"),
    TokenCreated("owner@localhost", "not-a-real-token", saved=None, id="00ff00ff00ff00ff"),
    TokenListed("00ff00ff00ff00ff", "owner@localhost", "2026-01-02T03:04:05Z", None),
    TokenRevoked("00ff00ff00ff00ff", "owner@localhost"),
    UserAdded("you@example.org"),
    JobFinished(JOB, JobState.PAUSED, 75),
    ended(JobState.PAUSED, 75, GONE),
)


@dataclass
class Script:
    """What the next use case does: `events` are told, then `end` is returned or raised. It keeps
    its requests and the answers to its `question`.

    `signal` is sent to this process first.
    """

    events: Sequence[Event] = ()
    end: Result | BaseException = OK
    question: str | None = None
    signal: str | None = None
    requests: list[Any] = field(default_factory=list)
    answers: list[bool | None] = field(default_factory=list)

    def play(self, listener: Listener, ask: Ask, request: Any) -> Result:
        self.requests.append(request)
        if self.question is not None:
            self.answers.append(ask(self.question))
        if self.signal is not None:
            os.kill(os.getpid(), signal.Signals[self.signal])
        for event in self.events:
            listener.hear(event)
            listener.tick()
        if isinstance(self.end, BaseException):
            raise self.end
        return self.end

    def module(self) -> types.ModuleType:
        """A module to stand in for `ppcli.app`."""
        script = self

        class App:
            def __init__(self, listener: Listener, ask: Ask, _last_words: Callable[[], None]) -> None:
                self._listener = listener
                self._ask = ask

            def __getattr__(self, use_case: str) -> Any:
                return lambda request: script.play(self._listener, self._ask, (use_case, request))

        module = types.ModuleType("ppcli.app")
        module.__dict__["App"] = App
        return module


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(
    *words: str, script: Script | None = None, env: dict[str, str] | None = None, typed: str | None = None
) -> Outcome:
    """Run ppcli in this process. With `typed`, stdin and stderr are a terminal on which that is typed."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PPCLI_")} | (env or {})
    out = io.StringIO()
    err = io.StringIO() if typed is None else Tty()
    stdin = io.StringIO() if typed is None else Tty(typed)
    with (
        mock.patch.dict(os.environ, clean, clear=True),
        mock.patch.dict(sys.modules, {"ppcli.app": (script or Script()).module()}),
        mock.patch.object(sys, "stdin", stdin),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main(words)
        except SystemExit as end:
            assert isinstance(end.code, int)
            return Outcome(end.code, out.getvalue(), err.getvalue())


SCENARIOS = {
    "sent": Script([STARTED, COMPLETED, JobFinished(JOB, JobState.COMPLETED, 0)], ended()),
    "many": Script([STARTED, *[COMPLETED] * 5000, JobFinished(JOB, JobState.COMPLETED, 0)], ended()),
    "paused": Script([STARTED, COMPLETED, JobFinished(JOB, JobState.PAUSED, 75)], ended(JobState.PAUSED, 75, GONE)),
    "listed": Script([ObjectListed("a\udcff\x1b[31m", 1, None, None)]),
    **{f"waits-{name}": Script(signal=f"SIG{name}") for name in ("INT", "TERM", "HUP")},
    "interrupted": Script(end=KeyboardInterrupt()),
    "busy": Script(end=Busy("Process 12 on ci-3 runs this job.", hint="Wait for it, or give --wait-lock.")),
}

if __name__ == "__main__":
    sys.modules["ppcli.app"] = SCENARIOS[sys.argv.pop(1)].module()
    main()
