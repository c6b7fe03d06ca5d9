"""One request for many questions: whoever asks while a request is under way joins the next one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

A = TypeVar("A")


class Together(Generic[A]):
    """Any number of threads may ask. The one that finds no request under way sends for all, until nobody waits."""

    def __init__(self, ask: Callable[[Sequence[str]], Mapping[str, A]], most: int) -> None:
        """`ask` answers up to `most` different questions at once."""
        self._ask = ask
        self._most = most
        self._guard = threading.Lock()
        self._waiting: dict[str, Future[A]] = {}
        self._asking = False

    def get(self, question: str) -> A:
        """Its answer. Raises what `ask` raised for those it was asked with."""
        with self._guard:
            answer = self._waiting.setdefault(question, Future())
            leads, self._asking = not self._asking, True
        if leads:
            self._lead()
        return answer.result()

    def _lead(self) -> None:
        while True:
            with self._guard:
                batch = {question: self._waiting[question] for question in list(self._waiting)[: self._most]}
                for question in batch:
                    del self._waiting[question]
                self._asking = bool(batch)
            if not batch:
                return
            try:
                answers = self._ask(list(batch))
                for question, answer in batch.items():
                    answer.set_result(answers[question])
            except BaseException as error:  # somebody waits for each; it belongs to all of them
                for answer in batch.values():
                    if not answer.done():
                        answer.set_exception(error)
                if not isinstance(error, Exception):
                    raise
