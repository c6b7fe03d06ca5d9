"""Looking at many files side by side before anything is sent: in order, bounded, told by the clock, and soon over."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_kit import Cli, finish, until
from http_kit import Exchange, Server, message, reply, serving, silent

from ppcli import retry
from ppcli.app import examining
from ppcli.app.examining import Examination
from ppcli.app.planning import Unchanged
from ppcli.app.workplace import Workplace
from ppcli.collect import Found
from ppcli.errors import Credentials, Internal, Temporary, Transient
from ppcli.events import Event, FileCompleted, HashingProgress, Retrying
from ppcli.model import Action, Evidence
from ppcli.retry import Step

LAUNCH = 4.0
"""Seconds to be sure that a process is gone by itself: the watchdog takes 6.8."""


class Ear:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.ticks = 0
        self.on_retry: Callable[[], None] = lambda: None

    def hear(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Retrying):
            self.on_retry()

    def tick(self) -> None:
        self.ticks += 1


class Looking:
    """An examiner that does what the test says for each file (by number)."""

    def __init__(self, act: Callable[[int, Callable[[int], None]], object], size: int = 0) -> None:
        self._act, self._size = act, size
        self._lock = threading.Lock()
        self.begun = 0

    def examine(self, found: Found, path: Path, on_bytes: Callable[[int], None]) -> Unchanged:
        with self._lock:
            self.begun += 1
        self._act(int(found.name), on_bytes)
        told = FileCompleted(None, found.name, "", 0, found.name, None, Action.UNCHANGED, 0, Evidence.CONTENT)
        return Unchanged(told, 1)

    def unknown(self, path: Path) -> int:
        return self._size


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def place(ear: Ear) -> Iterator[Workplace]:
    with Workplace(ear, lambda question: None) as opened:
        yield opened


def look(place: Workplace, examiner: Looking, count: int) -> Iterator[str]:
    files = [(Found(str(number), Path(str(number))), Path(str(number))) for number in range(count)]
    for found, seen in Examination(place, examiner).run(files):  # type: ignore[arg-type]
        assert isinstance(seen, Unchanged) and seen.told.name == found.name
        yield found.name


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("examine")]


def test_what_was_seen_comes_in_order_and_the_workers_go(place: Workplace) -> None:
    assert list(look(place, Looking(lambda number, on_bytes: None), 1000)) == [str(n) for n in range(1000)]
    until(lambda: not workers())
    assert list(look(place, Looking(lambda number, on_bytes: None), 3)) == ["0", "1", "2"], "once more is fine"
    assert list(look(place, Looking(lambda number, on_bytes: None), 0)) == []


def test_many_files_ask_at_once_also_while_bytes_are_to_be_read(place: Workplace) -> None:
    together = threading.Barrier(8)
    assert len(list(look(place, Looking(lambda number, on_bytes: together.wait(20), size=5), 16))) == 16


def test_only_so_many_are_looked_at_ahead(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    first = threading.Event()
    monkeypatch.setattr(examining, "_WINDOW", 100)
    examiner = Looking(lambda number, on_bytes: number or first.wait(20))
    seen = look(place, examiner, 2000)

    def let_go() -> None:
        until(lambda: examiner.begun >= 100)
        first.set()

    threading.Thread(target=let_go).start()
    next(seen)
    assert examiner.begun == 100
    assert len(list(seen)) == 1999


def test_a_later_file_that_halts_stops_the_others_at_once(place: Workplace) -> None:
    hanging, left = threading.Event(), threading.Event()

    def act(number: int, on_bytes: Callable[[int], None]) -> None:
        if number == 5:
            raise Credentials("No token.")
        if number == 0:
            hanging.wait(20)
            try:
                on_bytes(1)
            finally:
                left.set()

    with pytest.raises(Credentials):
        list(look(place, Looking(act), 20))
    hanging.set()
    assert left.wait(20)
    until(lambda: not workers())


def test_an_error_that_nobody_expected_is_raised_and_ends_it(place: Workplace) -> None:
    def act(number: int, on_bytes: Callable[[int], None]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(look(place, Looking(act), 50))
    until(lambda: not workers())


def test_ticks_and_progress_come_by_the_clock_though_no_file_takes_long(
    place: Workplace, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = itertools.count(0.0, 0.1)

    class Clock:
        monotonic = staticmethod(lambda: next(moments))

    monkeypatch.setattr(examining, "time", Clock)
    monkeypatch.setattr(examining, "_WINDOW", 1)
    assert len(list(look(place, Looking(lambda number, on_bytes: on_bytes(7), size=7), 100))) == 100
    told = [event for event in ear.events if isinstance(event, HashingProgress)]
    assert ear.ticks > 20 and len(told) > 5
    assert told[-1].bytes_hashed == told[-1].bytes_total == 700


# Calls outside a run


def test_nothing_is_told_and_nothing_tried_again_after_the_end(ear: Ear) -> None:
    ended: list[BaseException] = []
    waiting = threading.Event()
    ear.on_retry = waiting.set

    def call(place: Workplace) -> None:
        def attempt() -> None:
            raise Transient("dead", retry_after=60)

        try:
            place.call(Step.FIND, "a", attempt)
        except BaseException as error:
            ended.append(error)

    with Workplace(ear, lambda question: None) as place:
        thread = threading.Thread(target=call, args=(place,), daemon=True)
        thread.start()
        assert waiting.wait(20)
    thread.join(20)
    assert isinstance(ended[0], Internal)
    place.warn("late", "too late")
    place.listener.tick()
    assert [type(event) for event in ear.events] == [Retrying] and ear.ticks == 0


def test_all_calls_wait_while_the_host_asks_for_it(place: Workplace, ear: Ear) -> None:
    waiting, failures = threading.Event(), [Transient("busy", retry_after=0.4)]
    ear.on_retry = waiting.set

    def attempt() -> None:
        if failures:
            raise failures.pop()

    thread = threading.Thread(target=place.call, args=(Step.FIND, "a", attempt))
    thread.start()
    assert waiting.wait(20)
    begun = time.monotonic()
    place.call(Step.FIND, "b", lambda: None)
    assert time.monotonic() - begun > 0.2
    thread.join(20)


def test_the_retries_of_the_command_count(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_backoff", lambda _state: 0.0)
    tries: list[int] = []

    def attempt() -> None:
        tries.append(1)
        raise Transient("dead")

    with Workplace(ear, lambda question: None, retries=2) as place, pytest.raises(Temporary, match="after 2 attempts"):
        place.call(Step.FIND, "a", attempt)
    assert len(tries) == 2


# The whole command


def refuse(exchange: Exchange) -> None:
    exchange.read()
    exchange.send(message(401, b"{}"))


def begin(root: Path, server: Server, files: int, *words: str) -> subprocess.Popen[bytes]:
    cli = Cli(root, server.base)
    for number in range(files):
        cli.source(f"tree/{number}")
    return cli.start("put", "-r", "tree", "--json", *words)


def test_a_signal_while_the_server_is_silent(root: Path) -> None:
    with serving(silent) as server:
        process = begin(root, server, 5)
        until(lambda: server.heard)  # the others wait for what this one is told
        asked = time.monotonic()
        process.send_signal(signal.SIGINT)
        ran = finish(process)
    assert time.monotonic() - asked < LAUNCH
    assert (ran.code, ran.err) == (130, "")
    assert ran.result["error"]["kind"] == "interrupted"


def test_a_second_signal_says_nothing_more(root: Path) -> None:
    with serving(silent) as server:
        process = begin(root, server, 5)
        until(lambda: server.heard)  # the others wait for what this one is told
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        told = process.stdout.read()
        process.send_signal(signal.SIGINT)
        process.wait(30)
        assert process.stderr is not None and process.stderr.read() == b""
        process.stdout.close()
        process.stderr.close()
    assert [json.loads(line)["event"] for line in told.splitlines()][-1] == "result"


def test_one_refusal_ends_the_command_though_others_hang(root: Path) -> None:
    with serving(reply(404), silent, silent, refuse, silent) as server:
        begun = time.monotonic()
        ran = finish(begin(root, server, 5))
    assert (ran.code, ran.result["error"]["kind"], ran.result["state"]) == (3, "credentials", "paused")
    assert time.monotonic() - begun < LAUNCH + 2


def test_the_retries_of_put_count_while_files_are_looked_at(root: Path) -> None:
    def busy(exchange: Exchange) -> None:
        exchange.read()
        exchange.send(message(503, b"busy"))

    with serving(busy) as server:
        ran = finish(begin(root, server, 1, "--retries", "2"))
        asked = len(server.heard)
    assert (ran.code, ran.result["state"], asked) == (75, "paused", 2)
    assert "ppcli resume" in ran.result["error"]["hint"]
