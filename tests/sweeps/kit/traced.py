"""Running commands under trace, from a test: one tracer for all tests of this process."""

from __future__ import annotations

import atexit
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cli_kit import Cli, Ran
from sweeps.kit.calls import Call
from sweeps.kit.orders import Fail, Kill, Order, Report

TESTS = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Traced:
    """A command that ran under trace. `struck`: what was ordered has happened."""

    ran: Ran
    calls: list[Call]
    struck: bool

    @property
    def heard(self) -> list[dict[str, Any]]:
        """The events whose line came out whole."""
        whole = self.ran.stdout[: self.ran.stdout.rfind(b"\n") + 1]
        return Ran(0, whole, "").events

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.heard if event["event"] == kind]


def run(cli: Cli, *words: str, what: Kill | Fail | None = None) -> Traced:
    """`ppcli` with these words, as a process under trace."""
    out, err = cli.root / "stdout", cli.root / "stderr"
    for path in (out, err):
        path.unlink(missing_ok=True)
    tracer = _tracer()
    assert tracer.stdin and tracer.stdout
    pickle.dump(Order(words, cli.env, str(cli.root), str(out), str(err), what), tracer.stdin)
    tracer.stdin.flush()
    report: Report = pickle.load(tracer.stdout)
    told = err.read_text()
    assert "Traceback" not in told, told
    return Traced(Ran(report.code, out.read_bytes(), told), report.calls, report.struck)


@cache
def _tracer() -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]), "PYTHONWARNINGS": "ignore"}
    words = [sys.executable, "-m", "sweeps.kit.tracer"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)

    def end() -> None:
        assert process.stdin and process.stdout
        process.stdin.close()
        process.stdout.close()
        process.wait()

    atexit.register(end)
    return process
