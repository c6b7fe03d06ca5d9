"""README and CHANGELOG say what the program does: commands, exit codes, variables, events, and real outputs."""

from __future__ import annotations

import ast
import os
import random
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import ppcli
from ppcli import errors, events, planner
from ppcli.cli.main import cli
from ppcli.model import Limits
from ppcli.pads import identity
from ppcli.targets import Settings, connect

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
HOME = "/home/you"
"""The directory that the README's outputs were made in."""


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def options(command: click.Command) -> set[str]:
    return {name for param in command.params for name in (*param.opts, *param.secondary_opts) if name.startswith("-")}


def event_types(cls: type[events.Event] = events.Event) -> Iterator[type[events.Event]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from event_types(sub)


def test_every_command_is_documented() -> None:
    for path, _ in commands(cli):
        assert f"`{path}`" in README, f"README does not name the command {path}"


def test_every_option_in_readme_exists() -> None:
    known = {"--help"}.union(*(options(command) for _, command in commands(cli)))
    ours = "\n".join(line for line in README.splitlines() if "pytest" not in line)
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours)) <= known


def test_every_exit_code_is_documented_with_its_kind() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (?:`(\w+)`|-) \|", README, re.MULTILINE))
    kinds = {str(cls.exit_code): cls.kind for cls in errors.PpcliError.__subclasses__() if cls.kind != "interrupted"}
    assert rows == kinds | {"0": "", "130": "interrupted", "143": "interrupted"}


def test_every_event_is_documented() -> None:
    named = {cls.event for cls in event_types() if cls.event}
    missing = {name for name in named if f"`{name}`" not in README and f'"event":"{name}"' not in README}
    assert named and not missing


def test_the_chunk_sizes_in_readme_are_those_of_the_targets(tmp_path: Path) -> None:
    def limits(url: str) -> Limits:
        return connect(url, Settings(tmp_path, tmp_path, lambda _path, _fresh: "")).limits(0)

    pads, files = limits("pads:"), limits(f"file://{tmp_path}")
    assert (pads.chunk_min, pads.chunk_max) == (4 << 20, 4 << 20) == (identity.PAD_DEFAULT,) * 2
    assert (identity.PAD_MIN, identity.PAD_MAX) == (64, 1 << 30)
    assert (files.chunk_min, files.chunk_default, files.chunk_max) == (1, 8 << 20, 1 << 40)
    assert files.max_chunks is None and planner.SANE_CHUNKS == 10_000
    rule = README.partition("**Chunk size.**")[2].partition("\n\n")[0]
    for figure in ("4 MiB", "64 bytes to 1 GiB", "8 MiB", "10,000", "1 byte to 1 TiB"):
        assert figure in " ".join(rule.split())


def test_the_variables_in_readme_are_those_the_code_reads() -> None:
    read = {
        node.value
        for path in (ROOT / "ppcli").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"PPCLI_[A-Z_]+", node.value)
    }
    assert set(re.findall(r"PPCLI_[A-Z_]+", README)) == read


