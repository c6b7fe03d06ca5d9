"""Which points of a sweep one test takes, what became of them, and the table of them all at the end."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

LONG = 4
"""Slices that the long sweep of one target is cut into, so that all processors have something to do."""
EVERY_SLICE = [None, *(pytest.param(n, marks=[pytest.mark.sweep, pytest.mark.timeout(1800)]) for n in range(LONG))]
"""None: a few points from all over the run, for the default suite."""


@dataclass(slots=True)
class Outcome:
    """Of some points of one sweep of one target. `struck`: so many were met."""

    sweep: str
    target: str
    seed: int
    struck: int = 0
    violations: list[str] = field(default_factory=list)


class Sweep:
    """Of one test: slice `part` of the sweep of a target. `keep` puts what came of it in the test's report."""

    def __init__(
        self, outcome: Outcome, part: int | None, rng: random.Random, keep: Callable[[object], None], *, every: bool
    ) -> None:
        """`every`: all points, where the long version would take some of each stretch of a run."""
        self.rng = rng
        self._outcome, self._part, self._keep, self._every = outcome, part, keep, every

    def over(self, points: Sequence[T], trial: Callable[[T], bool], *, few: int, many: int) -> None:
        """Try this slice's points: as many as come to `many` over all slices, or `few` in the short version. `trial`
        says whether its point was met. One that fails does not stop the others, only the test at its end."""
        outcome = self._outcome
        for point in self._share(points, few, many):
            try:
                outcome.struck += trial(point)
            except Exception as error:  # whatever a broken promise raises here
                outcome.struck += 1
                at = traceback.extract_tb(error.__traceback__)[-1]
                outcome.violations.append(f"{point}, {Path(at.filename).name}:{at.lineno}: {error!r}")
        self._keep(asdict(outcome))
        if outcome.violations:
            pytest.fail("\n".join([f"seed {outcome.seed}:", *outcome.violations]), pytrace=False)
        assert outcome.struck, "no point was met"

    def _share(self, points: Sequence[T], few: int, many: int) -> Sequence[T]:
        """From all over the run, one out of each stretch of it: which, the seed decides."""
        if self._part is not None:
            points, few = points[self._part :: LONG], len(points) if self._every else -(-many // LONG)
        count = min(few, len(points))
        step = len(points) / count if count else 0
        return [points[int((n + self.rng.random()) * step)] for n in range(count)]


def table(reports: Iterable[pytest.TestReport]) -> list[str]:
    """What the sweeps in these reports came to, a line for each target."""
    sums: dict[tuple[str, str], Outcome] = {}
    for report in reports:
        for key, value in report.user_properties:
            if key == "sweep":
                _add(sums, value)  # type: ignore[arg-type]
    if not sums:
        return []
    lines = [f"{'sweep':8} {'target':32} {'points':>8} {'violations':>12} {'seed':>12}"]
    lines += [
        f"{one.sweep:8} {one.target:32} {one.struck:8} {len(one.violations):12} {one.seed:12}"
        for _, one in sorted(sums.items())
    ]
    for name in sorted({one.sweep for one in sums.values()}):
        mine = [one for one in sums.values() if one.sweep == name]
        points, wrong = sum(one.struck for one in mine), sum(len(one.violations) for one in mine)
        lines.append(f"{name:8} {'all':32} {points:8} {wrong:12}")
    return lines


def _add(sums: dict[tuple[str, str], Outcome], value: dict[str, Any]) -> None:
    one = Outcome(**value)
    known = sums.setdefault((one.sweep, one.target), Outcome(one.sweep, one.target, one.seed))
    known.struck += one.struck
    known.violations += one.violations
