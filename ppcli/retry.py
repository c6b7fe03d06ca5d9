"""The retry policy: the only place that tries again. Targets make one attempt per call and say what went wrong."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from ppcli.errors import KEPT, Crowded, Damaged, Further, Temporary, Transient
from ppcli.halt import Halt

if TYPE_CHECKING:  # loaded once something has failed
    from tenacity import RetryCallState
    from tenacity.wait import wait_base

T = TypeVar("T")

BACKOFF_MIN = 0.5
BACKOFF_MAX = 30.0
RETRY_AFTER_MAX = 300.0
"""Seconds. A target that asks for a longer pause than RETRY_AFTER_MAX ends the run (exit 75)."""


class Step(StrEnum):
    FIND = "find"
    LIST = "list"
    OPEN = "open"
    SURVEY = "survey"
    RESERVE = "reserve"
    ADOPT = "adopt"
    UPLOAD = "upload"
    CONFIRM = "confirm"
    COMPLETE = "complete"
    ABORT = "abort"
    READ = "read"
    REMOVE = "remove"
    RECOVER = "recover"
    LOGIN = "login"

    @property
    def doing(self) -> str:
        """As it follows "Could not"."""
        return "look for" if self is Step.FIND else self.value


@dataclass(frozen=True, slots=True)
class Attempt:
    """A call that failed and will be made again: attempt `number` failed, `delay` seconds until the next."""

    step: Step
    name: str
    chunk: int | None
    number: int
    delay: float
    cause: str


class Gate:
    """Shared by all workers that talk to one host: when it asks for a pause, all of them pause."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opens = 0.0
        self.held = False
        """Whether it ever was: the usual call need not look further."""

    def hold(self, seconds: float) -> None:
        with self._lock:
            self._opens = max(self._opens, time.monotonic() + seconds)
            self.held = True

    @property
    def closed(self) -> bool:
        return self._opens > time.monotonic()

    def wait(self, halt: Halt) -> None:
        while (left := self._opens - time.monotonic()) > 0:
            halt.sleep(left)


class Retrier:
    """Makes step calls: the same call up to `attempts` times, with exponential backoff and jitter."""

    def __init__(self, attempts: int, gate: Gate, halt: Halt, tell: Callable[[Attempt], None]) -> None:
        self._attempts = max(1, attempts)
        self._gate = gate
        self._halt = halt
        self._tell = tell

    def call(self, step: Step, name: str, chunk: int | None, attempt: Callable[[], T]) -> T:
        """The result of `attempt()`. `Transient` failures are tried again, the last one becomes `Temporary` (exit 75).
        `Damaged` passes through: the same call again does not mend it. After `Further` the attempts begin anew, at
        once. Raises `Stopped` when the run halts."""
        while True:
            if self._gate.held:
                self._gate.wait(self._halt)
            try:
                return attempt()
            except Damaged:
                raise
            except Further:
                self._halt.sleep(0)
            except Transient as first:  # the usual call pays nothing for the machinery behind this
                with contextlib.suppress(Further):
                    return self._again(step, name, chunk, attempt, first)
                self._halt.sleep(0)

    @property
    def pauses(self) -> bool:
        """All workers pause."""
        return self._gate.closed

    def pause(self, step: Step, name: str, chunk: int | None, number: int, failure: Transient) -> None:
        """Wait the backoff after attempt `number` of something that is more than one call."""
        delay = min(BACKOFF_MAX, BACKOFF_MIN * 2 ** (number - 1))
        self._tell(Attempt(step, name, chunk, number, delay, failure.cause))
        self._halt.sleep(delay)

    def exhausted(self, number: int) -> bool:
        return number >= self._attempts

    def _again(self, step: Step, name: str, chunk: int | None, attempt: Callable[[], T], first: Transient) -> T:
        from tenacity import Retrying, retry_if_exception, stop_after_attempt

        pending: list[Transient] = [first]

        def replayed() -> T:
            if pending:
                raise pending.pop()
            self._gate.wait(self._halt)
            return attempt()

        def before_sleep(state: RetryCallState) -> None:
            failure = state.outcome.exception() if state.outcome else None
            cause = failure.cause if isinstance(failure, Transient) else str(failure)
            self._tell(Attempt(step, name, chunk, state.attempt_number, state.upcoming_sleep, cause))

        retrying = Retrying(
            stop=stop_after_attempt(self._attempts),
            wait=self._delay,
            sleep=self._halt.sleep,
            retry=retry_if_exception(lambda e: isinstance(e, Transient) and not isinstance(e, Damaged | Further)),
            before_sleep=before_sleep,
            reraise=True,
        )
        try:
            return retrying(replayed)
        except (Damaged, Further):
            raise
        except Transient as last:
            raise Temporary(
                f"Could not {step.doing} {_what(name, chunk)} after {_times(self._attempts)}: {last.cause}.",
                hint=f"{KEPT}; run 'ppcli resume' when the target can be reached again.",
                reason=last.reason,
            ) from last

    def _delay(self, state: RetryCallState) -> float:
        delay = _backoff(state)
        failure = state.outcome.exception() if state.outcome else None
        if isinstance(failure, Transient) and failure.retry_after is not None:
            if failure.retry_after > RETRY_AFTER_MAX:
                raise Temporary(
                    f"The target asks to wait {failure.retry_after:.0f} seconds: {failure.cause}.",
                    hint=f"{KEPT}; run 'ppcli resume' after that time.",
                    reason="retry_after",
                )
            if not isinstance(failure, Crowded):  # sessions that are open go on, so that one of them ends
                self._gate.hold(failure.retry_after)
            delay = max(delay, failure.retry_after)
        return delay


def _backoff(state: RetryCallState) -> float:
    return float(_wait()(state))


@cache
def _wait() -> wait_base:
    from tenacity import wait_exponential, wait_random

    return wait_exponential(multiplier=BACKOFF_MIN, max=BACKOFF_MAX - BACKOFF_MIN) + wait_random(0, BACKOFF_MIN)


def _what(name: str, chunk: int | None) -> str:
    return name if chunk is None else f"chunk {chunk} of {name}"


def _times(attempts: int) -> str:
    return "1 attempt" if attempts == 1 else f"{attempts} attempts"