def test_ci_takes_the_test_command_from_readme() -> None:
    lines = README.splitlines()
    at = lines.index("<!-- tests -->")
    assert lines[at + 1] == "```sh"
    assert lines[at + 3] == "```"
    assert lines[at + 2].endswith(".venv/bin/pytest")
    assert lines.count("<!-- tests -->") == 1
    extract = next(line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("tests="))
    ran = subprocess.run(
        ["bash", "-c", f'{extract}; echo "$tests"'], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout == lines[at + 2] + "\n"


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    released = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert released[0] == ppcli.__version__
    assert project.get("version", ppcli.__version__) == ppcli.__version__
    assert project["readme"] == "README.md"


def test_readme_names_no_path_of_a_machine() -> None:
    assert not re.search(r"/root\b|/tmp\b|/work\b|/Users/", README)
    assert not re.search(r"pypi|npmjs", README, re.IGNORECASE)


def test_shell_snippets_parse() -> None:
    for snippet in re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        subprocess.run(["bash", "-n", "-c", snippet], check=True)


def test_the_config_example_is_read(tmp_path: Path) -> None:
    from ppcli import config

    (example,) = re.findall(r"^```toml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    (tmp_path / "config.toml").write_text(example)
    found = config.load(tmp_path)
    assert found.place(None, {}).url == "file:///mnt/nas/uploads"
    assert found.keep_jobs == config.KEEP_JOBS_DAYS


def blocks() -> list[str]:
    """The examples that are run, in order."""
    found: list[str] = re.findall(r"^<!-- run -->\n```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return found


def examples() -> list[tuple[str, str]]:
    """Every command of the examples that are run, with the output shown for it."""
    steps = [step for block in blocks() for step in block.split("$ ")[1:]]
    return [(command, output) for command, _, output in (step.partition("\n") for step in steps)]


def run(home: Path, lines: list[str]) -> list[str]:
    """What each line prints (stdout and stderr as they come), all of them run by one shell."""
    bin_dir = home.parent / "bin"
    bin_dir.mkdir()
    program = bin_dir / "ppcli"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m ppcli "$@"\n')
    program.chmod(0o755)
    mark = "=-=-=-="
    script = "\n".join(f"{line}\nwait; echo {mark}" for line in lines)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PPCLI_")}
    env |= {
        "HOME": str(home),
        "PATH": f"{bin_dir}{os.pathsep}{env['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PPCLI_DATA_DIR": str(home / ".local/share/ppcli"),
        "PPCLI_CONFIG_DIR": str(home / ".config/ppcli"),
    }
    ran = subprocess.run(
        ["bash", "-c", f"exec 2>&1\n{script}"], cwd=home, env=env, capture_output=True, text=True, check=True
    )
    outputs = ran.stdout.replace(str(home), HOME).split(f"{mark}\n")
    return ["\n".join(line for line in output.splitlines() if " Killed " not in line) for output in outputs[:-1]]


def prepare(home: Path) -> None:
    """The files that the examples send."""
    home.mkdir()
    (home / "big.iso").write_bytes(random.Random(0).randbytes(64 << 20))
    (home / "notes.txt").write_text("remember the milk\n")
    (home / "photos" / "day1").mkdir(parents=True)
    for name in ("a.jpg", "day1/b.jpg", "day1/c.tmp"):
        (home / "photos" / name).write_text(name)
    for path in sorted(home.rglob("*")):
        if path.is_file():
            os.utime(path, (1767225600, 1767225600))


def normal(output: str) -> str:
    """Without what differs from run to run: ids, figures and their units, padding, and which file was ready first."""
    output = re.sub(r"\b[0-9a-f]{10}\b", "JOB", output)
    output = re.sub(r"\d+(?:\.\d+)?", "#", output)
    output = re.sub(r"# [KMGT]?i?B\b", "# B", output)
    output = re.sub(r"#m#s|#h#m", "#s", output)
    return "\n".join(sorted(re.sub(r"[ \t]+", " ", line).strip() for line in output.strip().splitlines()))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_the_examples_print_what_readme_shows(tmp_path: Path) -> None:
    home = (tmp_path / "you").resolve()
    prepare(home)
    shown = examples()
    assert len(shown) > 10
    outputs = run(home, [command for command, _ in shown])
    for (command, output), real in zip(shown, outputs, strict=True):
        assert normal(real) == normal(output), command
    assert (home / "copy.iso").stat().st_size == (home / "big.iso").stat().st_size


def test_every_promise_names_tests_that_exist() -> None:
    promises = README.partition("## What ppcli promises")[2].partition("Tests try to break")[0].split("\n- ")[1:]
    for promise in promises:
        names = re.findall(r"`([\w/]+\.py)`", promise)
        assert names, promise
        assert all((ROOT / "tests" / name).is_file() for name in names), names
