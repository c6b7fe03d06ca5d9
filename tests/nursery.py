"""Processes of `ppcli serve` that are forked from one which has imported everything: most of what a start costs.

They are processes like others: a pid of their own, signals, kills, an exit code. `Forked` is used like a Popen.

    python tests/nursery.py FD      the process they come from; it ends when the other end of the socket FD is closed
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

import small_chunks


class Forked:
    """A running `ppcli` with these words; stdin is empty."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str], stderr: IO[bytes], umask: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        read, write = os.pipe()
        with theirs, open(os.devnull, "rb") as nothing:
            order = json.dumps({"words": list(words), "env": dict(env), "cwd": str(Path.cwd()), "umask": umask})
            fds = [nothing.fileno(), write, stderr.fileno(), theirs.fileno()]
            with contextlib.closing(os.fdopen(write, "wb")):
                socket.send_fds(_nursery(), [order.encode()], fds)
        self.stdout: IO[bytes] = os.fdopen(read, "rb")
        self.returncode: int | None = None
        self._told = ours
        self.pid = int(ours.recv(64))

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[bytes, None]:
        """The rest of stdout, when it has ended. Raises TimeoutExpired."""
        if not select.select([self._told], [], [], timeout)[0]:
            assert timeout is not None
            raise subprocess.TimeoutExpired("ppcli serve", timeout)
        self.returncode = int(self._told.recv(64))
        self._told.close()
        with self.stdout:
            return self.stdout.read(), None


@cache
def _nursery() -> socket.socket:
    """The socket of this process's nursery. Each order on it is one packet."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path])}
    with theirs:
        words = [sys.executable, __file__, str(theirs.fileno())]
        process = subprocess.Popen(words, pass_fds=[theirs.fileno()], env=env)

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve(orders: socket.socket) -> None:
    """Fork for each order: first one who waits for the exit code, and from that the server."""
    import ppcli.cli.main
    import ppcli.server.run  # noqa: F401

    small_chunks.allow()

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        order, fds, _, _ = socket.recv_fds(orders, 1 << 20, 4)
        if not order:
            return
        if os.fork() == 0:
            break
        for fd in fds:
            os.close(fd)
    orders.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid:
        for fd in fds[:3]:
            os.close(fd)
        os.write(fds[3], b"%d" % pid)
        _, status = os.waitpid(pid, 0)
        os.write(fds[3], b"%d" % os.waitstatus_to_exitcode(status))
        os._exit(0)
    os.close(fds.pop())
    _become(json.loads(order), fds)


def _become(order: dict[str, object], fds: list[int]) -> None:
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)
    os.environ.clear()
    os.environ.update(order["env"])  # type: ignore[call-overload]
    os.chdir(str(order["cwd"]))
    os.umask(int(str(order["umask"])))
    sys.argv = ["ppcli", *order["words"]]  # type: ignore[misc]
    runpy.run_module("ppcli", run_name="__main__")


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
