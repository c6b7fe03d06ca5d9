"""From the command line to the request: the grammar, the global options, the environment, usage errors."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest
from scripted_app import JOB, STATUS, Script, run

from ppcli import __version__
from ppcli.cli.main import cli
from ppcli.cli.options import TAKES_VALUE, asks_for_json
from ppcli.requests import (
    CancelRequest,
    GetRequest,
    ListRequest,
    PutRequest,
    RemoveRequest,
    ResumeRequest,
    StatusRequest,
)

REQUESTS: list[tuple[str, str, Any]] = [
    ("put a", "put", PutRequest(sources=("a",))),
    ("put a -r b --to x: --name n", "put", PutRequest(sources=("a", "b"), recursive=True, to="x:", name="n")),
    ("put - --name n --chunk-size 8M", "put", PutRequest(sources=("-",), name="n", chunk_size=8 << 20)),
    ("put --files-from - -0", "put", PutRequest(files_from="-", null_separated=True)),
    ("put a --exclude *.o --exclude .git", "put", PutRequest(sources=("a",), exclude=("*.o", ".git"))),
    ("put a --jobs 3 --reserve-jobs 4 --retries 1", "put", PutRequest(("a",), jobs=3, reserve_jobs=4, retries=1)),
    ("put a --limit-rate 1MB/s --wait-lock 2.5", "put", PutRequest(("a",), limit_rate=10**6, wait_lock=2.5)),
    (
        "put a --checksum --immutable --fail-fast --fresh --dry-run --yes",
        "put",
        PutRequest(("a",), checksum=True, immutable=True, fail_fast=True, fresh=True, dry_run=True, yes=True),
    ),
    ("put -- --json", "put", PutRequest(sources=("--json",))),
    ("resume", "resume", ResumeRequest()),
    ("resume a b", "resume", ResumeRequest(jobs=("a", "b"))),
    ("resume --all", "resume", ResumeRequest(all=True)),
    ("status --exit-code a", "status", StatusRequest(jobs=("a",), exit_code=True)),
    ("status --all", "status", StatusRequest(all=True)),
    ("cancel a --yes", "cancel", CancelRequest(jobs=("a",), yes=True)),
    ("cancel --incomplete --to x:", "cancel", CancelRequest(incomplete=True, to="x:")),
    ("ls", "list", ListRequest()),
    ("ls p/ -l --incomplete --to x:", "list", ListRequest(prefix="p/", incomplete=True, to="x:")),
    ("get n", "get", GetRequest("n")),
    ("get n - --force", "get", GetRequest("n", dest="-", force=True)),
    ("get n d -r --to x:", "get", GetRequest("n", dest="d", recursive=True, to="x:")),
    ("rm a b -r", "remove", RemoveRequest(names=("a", "b"), recursive=True)),
    ("pads recover", "recover", None),
    ("pads recover pads:///d", "recover", "pads:///d"),
]

USAGE_ERRORS = [
    "--nope",
    "nope",
    "put a --chunk-size 0",
    "put a --chunk-size 3Q",
    "put a --limit-rate fast",
    "put a --wait-lock nan",
    "put a --wait-lock -1",
    "put a --jobs 0",
    "put a --retries none",
    "put a --name",
    "resume a --all",
    "cancel a --all",
    "get",
    "rm",
    "pads nope",
    "pads recover a b",
    "completion",
    "completion tcsh",
]


@pytest.mark.parametrize(("line", "use_case", "request_"), REQUESTS)
def test_requests(line: str, use_case: str, request_: Any) -> None:
    script = Script()
    outcome = run(*line.split(), script=script)
    assert outcome.code == 0, outcome.err
    assert script.requests == [(use_case, request_)]


def test_an_empty_target_reaches_the_use_case() -> None:
    script = Script()
    run("put", "a", "--to", "", script=script)
    assert script.requests == [("put", PutRequest(sources=("a",), to=""))]


@pytest.mark.parametrize("line", USAGE_ERRORS)
def test_usage_errors_in_words(line: str) -> None:
    outcome = run(*line.split())
    assert outcome.code == 2
    assert outcome.out == ""
    what, how = outcome.err.splitlines()
    assert what.startswith("ppcli: ")
    assert what.endswith(".")
    assert "\\" not in what
    assert how.startswith("ppcli: Run 'ppcli ")
    assert "--help'" in how


@pytest.mark.parametrize("line", [f"--json {line}" for line in USAGE_ERRORS] + ["get a - --json", "put --json --nope"])
def test_usage_errors_in_json(line: str) -> None:
    outcome = run(*line.split())
    assert outcome.code == 2
    assert outcome.err == ""
    result = json.loads(outcome.out)
    assert result["event"] == "result"
    assert result["ok"] is False
    assert result["exit_code"] == 2
    assert result["error"]["kind"] == "usage"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("put a --json", True),
        ("--json put a", True),
        ("put --json a", True),
        ("put -q a --json", True),
        ("put a -- --json", False),
        ("put a --name --json", False),
        ("put a --name=x --json", True),
        ("put a --to --json --json", True),
        ("put a", False),
        ("", False),
    ],
)
def test_json_is_seen_before_the_command_line_is_parsed(line: str, answer: bool) -> None:
    assert asks_for_json(line.split()) is answer


def _commands(command: click.Command) -> list[click.Command]:
    if not isinstance(command, click.Group):
        return [command]
    context = click.Context(command)
    below = [command.get_command(context, name) for name in command.list_commands(context)]
    return [command, *(found for child in below if child is not None for found in _commands(child))]


def test_the_options_with_a_value_are_known() -> None:
    options = [param for command in _commands(cli) for param in command.params if isinstance(param, click.Option)]
    assert {name for option in options if not option.is_flag for name in option.opts} == TAKES_VALUE


@pytest.mark.parametrize("command", _commands(cli), ids=lambda command: str(command.name))
def test_every_command_takes_the_global_options_and_shows_an_example(command: click.Command) -> None:
    names = {name for param in command.params for name in param.opts}
    assert {"--json", "-q", "--quiet", "-v", "--verbose", "--no-color", "--version"} <= names
    if not isinstance(command, click.Group) or command is cli:
        assert "ppcli " in (command.help or "")


@pytest.mark.parametrize("line", ["-q status", "status -q", "status --quiet"])
def test_global_options_before_and_after(line: str) -> None:
    assert run(*line.split()).err == ""
    assert run("status").err == "ppcli: There is no unfinished job.\n"


@pytest.mark.parametrize("line", ["--version", "put --version", "pads recover --version", "--version --json"])
def test_version(line: str) -> None:
    outcome = run(*line.split())
    assert (outcome.code, outcome.out, outcome.err) == (0, f"ppcli {__version__}\n", "")


@pytest.mark.parametrize("line", ["-h", "--help", "put -h", "pads recover --help", "status --json -h"])
def test_help_goes_to_stdout(line: str) -> None:
    outcome = run(*line.split())
    assert outcome.code == 0
    assert outcome.out.startswith("Usage: ppcli")
    assert outcome.err == ""


def test_the_overview_cuts_no_sentence_off() -> None:
    assert "..." not in run("--help").out.partition("Commands:")[2]


def test_a_misspelt_option_is_one_sentence_with_what_is_near() -> None:
    told = run("put", "a", "--bogus").err
    assert "No such option '--bogus'" in told
    assert not any(line.endswith("?).") for line in told.splitlines())


def test_help_states_the_exit_codes_and_how_stdin_ends() -> None:
    text = run("--help").out
    assert all(f"{code}  " in text for code in (*range(12), 75, 130, 143))
    assert "a producer that dies looks like EOF" in " ".join(run("put", "--help").out.split())


@pytest.mark.parametrize("words", [[], ["pads"]])
def test_no_command_shows_the_help_and_is_an_error(words: list[str]) -> None:
    outcome = run(*words)
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("Usage: ppcli")
    assert json.loads(run(*words, "--json").out)["exit_code"] == 2


def test_environment() -> None:
    script = Script()
    env = {"PPCLI_JOBS": "7", "PPCLI_LIMIT_RATE": "1K", "PPCLI_YES": "1", "PPCLI_TARGET": "x:"}
    run("put", "a", script=script, env=env)
    run("put", "a", "--jobs", "2", "--limit-rate", "3", script=script, env=env)
    run("cancel", "a", script=script, env={"PPCLI_YES": "0"})
    run("resume", script=script, env=env)
    run("resume", script=script, env={"PPCLI_JOBS": "", "PPCLI_LIMIT_RATE": ""})
    assert [request for _, request in script.requests] == [
        PutRequest(sources=("a",), jobs=7, limit_rate=1024, yes=True),
        PutRequest(sources=("a",), jobs=2, limit_rate=3, yes=True),
        CancelRequest(jobs=("a",)),
        ResumeRequest(limit_rate=1024, at_once=7),
        ResumeRequest(),
    ]


@pytest.mark.parametrize("env", [{"PPCLI_JOBS": "x"}, {"PPCLI_LIMIT_RATE": "-1"}, {"PPCLI_YES": "perhaps"}])
def test_a_bad_environment_is_a_usage_error(env: dict[str, str]) -> None:
    outcome = run("put", "a", env=env)
    assert outcome.code == 2
    assert f"Invalid value for {next(iter(env))}: " in outcome.err
    assert run("resume", env=env).code == (0 if "PPCLI_YES" in env else 2)


def test_status_of_one_job_is_a_block_and_of_several_a_line_each() -> None:
    one = run("status", JOB, script=Script([STATUS])).out.splitlines()
    assert f"job        {JOB}" in one
    assert "progress   40%: 10 of 25 chunks, 40.0 MiB of 100.0 MiB" in one
    assert "evidence   etag (the content is not verified)" in one
    assert "           and 1 more" in one
    assert one[-1] == f"go on      ppcli resume {JOB}"
    several = run("status", script=Script([STATUS, STATUS])).out.splitlines()
    assert (
        several
        == [
            f"{JOB}  paused      40%     40.0 MiB/100.0 MiB  /x/a.bin and 2 more -> pads:",
        ]
        * 2
    )
