"""What people read without a terminal: sentences on stderr, results on stdout, errors, questions."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from scripted_app import (
    COMPLETED,
    EVERY_EVENT,
    GONE,
    JOB,
    MIB,
    STARTED,
    Script,
    ended,
    progress,
    run,
)

from ppcli.cli import sentences
from ppcli.cli.call import View
from ppcli.cli.plain import Plain
from ppcli.cli.streams import Stream, escape
from ppcli.errors import Busy, Internal
from ppcli.events import (
    FileFailed,
    FilePlanned,
    IncompleteListed,
    JobFinished,
    ObjectListed,
    Receiving,
    ReservationPlanned,
    ReservationProgress,
    Retrying,
    WarningRaised,
)
from ppcli.model import JobState
from ppcli.retry import Step

FAILED = FileFailed(JOB, "b.bin", "/x/b.bin", None, "source", "missing", "There is no /x/b.bin.")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A plain listener whose clock is turned by hand; `told` gives the lines since the last look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, quiet: bool = False) -> None:
        self._err = io.StringIO()
        monkeypatch.setattr(sys, "stderr", self._err)
        self.clock = Clock()
        self.listener = Plain(
            View(moved="sent"), out=Stream("stdout"), err=Stream("stderr"), quiet=quiet, clock=self.clock
        )

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds * 4)):
            self.clock.now += 0.25
            self.listener.tick()

    def told(self) -> list[str]:
        text = self._err.getvalue()
        self._err.seek(0)
        self._err.truncate()
        return [line.removeprefix("ppcli: ") for line in text.splitlines()]


def test_heartbeat_after_ten_seconds_then_every_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watched.listener.hear(STARTED)
    watched.listener.hear(progress(0, 0, 0.0))
    assert watched.told() == [f"started job {JOB}: 1 file, 100.0 MiB in 25 chunks, to pads:"]
    watched.wait(9.75)
    assert watched.told() == []
    watched.listener.hear(progress(30 * MIB, 20 * MIB, 4.0 * MIB))
    watched.wait(0.25)
    assert watched.told() == ["20% confirmed (20.0 MiB of 100.0 MiB) at 4.0 MiB/s, about 20s left"]
    watched.wait(59.75)
    assert watched.told() == []
    watched.wait(0.25)
    assert watched.told() == ["20% confirmed (20.0 MiB of 100.0 MiB), stalled: nothing has moved for 1m00s"]
    watched.wait(120)
    assert len(watched.told()) == 2


def test_heartbeat_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watched.wait(10)
    assert watched.told() == ["still working, 10s so far"]
    watched.listener.hear(STARTED)
    watched.listener.hear(ReservationProgress(JOB, 3, 25))
    watched.wait(60)
    assert watched.told()[1:] == ["3 chunks reserved, nothing sent yet, 1m10s so far"]


def test_a_fetch_has_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watched.listener.hear(Receiving(None, MIB, None, float(MIB)))
    watched.wait(9)
    watched.listener.hear(Receiving(None, 20 * MIB, None, 4.0 * MIB))
    watched.wait(1)
    assert watched.told() == ["20.0 MiB received at 4.0 MiB/s"]
    watched.wait(59)
    watched.listener.hear(Receiving(None, 25 * MIB, 100 * MIB, 5.0 * MIB))
    watched.wait(1)
    assert watched.told() == ["25% received (25.0 MiB of 100.0 MiB) at 5.0 MiB/s, about 15s left"]
    watched.wait(60)
    assert watched.told() == ["25% received (25.0 MiB of 100.0 MiB), stalled: nothing has moved for 1m01s"]


def test_a_finished_job_has_no_heartbeat_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watched.listener.hear(STARTED)
    watched.listener.hear(progress(100 * MIB, 100 * MIB))
    watched.listener.hear(JobFinished(JOB, JobState.COMPLETED, 0))
    watched.told()
    watched.wait(10)
    assert watched.told() == ["still working, 10s so far"]


@pytest.mark.parametrize(
    ("reused", "kept", "told"),
    [
        (0, 0, "reserving up to 2 new pads (8.0 MiB) at pads+https://host"),
        (1, 0, "reserving up to 2 new pads (8.0 MiB) at pads+https://host, using 1 free pad (4.0 MiB) again"),
        (0, 3, "reserving up to 2 new pads (8.0 MiB) at pads+https://host, keeping 3 unchanged pads (12.0 MiB)"),
    ],
)
def test_a_reservation_tells_what_there_is_to_tell(reused: int, kept: int, told: str) -> None:
    size = 4 * MIB
    event = ReservationPlanned(
        None, "pads+https://host", 2, reused, kept, 1, size, 2 * size, reused * size, kept * size
    )
    assert sentences.reservation(event) == f"{told}; 1 of these for the record (name, size, which pads)"


def test_a_retry_is_told_for_every_step() -> None:
    for step in Step:
        event = Retrying(JOB, "a.bin", None, step.value, 2, 0.5, "connection reset")
        assert f"attempt 2 to {step.doing} a.bin failed, the next is in 0.5s: connection reset" == sentences.retry(
            event
        )
    assert Step.FIND.doing == "look for"


def test_retries_are_summarised(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    for number in range(200):
        watched.listener.hear(Retrying(JOB, "a.bin", number, "upload", 1, 0.5, "connection reset"))
        watched.wait(0.25)
    told = [line for line in watched.told() if "attempt" in line]
    assert told == [
        "attempt 1 to upload chunk 0 of a.bin failed, the next is in 0.5s: connection reset",
        "120 retries, the last: attempt 1 to upload chunk 120 of a.bin failed, the next is in 0.5s: connection reset",
    ]
    watched.listener.hear(STARTED)
    watched.listener.hear(ended())
    assert watched.told()[-1].endswith("200 retries")


def test_quiet_says_errors_and_where_things_went_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch, quiet=True)
    for event in EVERY_EVENT[:-1]:
        watched.listener.hear(event)
    watched.listener.hear(WarningRaised(None, "other", "Something small."))
    watched.wait(100)
    watched.listener.hear(ended(JobState.PAUSED, 75, GONE))
    assert watched.told() == [
        "warning: Stored on this computer only.",
        "b.bin: There is no /x/b.bin.",
        GONE.message,
        GONE.hint,
        f"To go on: ppcli resume {JOB}",
    ]


def test_put_prints_one_location_a_file() -> None:
    events = [STARTED, COMPLETED, replace(COMPLETED, location="pads:#b.bin"), JobFinished(JOB, JobState.COMPLETED, 0)]
    outcome = run("put", "a", script=Script(events, ended()))
    assert (outcome.code, outcome.out) == (0, "pads:#a.bin\npads:#b.bin\n")
    assert (
        outcome.err.splitlines()[-1] == "ppcli: completed after 20s: 1 file (1 completed), 100.0 MiB sent at 5.0 MiB/s"
    )


def test_get_leaves_stdout_to_the_bytes() -> None:
    outcome = run("get", "a", "-", script=Script([COMPLETED], replace(ended(), job=None, state=None)))
    assert outcome.out == ""
    assert outcome.err == "ppcli: done after 20s: 1 file (1 completed), 100.0 MiB received at 5.0 MiB/s\n"


def test_unchanged_files_are_not_counted_twice() -> None:
    result = replace(ended(), files_total=3, files_completed=2, files_unchanged=2, files_failed=1, bytes_sent=0)
    outcome = run("put", "a", script=Script(end=replace(result, bytes_skipped=5 * MIB, bytes_copied=MIB)))
    told = "3 files (2 unchanged, 1 failed), 5.0 MiB were there already, 1.0 MiB copied on the target"
    assert outcome.err == f"ppcli: completed after 20s: {told}\n"


def test_removing_is_silent() -> None:
    assert run("rm", "a", script=Script(end=ended())).err == ""


def test_a_paused_job_ends_with_how_to_go_on() -> None:
    script = Script([STARTED, JobFinished(JOB, JobState.PAUSED, 75)], ended(JobState.PAUSED, 75, GONE))
    outcome = run("put", "a", script=script)
    assert outcome.code == 75
    assert outcome.err.splitlines()[-3:] == [
        f"ppcli: {GONE.message}",
        f"ppcli: {GONE.hint}",
        f"ppcli: To go on: ppcli resume {JOB}",
    ]
    told = replace(GONE, hint=f"Run `ppcli resume {JOB}`.")
    script = Script([STARTED, JobFinished(JOB, JobState.PAUSED, 75)], ended(JobState.PAUSED, 75, told))
    assert run("put", "a", script=script).err.splitlines()[-1] == f"ppcli: {told.hint}"


def test_one_failed_file_is_told_once_and_several_each() -> None:
    error = replace(GONE, message=FAILED.message)
    one = run("put", "a", script=Script([STARTED, FAILED], ended(JobState.FAILED, 4, error)))
    assert one.err.count(FAILED.message) == 1
    many = replace(STARTED, files=3)
    several = run("put", "a", script=Script([many, FAILED, FAILED], ended(JobState.FAILED, 10, GONE)))
    assert several.err.count(f"ppcli: b.bin: {FAILED.message}\n") == 2


def test_names_are_listed_escaped() -> None:
    objects = [ObjectListed("a\x1b[2J\n", 5, "sha256:00", "2026-01-02T03:04:05Z"), ObjectListed("b", 12, None, None)]
    assert run("ls", script=Script(objects)).out == "a\\x1b[2J\\n\nb\n"
    assert run("ls", "-l", script=Script(objects)).out.splitlines() == [
        "             5  2026-01-02T03:04:05Z      sha256:00  a\\x1b[2J\\n",
        "            12  -                         -  b",
    ]
    begun = Script([IncompleteListed("u1", None, JOB, 5, None)])
    assert run("ls", "--incomplete", script=begun).out.split() == ["5", "-", "u1", JOB, "-"]


def test_a_dry_run_prints_the_plan() -> None:
    plan = FilePlanned(None, "a.bin", "/x/a.bin", 9 * MIB, 3, 4 * MIB)
    outcome = run("put", "a", "--dry-run", script=Script([plan]))
    assert outcome.out == "a.bin  9.0 MiB, 3 chunks of up to 4.0 MiB\n"


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("é😀", "é😀"),
        ("a\tb\x7f\x9b", "a\\tb\\x7f\\x9b"),
        ("\u202egpj", "\\u202egpj"),
        ("\udcff\ud800", "\\xff\\ud800"),
    ],
)
def test_escape(text: str, safe: str) -> None:
    assert escape(text) == safe


def test_an_error_is_what_happened_and_what_to_do() -> None:
    busy = Busy("Process 12 on ci-3\x1b runs this job.", hint="Wait for it.")
    outcome = run("resume", script=Script(end=busy))
    assert (outcome.code, outcome.out) == (7, "")
    assert outcome.err == "ppcli: Process 12 on ci-3\\x1b runs this job.\nppcli: Wait for it.\n"
    assert "Traceback" in run("resume", "-v", script=Script(end=busy)).err


def test_a_bug_names_its_log(tmp_path: Path) -> None:
    env = {"PPCLI_DATA_DIR": str(tmp_path / "new")}
    outcome = run("status", script=Script(end=ZeroDivisionError("by zero")), env=env)
    log = tmp_path / "new" / "ppcli-crash.log"
    assert outcome.code == 1
    assert "bug" in outcome.err
    assert str(log) in outcome.err
    assert "Traceback" not in outcome.err
    assert "ZeroDivisionError: by zero" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600
    assert "Traceback" in run("status", "-v", script=Script(end=ZeroDivisionError()), env=env).err


def test_a_bug_without_a_place_for_its_log(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    env = {"PPCLI_DATA_DIR": str(tmp_path / "file" / "x")}
    assert "with -v" in run("status", script=Script(end=KeyError("x")), env=env).err
    own = KeyError("x")
    own.log_path = "/jobs/7/log"  # type: ignore[attr-defined]
    assert "/jobs/7/log" in run("status", script=Script(end=own), env=env).err
    assert run("status", script=Script(end=Internal("Broken.", hint="Report it.")), env=env).code == 1


@pytest.mark.parametrize(
    ("typed", "answer"),
    [("y\n", True), ("YES\n", True), ("\n", False), ("", False), ("what\nn\n", False), (None, None)],
)
def test_questions_are_asked_on_a_terminal(typed: str | None, answer: bool | None) -> None:
    script = Script(question="Cancel 7f\x1b?")
    outcome = run("-q", "cancel", "a", script=script, typed=typed)
    assert script.answers == [answer]
    assert ("Cancel 7f\\x1b? [y/N] " in outcome.err) is (typed is not None)
    assert outcome.out == ""
