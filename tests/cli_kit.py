"""The real command for tests: run in this process or as one of its own, with directories of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from ppcli.cli.main import main

CHUNK = 4096
PPCLI = (sys.executable, "-m", "ppcli")
ROOT, NOBODY = os.geteuid() == 0, 65534


@dataclass(frozen=True)
class Ran:
    code: int
    stdout: bytes
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def result(self) -> dict[str, Any]:
        """The one `result`, which comes last."""
        events = self.events
        assert [event["event"] == "result" for event in events].index(True) == len(events) - 1, events
        assert events[-1]["exit_code"] == self.code
        return events[-1]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]


class Cli:
    """ppcli with its directories in `root`, which is the working directory too; `to` is the target."""

    def __init__(self, root: Path, to: str) -> None:
        self.root, self.to = root, to
        self.data, self.config = root / "data", root / "config"
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("PPCLI_")}
        self.env |= {"PPCLI_DATA_DIR": str(self.data), "PPCLI_CONFIG_DIR": str(self.config), "PPCLI_TARGET": to}
        self.env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent.parent), self.env.get("PYTHONPATH", "")])

    def __call__(self, *words: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> Ran:
        """Run it in this process."""
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace") for _ in range(2))
        with (
            mock.patch.dict(os.environ, self.env | (env or {}), clear=True),
            mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            contextlib.chdir(self.root),
        ):
            try:
                main(words)
            except SystemExit as end:
                assert isinstance(end.code, int)
                out.flush()
                err.flush()
                return Ran(end.code, out.buffer.getvalue(), err.buffer.getvalue().decode())

    def json(self, *words: str) -> Ran:
        ran = self(*words, "--json")
        assert ran.err == ""
        assert ran.result["ok"] == (ran.code == 0)
        return ran

    def start(self, *words: str, **more: Any) -> subprocess.Popen[bytes]:
        """Run it as a process, in the background."""
        piped: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [*PPCLI, *words], **{"env": self.env, "cwd": self.root, **piped, **more}
        )
        return process

    def process(self, *words: str, **more: Any) -> Ran:
        return finish(self.start(*words, **more))

    def source(self, name: str, size: int = 3 * CHUNK + 5) -> bytes:
        """Make a source; gives its bytes."""
        path, data = self.root / name, random.Random(name).randbytes(size)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return data

    def holds(self, name: str, data: bytes) -> None:
        ran = self("get", "--", name, "-")
        assert ran.code == 0, ran.err
        assert ran.stdout == data

    def works(self) -> None:
        """A correct command works after all that went wrong, and what was stored before is unharmed."""
        data = self.source("sound")
        assert self("put", "sound").code == 0
        self.holds("sound", data)
        if (kept := self.root / "kept").exists():
            self.holds("kept", kept.read_bytes())

    def refuses(self, code: int, kind: str, reason: str | None, *words: str, env: dict[str, str] | None = None) -> str:
        """Run it for a person and for a script. Gives what the person was told: what happened, and what to do."""
        plain, script = self(*words, env=env), self(*words, "--json", env=env)
        error = script.result["error"]
        assert (plain.code, script.code, error["kind"], error["reason"]) == (code, code, kind, reason), plain.err
        assert script.err == ""
        assert plain.stdout == b""
        lines = [line for line in plain.err.splitlines() if not line.startswith("ppcli: To go on: ")]
        assert all(line.startswith("ppcli: ") for line in lines), plain.err
        told = [line.removeprefix("ppcli: ") for line in lines[-2:]]
        for sentence in (*told, error["message"], error["hint"]):
            assert sentence.endswith("."), sentence
            assert sentence.strip() == sentence != ".", sentence
        return " ".join(told)


def finish(process: subprocess.Popen[bytes], timeout: float = 30) -> Ran:
    out, err = process.communicate(timeout=timeout)
    told = (err or b"").decode()
    assert "Traceback" not in told, told
    return Ran(process.returncode, out or b"", told)


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def make_cli(root: Path, scheme: str) -> Cli:
    store = root / "store"
    store.mkdir()
    cli = Cli(root, "pads:" if scheme == "pads" else f"file://{store}")
    cli.source("kept")
    assert cli("put", "kept", "--chunk-size", str(CHUNK)).code == 0
    return cli


@contextlib.contextmanager
def fast_directory() -> Iterator[Path]:
    """In memory where that can be had: nothing here is about the speed of fsync."""
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if os.access(shm, os.W_OK) else None) as name:
        yield Path(name).resolve()
