"""Attempts to send a chunk that are under way."""

from __future__ import annotations

import time

from ppcli.calls import Call
from ppcli.errors import Transient
from ppcli.model import Receipt
from ppcli.pipeline.work import Unit
from ppcli.source import ChunkBody


class Begun:
    """The first attempt to send a chunk: as much of it as needs no waiting is made here, and nothing is raised before
    its outcome is asked for. One thread uses it."""

    def __init__(self, unit: Unit, body: ChunkBody, call: Call[Receipt]) -> None:
        self.unit = unit
        self.body = body
        self._call = call
        self._outcome: Receipt | Exception | None = None
        self._known = 0.0
        self._go_on()

    def failed(self) -> bool:
        """Wait for the outcome: will it be raised?"""
        return isinstance(self._wait(), Exception)

    def outcome(self) -> Receipt:
        """Wait for it. Raises what the call does; a pause that the target asked for then is as long as what is left."""
        outcome = self._wait()
        if isinstance(outcome, Transient) and outcome.retry_after is not None:
            outcome.retry_after = max(0.0, outcome.retry_after - (time.monotonic() - self._known))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _wait(self) -> Receipt | Exception:
        while self._outcome is None:
            self._go_on()
        return self._outcome

    def _go_on(self) -> None:
        try:
            next(self._call)
            return
        except StopIteration as end:
            self._outcome = end.value
        except Exception as error:  # whatever it is, it is told to who asks
            self._outcome = error
        self._known = time.monotonic()
