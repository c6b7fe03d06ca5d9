"""Many questions in one request: who joins, and what becomes of them when the one who asks fails or is stopped."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from ppcli.targets.together import Together


class Stop(BaseException):
    """Somebody is told to leave in the middle."""


class Held:
    """Holds the first request until it is let go; it ends with an `error`, where there is one."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.begun, self.go = threading.Event(), threading.Event()
        self.asked: list[list[str]] = []

    def __call__(self, questions: Sequence[str]) -> Mapping[str, str]:
        self.asked.append(list(questions))
        if len(self.asked) == 1:
            self.begun.set()
            assert self.go.wait(10)
            if self.error is not None:
                raise self.error
        return {question: question.upper() for question in questions}


def waiting(together: Together[str], count: int) -> None:
    while len(together._waiting) < count:
        threading.Event().wait(0.001)


@pytest.mark.parametrize("error", [None, OSError("no")])
def test_who_comes_meanwhile_joins_the_next_request(error: OSError | None) -> None:
    ask = Held(error)
    together = Together(ask, 2)
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(together.get, "a")
        assert ask.begun.wait(10)
        others = {question: pool.submit(together.get, question) for question in ("b", "c", "d")}
        waiting(together, 3)
        ask.go.set()
        assert {question: other.result(10) for question, other in others.items()} == {"b": "B", "c": "C", "d": "D"}
        assert first.exception(10) is error
    assert sorted(map(len, ask.asked)) == [1, 1, 2]


def test_who_is_stopped_leaves_nobody_waiting() -> None:
    ask = Held(Stop())
    together = Together(ask, 10)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(together.get, "a")
        assert ask.begun.wait(10)
        other = pool.submit(together.get, "b")
        waiting(together, 1)
        ask.go.set()
        assert isinstance(first.exception(10), Stop) and isinstance(other.exception(10), Stop)
        assert pool.submit(together.get, "c").result(10) == "C"
