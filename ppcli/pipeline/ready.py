"""What the upload stage does next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ppcli.pipeline.work import Burst, Late, SendWork, UnderWay, Unit


class ReadyQueue:
    """Chunks that have a slot, in their order, and before them what needs no place. There are as many places as chunks
    may be in flight. The feed's lock is held by the callers of every method."""

    def __init__(self, places: int, took: Callable[[Unit], None]) -> None:
        """`took` is told of each chunk that is handed out."""
        self._works: deque[SendWork] = deque()
        self._places = places
        self._took = took

    def __len__(self) -> int:
        return len(self._works)

    def add(self, unit: Unit) -> None:
        self._works.append(unit)

    def add_first(self, work: SendWork) -> None:
        self._works.appendleft(work)

    def free_place(self) -> None:
        self._places += 1

    def has_work(self) -> bool:
        return bool(self._works) and (self._places > 0 or not isinstance(self._works[0], Unit))

    def next(self, burst: Callable[[], int]) -> SendWork | Burst | None:
        """None where nothing can be done now. `burst` tells how many small chunks one worker may send at once."""
        while self.has_work():
            work = self._works.popleft()
            if isinstance(work, Late):
                return work
            if work.run.dead:
                continue
            if not isinstance(work, Unit):
                work.run.users += 1
                return work
            self._hand_out(work)
            return self._with_others(work, burst()) if work.small else work
        return None

    def under_way(self) -> UnderWay | None:
        """All that was sent already, once."""
        sent = {work.begun: work.unit for work in self._works if isinstance(work, Late) and work.begun is not None}
        if sent:
            self._works.clear()
        return UnderWay(sent) if sent else None

    def _with_others(self, first: Unit, most: int) -> Unit | Burst:
        units = [first]
        while len(units) < most and self._places and self._works:
            unit = self._works[0]
            if not (isinstance(unit, Unit) and unit.small):
                break
            self._works.popleft()
            self._hand_out(unit)
            units.append(unit)
        return Burst(units) if len(units) > 1 else first

    def _hand_out(self, unit: Unit) -> None:
        unit.run.users += 1
        self._places -= 1
        self._took(unit)
