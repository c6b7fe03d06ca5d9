"""Attempts to send a chunk that are under way."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator, Sequence

from ppcli.bodies import ChunkBody
from ppcli.calls import Call
from ppcli.errors import Transient
from ppcli.model import Receipt


class Begun:
    """The first attempt to send a chunk: as much of it as needs no waiting is made here, and nothing is raised before
    its outcome is asked for. `descriptor` is where the reply comes. One thread at a time uses it."""

    def __init__(self, body: ChunkBody, start: Callable[[ChunkBody], Call[Receipt]]) -> None:
        self.body = body
        self.descriptor = -1
        self._call: Call[Receipt] | None = None
        self._receipt: Receipt | None = None
        self._error: Exception | None = None
        self._failed_at = 0.0
        try:
            self._call = start(body)
        except Exception as error:  # whatever it is, it is told to who asks
            self._error = error
        self.go_on()

    @property
    def succeeded(self) -> bool:
        return self._receipt is not None

    @property
    def failed(self) -> bool:
        return self._error is not None

    @property
    def waits(self) -> bool:
        """Its outcome is not known yet."""
        return self._call is not None

    def go_on(self) -> None:
        """Read the reply; not to be called before it is there, unless there is time to wait."""
        if self._call is None:
            return
        try:
            self.descriptor = next(self._call)
            return
        except StopIteration as end:
            self._receipt = end.value
        except Exception as error:  # whatever it is, it is told to who asks
            self._error, self._failed_at = error, time.monotonic()
        self._call = None

    def wait(self) -> None:
        """Until its outcome is known."""
        while self.waits:
            self.go_on()

    def outcome(self) -> Receipt:
        """Wait for it. Raises what the call does, once; a pause that the target asked for then is as long as what is
        left of it."""
        self.wait()
        error, self._error = self._error, None  # its traceback leads here
        if isinstance(error, Transient) and error.retry_after is not None:
            error.retry_after = max(0.0, error.retry_after - (time.monotonic() - self._failed_at))
        if error is not None:
            raise error
        assert self._receipt is not None
        return self._receipt


def in_order_of_reply(begun: Sequence[Begun], patience: float) -> Iterator[Begun]:
    """Those whose outcome is known, as soon as it is, until nothing has come for `patience` seconds. Where the system
    cannot watch many descriptors (Windows), only those that did not wait."""
    waiting: dict[int, Begun] = {}
    for one in begun:
        if one.waits:
            waiting[one.descriptor] = one
        else:
            yield one
    if not hasattr(select, "poll"):
        return
    poll = select.poll()
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    while waiting and (ready := poll.poll(patience * 1000)):
        for descriptor, _ in ready:
            poll.unregister(descriptor)
            one = waiting.pop(descriptor)
            one.go_on()
            if one.waits:  # part of it is there, or it was sent again, on another connection
                waiting[one.descriptor] = one
                poll.register(one.descriptor, select.POLLIN)
            else:
                yield one


def replies_first(begun: Sequence[Begun], patience: float) -> Iterator[Begun]:
    """All of them: as `in_order_of_reply`, and then those that have said nothing by then."""
    left = dict.fromkeys(begun)
    for one in in_order_of_reply(begun, patience):
        del left[one]
        yield one
    yield from left
