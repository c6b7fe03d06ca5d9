"""ppcli as a process: what it imports, broken pipes, closed streams, signals, completion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DRIVER = str(Path(__file__).parent / "scripted_app.py")
ENV = {key: value for key, value in os.environ.items() if not key.startswith("PPCLI_")} | {"PYTHONPATH": str(ROOT)}
HEAVY = {
    "rich",
    "httpx",
    "tenacity",
    "platformdirs",
    "sqlite3",
    "json",
    "xxhash",
    "pathspec",
    "ppcli.app",
    "dataclasses",
}


def sh(command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a shell line; `$PPCLI` is ppcli with the scripted app, a scenario goes first."""
    words = {"PPCLI": f"{sys.executable} {DRIVER}", **env}
    return subprocess.run(
        ["bash", "-c", command], env=ENV | words, capture_output=True, text=True, timeout=30, check=False
    )


def imported(words: list[str]) -> set[str]:
    code = (
        "import sys\nfrom ppcli.cli.main import main\ntry:\n    main(sys.argv[1:])\n"
        "finally:\n    print(*sys.modules, file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *words], env=ENV, capture_output=True, text=True, timeout=30, check=True
    )
    return set(ran.stderr.split())


def test_version_loads_click_alone() -> None:
    modules = imported(["--version"])
    assert not modules & HEAVY
    own = {name for name in modules if name.startswith("ppcli.")}
    assert own == {"ppcli.cli", "ppcli.cli.main", "ppcli.cli.options", "ppcli.cli.streams"}


@pytest.mark.parametrize("words", [["--help"], ["put", "--help"], ["completion", "bash"]])
def test_help_and_completion_load_click_alone(words: list[str]) -> None:
    assert not imported(words) & (HEAVY - {"dataclasses"})


@pytest.mark.parametrize(("shell", "name"), [("bash", "ppcli.bash"), ("zsh", "_ppcli"), ("fish", "ppcli.fish")])
def test_the_completion_files_are_what_the_command_prints(shell: str, name: str) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "ppcli", "completion", shell], env=ENV | {"PATH": ""}, capture_output=True, check=True
    )
    assert printed.stderr == b""
    assert printed.stdout == (ROOT / "completions" / name).read_bytes()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("ppcli pu", {"plain,put"}),
        ("ppcli put --ch", {"plain,--chunk-size", "plain,--checksum"}),
        ("ppcli put x", {"file,x"}),
    ],
)
def test_completion_answers_the_shell(line: str, found: set[str]) -> None:
    words = {"_PPCLI_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    ran = sh("$PPCLI sent", **words)
    assert (ran.returncode, set(ran.stdout.split()), ran.stderr) == (0, found, "")


@pytest.mark.parametrize("mode", ["", "--json"])
@pytest.mark.parametrize(("scenario", "code"), [("many", 0), ("paused", 75)])
def test_a_reader_that_leaves_changes_nothing(scenario: str, code: int, mode: str) -> None:
    ran = sh(f"$PPCLI {scenario} put a {mode} | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}")
    assert ran.returncode == code
    assert "Traceback" not in ran.stderr
    assert "BrokenPipe" not in ran.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", ">/dev/full", "2>/dev/full"])
@pytest.mark.parametrize("mode", ["", "--json"])
def test_put_ends_by_its_outcome_whatever_is_closed(closed: str, mode: str) -> None:
    ran = sh(f"$PPCLI paused put a {mode} {closed}")
    assert ran.returncode == 75
    assert "Traceback" not in ran.stderr


def test_put_says_what_it_could_not_say_on_stdout() -> None:
    ran = sh("$PPCLI many put a >/dev/full")
    assert ran.returncode == 0
    assert "Could not write to stdout" in ran.stderr


def test_a_file_opened_later_never_becomes_stdout() -> None:
    code = "from ppcli.cli import streams; streams.prepare(); import os; os._exit(os.open('/dev/null', 0))"
    assert sh(f'{sys.executable} -c "{code}" <&- >&- 2>&-').returncode == 3


def test_what_is_only_there_to_be_read_must_be_written() -> None:
    ran = sh("$PPCLI listed ls >/dev/full")
    assert ran.returncode == 11
    assert "stdout" in ran.stderr
    assert sh("$PPCLI listed get a - >&-").returncode == 11
    assert sh("$PPCLI sent put - --name a <&-").returncode == 4
    assert sh("$PPCLI sent --help >&-").returncode == 0
    assert sh("$PPCLI sent put --help | true; exit ${PIPESTATUS[0]}").stderr == ""


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_any_name_can_be_printed_in_any_locale(encoding: str) -> None:
    ran = sh("$PPCLI listed ls", PYTHONIOENCODING=encoding)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "a\\xff\\x1b[31m\n", "")


def test_an_interruption_has_its_code_and_one_result() -> None:
    assert sh("$PPCLI interrupted status").returncode == 130
    ran = sh("$PPCLI interrupted status --json")
    assert (ran.returncode, ran.stderr) == (130, "")
    assert json.loads(ran.stdout)["error"]["kind"] == "interrupted"


@pytest.mark.parametrize(("signal", "code"), [("INT", 130), ("TERM", 143), ("HUP", 143)])
def test_signals_outside_a_transfer(signal: str, code: int) -> None:
    ran = sh(f"$PPCLI waits-{signal} status --json")
    assert (ran.returncode, ran.stderr) == (code, "")
    assert json.loads(ran.stdout)["exit_code"] == code


def test_hangup_stays_ignored_under_nohup() -> None:
    assert sh("trap '' HUP; $PPCLI waits-HUP status").returncode == 0


def test_errors_keep_stdout_clean() -> None:
    ran = sh("$PPCLI busy resume")
    assert (ran.returncode, ran.stdout) == (7, "")
    assert len(ran.stderr.splitlines()) == 2
