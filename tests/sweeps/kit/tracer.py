"""`python -m sweeps.kit.tracer`: runs commands of ppcli under its eyes, as pickled orders come in on stdin.

Each is a process of its own, forked from this one, which has imported everything: most of what a start costs. Calls
that change something are made one at a time, in the order in which they came, so that "the tenth call" means something
and what is recorded is what happened.
"""

from __future__ import annotations

import os
import pickle
import runpy
import signal
import sys
import time
from collections import deque
from contextlib import suppress
from importlib import import_module

import small_chunks
from sweeps.kit import calls, ptrace
from sweeps.kit.calls import Call
from sweeps.kit.orders import Fail, Kill, Order, Report, When

from ppcli.targets import SCHEMES

_TORN = ("write", "send")


class Run:
    """One command under trace."""

    def __init__(self, order: Order) -> None:
        self._what = order.what
        self._report = Report(0)
        self._counted = 0
        self._waiting: deque[int] = deque()
        self._busy: int | None = None
        self._call: Call | None = None
        self._deadline = time.monotonic() + order.patience
        self._process = _start(order)
        self._threads = {self._process}

    def watch(self) -> Report:
        """Until it has ended."""
        while self._threads:
            thread, status = os.waitpid(-1, _WALL)
            if os.WIFSTOPPED(status):
                self._threads.add(thread)
                with suppress(ProcessLookupError):  # killed meanwhile; its end is told of next
                    self._stopped(thread, status)
            else:
                self._ended(thread, status)
            if time.monotonic() > self._deadline:
                os.kill(self._process, signal.SIGKILL)
        return self._report

    def _stopped(self, thread: int, status: int) -> None:
        number, event = os.WSTOPSIG(status), status >> 16
        if event == ptrace.EVENT_SECCOMP:
            self._waiting.append(thread)
        elif number == ptrace.SYSCALL_STOP:
            self._over(thread)
        elif event or number in (signal.SIGSTOP, signal.SIGTRAP):  # a thread was made, or begins
            ptrace.go_on(thread)
        else:
            ptrace.go_on(thread, number)
        self._next()

    def _ended(self, thread: int, status: int) -> None:
        self._threads.discard(thread)
        if thread == self._process:
            self._report.code = os.waitstatus_to_exitcode(status)
        if thread == self._busy:
            self._busy = None
        self._next()

    def _next(self) -> None:
        """The next call, if none is under way."""
        while self._busy is None and self._waiting:
            thread = self._waiting.popleft()
            if thread not in self._threads:
                continue
            try:
                self._begin(thread)
            except (ProcessLookupError, FileNotFoundError):  # killed meanwhile
                self._busy = None

    def _begin(self, thread: int) -> None:
        regs = ptrace.registers(thread)
        call = calls.decode(self._process, regs)
        if call is None:
            ptrace.go_on(thread)
            return
        self._busy, self._call = thread, call
        self._report.calls.append(call)
        match self._what:
            case Kill(at, when) if len(self._report.calls) == at and when is not When.AFTER:
                if when is When.BEFORE or call.kind not in _TORN or len(call.data) < 2:
                    self._kill()
                    return
                call.data = call.data[: len(call.data) // 2]
                regs.rdx = len(call.data)
                ptrace.set_registers(thread, regs)
            case Fail() as fail if fail.counts(call):
                self._counted += 1
                if self._counted == fail.at or (fail.lasting and self._counted > fail.at):
                    self._report.struck = True
                    ptrace.refuse(thread, regs, fail.errno)
        ptrace.to_its_end(thread)

    def _over(self, thread: int) -> None:
        assert self._call is not None and thread == self._busy
        self._call.result = ptrace.registers(thread).result
        self._busy = None
        match self._what:
            case Kill(at) if len(self._report.calls) == at:
                self._kill()
                return
        ptrace.go_on(thread)

    def _kill(self) -> None:
        self._report.struck = True
        os.kill(self._process, signal.SIGKILL)


_WALL = 0x40000000


def _start(order: Order) -> int:
    """The child, stopped before its first word."""
    child = os.fork()
    if child == 0:
        _become(order)
        sys.exit(70)
    _, status = os.waitpid(child, _WALL)
    assert os.WIFSTOPPED(status), status
    ptrace.attach(child)
    ptrace.go_on(child)
    return child


def _become(order: Order) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for fd, path in ((1, order.stdout), (2, order.stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), fd)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)
    os.environ.clear()
    os.environ.update(order.env)
    os.chdir(order.cwd)
    os.umask(0o022)
    sys.argv = ["ppcli", *order.words]
    ptrace.be_traced(calls.NUMBERS)
    runpy.run_module("ppcli", run_name="__main__")


def _import_everything() -> None:
    for name in ("ppcli.cli.main", "ppcli.app.putting", *SCHEMES.values()):
        import_module(name)
    small_chunks.allow()


def main() -> None:
    orders, reports = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _import_everything()
    while True:
        try:
            order = pickle.load(orders)
        except EOFError:
            return
        pickle.dump(Run(order).watch(), reports)
        reports.flush()


if __name__ == "__main__":
    main()
