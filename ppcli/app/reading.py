"""The bytes of stored objects, in order and under the retry policy: read to the end by one request, or in ranges side
by side where the target gives ranges."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from ppcli.app.workplace import Workplace
from ppcli.errors import Integrity, StepFailure
from ppcli.halt import Stopped
from ppcli.model import Remote
from ppcli.retry import Step
from ppcli.target import PIECE, Ranged, Store

RANGES = 6
"""Ranges that are on their way, or wait in memory for those before them: of all files together."""


class Reader:
    """Any number of threads may read, different objects."""

    def __init__(self, place: Workplace, store: Store) -> None:
        self._place = place
        self._store = store
        self._room = threading.Semaphore(RANGES)
        self._pool = ThreadPoolExecutor(RANGES, "range")

    def read(self, remote: Remote, offset: int) -> Iterator[memoryview]:
        """The bytes from `offset` on; a piece is valid until the next. Raises what the target raises for good."""
        if isinstance(self._store, Ranged) and (size := self._store.range_size(remote)):
            spans = _spans(offset, remote.size, size)
            if len(spans) > 1:
                return self._side_by_side(self._store, remote, spans)
        return self._on(remote, lambda done: self._store.read(remote, offset + done))

    def close(self) -> None:
        """Ranges on their way are abandoned."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _side_by_side(self, store: Ranged, remote: Remote, spans: Sequence[range]) -> Iterator[memoryview]:
        """A range is asked for once there is room for it, so that what waits for its turn stays bounded; whoever waits
        for room holds none, so that nobody waits for ever."""
        coming: deque[Future[memoryview]] = deque()
        left = deque(spans)
        try:
            while left or coming:
                while left and self._room.acquire(blocking=not coming):
                    coming.append(self._asked(store, remote, left.popleft()))
                data = coming[0].result()
                for at in range(0, len(data), PIECE):
                    yield data[at : at + PIECE]
                coming.popleft()
                self._room.release()
        finally:
            for future in coming:
                future.cancel()
                self._room.release()

    def _asked(self, store: Ranged, remote: Remote, span: range) -> Future[memoryview]:
        try:
            return self._pool.submit(self._range, store, remote, span)
        except RuntimeError:  # closed meanwhile: others wait for the same room, to learn that
            self._room.release()
            raise

    def _range(self, store: Ranged, remote: Remote, span: range) -> memoryview:
        size = len(span)
        data, at = memoryview(bytearray(size)), 0

        def begin(done: int) -> Iterator[memoryview]:  # a reply may break off behind its last byte
            return store.read_range(remote, span.start + done, size - done) if done < size else iter(())

        for piece in self._on(remote, begin):
            if len(piece) > size - at:
                raise Integrity(
                    f"More of {remote.name} came than was asked for.",
                    hint="Check what stands between here and the target, then run the same command again.",
                    reason="damaged",
                )
            data[at : at + len(piece)] = piece
            at += len(piece)
        return data[:at]

    def _on(self, remote: Remote, begin: Callable[[int], Iterator[memoryview]]) -> Iterator[memoryview]:
        """What `begin(0)` gives; where that breaks off after n bytes, it goes on with `begin(n)`, and each piece that
        comes gives it all attempts anew."""
        done = 0
        pieces: Iterator[memoryview] | None = None

        def following() -> memoryview | None:
            nonlocal pieces
            if self._place.halt.requested:  # the command is over: nobody waits for this one
                raise Stopped
            if pieces is None:
                pieces = begin(done)
            try:
                return next(pieces, None)
            except StepFailure:
                pieces = None
                raise

        while (piece := self._place.call(Step.READ, remote.name, following)) is not None:
            done += len(piece)
            yield piece


def _spans(offset: int, end: int, size: int) -> Sequence[range]:
    """What is left from `offset` on, cut at the multiples of `size`."""
    starts = [offset, *range((offset // size + 1) * size, end, size)]
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], end], strict=True)]
