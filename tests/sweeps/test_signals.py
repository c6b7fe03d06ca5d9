"""Signals, terminals and streams, on the real command as a process, with a real server behind it: a person can always
stop it, is told the truth, and goes on where it was."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import random
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_kit import CHUNK, PPCLI, Cli, Ran, finish, until
from recording_proxy import Proxy, Rule
from server_kit import ServerProcess, running_server
from test_cli_bars import seen

SIZE = 40 * CHUNK
GONE_WITHIN = 7.0
_TERMINALS = pytest.mark.skipif(sys.platform != "linux", reason="terminals differ")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def wire(server: ServerProcess) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def cli(root: Path, server: ServerProcess, wire: Proxy) -> Cli:
    made = Cli(root, f"http://{wire.address}?hostname={root.name}")
    made.env |= {"PPCLI_TOKEN": server.token, "TERM": "xterm"}
    made.env.pop("COLUMNS", None)
    (root / "a.bin").write_bytes(random.Random(root.name).randbytes(SIZE))  # a server that knows it is sent nothing
    return made


def words(rate: int = 10 * CHUNK) -> list[str]:
    return ["put", "a.bin", "--chunk-size", str(CHUNK), "--jobs", "2", "--limit-rate", str(rate)]


def under_way(wire: Proxy, chunks: int = 2) -> None:
    until(lambda: len(wire.stored()) >= chunks)


def goes_on(cli: Cli) -> None:
    """What was confirmed is not sent again, and the file arrives."""
    (job,) = cli.json("status").of("job")
    assert job["state"] == "paused"
    assert job["resume_command"] == f"ppcli resume {job['job']}"
    ran = cli.json("put", "a.bin")
    assert ran.code == 0, ran.result
    assert ran.result["bytes_sent"] + ran.result["bytes_skipped"] == SIZE
    assert ran.result["bytes_skipped"] >= job["bytes"]["confirmed"]
    cli.holds("a.bin", (cli.root / "a.bin").read_bytes())


HANGS = {
    "before anything is sent": lambda seen: True,
    "a chunk": lambda seen: seen.chunk == 3,
    "its end": lambda seen: seen.path.endswith("/complete"),
}


@pytest.mark.parametrize(
    ("number", "code", "where"),
    [
        (signal.SIGINT, 130, "a chunk"),
        *(
            pytest.param(number, code, where, marks=pytest.mark.sweep)
            for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143))
            for where in HANGS
        ),
    ],
)
def test_a_server_that_hangs_keeps_nobody(cli: Cli, wire: Proxy, number: int, code: int, where: str) -> None:
    """A call that never ends does not hold up the first signal for longer than its seven seconds."""
    wire.at(Rule(HANGS[where], instead=lambda: b"", hold=60, times=99))
    process = cli.start(*words(1 << 30))
    until(lambda: any(HANGS[where](one) for one in wire.seen))
    time.sleep(0.2)
    process.send_signal(number)
    started = time.monotonic()
    ran = finish(process)
    assert time.monotonic() - started <= GONE_WITHIN + 1.0
    assert ran.code == code, ran.err
    wire.fresh()
    if where != "before anything is sent":  # that ends at once
        again = "Ctrl-C" if number == signal.SIGINT else "signal"
        assert f"ppcli: stopping: what is on its way gets up to 5.0s; a second {again} ends it at once\n" in ran.err
        assert "ppcli resume" in ran.err.splitlines()[-1], ran.err
        goes_on(cli)


def test_a_hangup_stops_in_good_order(cli: Cli, wire: Proxy) -> None:
    process = cli.start(*words(), "--json")
    under_way(wire)
    process.send_signal(signal.SIGHUP)
    ran = finish(process)
    assert (ran.code, ran.result["state"], ran.err) == (143, "paused", "")
    goes_on(cli)


@pytest.mark.parametrize("mode", [(), ("--json",)])
def test_suspended_and_continued_it_goes_on(cli: Cli, wire: Proxy, mode: tuple[str, ...]) -> None:
    process = cli.start(*words(40 * CHUNK), *mode)
    under_way(wire)
    process.send_signal(signal.SIGSTOP)
    until(lambda: stopped(process.pid))
    count = len(wire.seen)
    time.sleep(0.3)
    assert len(wire.seen) <= count + 2, "it was not suspended"
    process.send_signal(signal.SIGCONT)
    assert finish(process).code == 0
    cli.holds("a.bin", (cli.root / "a.bin").read_bytes())


def stopped(pid: int) -> bool:
    if sys.platform != "linux":
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_a_reader_that_leaves_and_no_stdin(cli: Cli, wire: Proxy) -> None:
    """SIGPIPE, with stdin closed: the upload goes on, and its exit code is that of the upload."""
    line = f"{' '.join(PPCLI)} {' '.join(words(1 << 30))} --json <&- | head -1 >/dev/null; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", line], env=cli.env, cwd=cli.root, capture_output=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")
    cli.holds("a.bin", (cli.root / "a.bin").read_bytes())


class Terminal:
    """The command on a terminal of its own; `output` is all that was shown."""

    def __init__(self, cli: Cli, *words: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(cli.root)
            os.execve(PPCLI[0], [*PPCLI, *words], cli.env)
        self.output = b""
        self.resize(100)

    def resize(self, columns: int) -> None:
        """Which sends SIGWINCH."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def read(self, seconds: float) -> bool:
        """What comes within the time; False at the end."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.fd], [], [], left)[0]:
                try:
                    data = os.read(self.fd, 1 << 16)
                except OSError:  # the end of a terminal
                    return False
                if not data:
                    return False
                self.output += data
        return True

    def type(self, text: bytes) -> None:
        os.write(self.fd, text)

    def end(self) -> Ran:
        deadline = time.monotonic() + 20
        while self.read(0.5):
            assert time.monotonic() < deadline
        _, status = os.waitpid(self.pid, 0)
        with contextlib.suppress(OSError):
            os.close(self.fd)
        return Ran(os.waitstatus_to_exitcode(status), self.output, "")


@_TERMINALS
def test_the_last_bars_are_true(cli: Cli, wire: Proxy) -> None:
    """Resized, then ^C: what the bars show in the end is what the manifest has."""
    terminal = Terminal(cli, *words())
    under_way(wire)
    for columns in (50, 130, 100):
        terminal.resize(columns)
        assert terminal.read(0.3)
    terminal.type(b"\x03")
    ran = terminal.end()
    assert ran.code == 130
    wire.fresh()
    lines = seen(ran.stdout.decode())
    (job,) = cli.json("status").of("job")
    assert "ppcli resume" in lines[-1]
    bars = [line.split() for line in lines if line.split()[:1] in (["Reserved"], ["Sent"], ["Confirmed"])][-3:]
    assert [bar[0] for bar in bars] == ["Reserved", "Sent", "Confirmed"]
    percent = 100 * job["bytes"]["confirmed"] // SIZE
    assert f"{percent}%" in bars[2] and bars[2][-1] == "paused", (bars, job)
    assert 0 < percent < 100
    assert "Traceback" not in ran.stdout.decode()
    goes_on(cli)


@_TERMINALS
def test_a_second_ctrl_c_ends_it_at_once(cli: Cli, wire: Proxy) -> None:
    wire.at(Rule(HANGS["a chunk"], instead=lambda: b"", hold=60, times=99))
    terminal = Terminal(cli, *words(1 << 30))
    until(lambda: any(one.chunk == 3 for one in wire.seen))
    terminal.type(b"\x03")
    until(lambda: b"second Ctrl-C" in terminal.output or not terminal.read(0.1))
    assert any("stopping" in line for line in seen(terminal.output.decode())), terminal.output
    started = time.monotonic()
    terminal.type(b"\x03")
    ran = terminal.end()
    assert ran.code == 130
    assert time.monotonic() - started < 2.0
    (job,) = cli.json("status").of("job")
    assert seen(ran.stdout.decode())[-1] == (
        f"ppcli: Stopped at once; everything confirmed is kept. To go on: {job['resume_command']}"
    )
    assert ran.stdout.endswith(b"\n")
    wire.fresh()
    goes_on(cli)
