"""The event stream: every line against the schema, nothing on stderr, one result."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from scripted_app import COMPLETED, EVERY_EVENT, GONE, JOB, STARTED, STATUS, Outcome, Script, ended, progress, run

from ppcli import events
from ppcli.cli.json_lines import JsonLines
from ppcli.cli.streams import Stream
from ppcli.errors import Interrupted, Rejected
from ppcli.events import Event, JobFinished, Receiving, Stopping
from ppcli.model import JobState

SCHEMA = json.loads((Path(__file__).parent / "schema" / "events.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA)
KINDS = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event) and kind.event]


def lines(outcome: Outcome) -> list[dict[str, Any]]:
    """The stream of a run that said nothing else, each line checked."""
    assert outcome.err == ""
    found = [json.loads(line) for line in outcome.out.splitlines()]
    for record in found:
        VALIDATOR.validate(record)
    assert [record["event"] for record in found].count("result") == 1
    assert found[-1]["event"] == "result"
    assert found[-1]["exit_code"] == outcome.code
    return found


def written(event: Event, monkeypatch: pytest.MonkeyPatch, **options: Any) -> str:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    JsonLines(Stream("stdout"), **options).hear(event)
    return out.getvalue()


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.event)
def test_the_schema_has_every_event_with_its_keys(kind: type[Event]) -> None:
    keys = SCHEMA["$defs"][f"event_{kind.event}"]["required"]
    assert set(keys) == {"v", "event", "time", *(field.name for field in fields(kind))}


def test_every_event_is_a_line() -> None:
    assert {type(event) for event in EVERY_EVENT} == set(KINDS)
    script = Script(EVERY_EVENT[:-1], ended(JobState.PAUSED, 75, GONE))
    found = lines(run("put", "a", "--json", script=script))
    assert [record["event"] for record in found] == [event.event for event in EVERY_EVENT]
    assert all(list(record)[:3] == ["v", "event", "time"] for record in found)
    assert all(list(record)[3] == "job" for record in found if "job" in record)
    assert found[-1]["error"] == {
        "kind": "temporary",
        "reason": None,
        "message": GONE.message,
        "hint": GONE.hint,
        "retryable": True,
    }


def test_what_is_said_to_people_only_is_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(Stopping(JOB, 130, 5.0), monkeypatch) == ""
    assert written(Receiving(None, 1, None, 5.0), monkeypatch) == ""


def test_quiet_keeps_results_failures_and_warnings() -> None:
    found = lines(run("-q", "put", "a", "--json", script=Script(EVERY_EVENT[:-1], ended())))
    dropped = {"job_started", "reservation_progress", "upload_progress", "chunk_confirmed", "retrying"}
    dropped |= {"hashing_progress", "reservation_planned"}
    assert [record["event"] for record in found] == [e.event for e in EVERY_EVENT if e.event not in dropped]


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (Rejected("Too large.", hint="Split it.", reason="too_large"), 5, "rejected"),
        (Interrupted(143, job=True), 143, "interrupted"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("by zero"), 1, "internal"),
    ],
)
def test_whatever_is_raised_ends_in_one_result(error: BaseException, code: int, kind: str, tmp_path: Path) -> None:
    script = Script([STARTED], error)
    found = lines(run("put", "a", "--json", script=script, env={"PPCLI_DATA_DIR": str(tmp_path)}))
    assert found[-1]["exit_code"] == code
    assert found[-1]["error"]["kind"] == kind
    assert found[-1]["error"]["hint"] or isinstance(error, Interrupted)


def test_verbose_may_use_stderr() -> None:
    outcome = run("-v", "put", "a", "--json", script=Script(end=Rejected("Too large.")))
    assert "Traceback" in outcome.err
    assert len(outcome.out.splitlines()) == 1


def test_nobody_is_asked() -> None:
    script = Script(question="Really?")
    outcome = run("cancel", "a", "--json", script=script, typed="y\n")
    assert script.answers == [None]
    assert outcome.err == ""


def test_time_is_utc_to_the_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    line = written(progress(1, 1), monkeypatch, clock=lambda: 1767323045.0625)
    assert json.loads(line)["time"] == "2026-01-02T03:04:05.062Z"


def test_strict_readers_can_read_any_name_and_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    event = replace(COMPLETED, name="é😀\x1b", source="/x/\udcff\ud800\\ud")
    line = written(event, monkeypatch)
    assert line.isascii()
    record = json.loads(line)
    assert (record["name"], record["source"]) == ("é😀\x1b", "/x/%FF\ufffd\\ud")
    assert "%FF" in written(replace(STATUS, sources=("\udcff",)), monkeypatch)
    assert json.loads(written(progress(1, 1, float("inf")), monkeypatch))["bytes_per_second"] is None


def test_a_job_of_several_has_its_own_end() -> None:
    script = Script([STARTED, JobFinished(JOB, JobState.FAILED, 4)], ended(JobState.FAILED, 4, GONE))
    assert [record["event"] for record in lines(run("resume", "--json", script=script))][-2:] == [
        "job_finished",
        "result",
    ]
