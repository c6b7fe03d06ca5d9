"""Sessions that end at a fixed time: will what is left be there before? Pure, but for the clock that callers bring."""

from __future__ import annotations

from collections.abc import Sequence

from ppcli.errors import Integrity, Loss, PpcliError, Rejected, SessionLost, Temporary
from ppcli.pipeline.meter import Meter
from ppcli.pipeline.work import FileRun
from ppcli.units import format_duration, format_rate, format_size

_MEASURE = 10.0
"""Seconds of sending after which a rate is worth a forecast; a tenth of the session's time where that is less."""


class Forecast:
    """Warns once of each session that is going to end too early."""

    def __init__(self, now: float = 0.0) -> None:
        self._warned: set[str] = set()
        self._looked = now

    def due(self, now: float) -> bool:
        """Once a second."""
        if now - self._looked < 1.0:
            return False
        self._looked = now
        return True

    def warnings(self, runs: Sequence[FileRun], meter: Meter, now: float) -> list[str]:
        """A sentence for each session that will end before its file is there at the rate so far. `now` is in seconds
        since the epoch."""
        ending = sorted((run for run in runs if _ends(run) is not None), key=lambda run: _ends(run) or 0.0)
        if not ending or meter.since is None or now <= meter.since:
            return []
        told, ahead, rate = [], 0, meter.bytes_sent / (now - meter.since)
        for run in ending:
            ends = _ends(run)
            assert ends is not None
            ahead += _missing(run)
            measured = now - meter.since >= min(_MEASURE, (ends - meter.since) / 10)
            if rate > 0 and measured and now + ahead / rate > ends and run.session.id not in self._warned:
                self._warned.add(run.session.id)
                told.append(_too_slow(run, ahead, rate, ends - now))
        return told


def lost_again(run: FileRun, lost: SessionLost) -> PpcliError:
    """The error for a file that lost its session for the second time in one run."""
    name, ends = run.entry.name, run.session.expires_at
    if lost.loss is Loss.EXPIRED and ends is not None and run.opened is not None:
        needed = format_rate(run.plan.size / max(ends - run.opened, 1.0))
        return Rejected(
            f"The target's sessions end before {name} can be sent: it takes more than {needed}.",
            hint="Use a faster connection, a larger --limit-rate, or another target; then run 'ppcli resume'.",
            reason="session_too_short",
        )
    if lost.loss is Loss.POISONED:
        return Integrity(
            f"{name} arrived damaged twice: {lost.cause}.",
            hint="Check the network path and the target's disk, then run 'ppcli resume'.",
            reason="damaged",
        )
    if lost.loss is Loss.BEHIND:
        return Temporary(
            f"The target lost bytes of {name} that it had confirmed, twice: {lost.cause}.",
            hint="Check its disk; 'ppcli resume' sends what it lacks.",
            reason="behind",
        )
    return forgotten(name, lost)


def forgotten(name: str, lost: SessionLost) -> Rejected:
    """The error for a file whose session was simply gone for the second time."""
    return Rejected(
        f"The target forgot the upload of {name} twice: {lost.cause}.",
        hint="Find out why its sessions end early, then run 'ppcli resume'.",
        reason="session_lost",
    )


def starting_over(name: str, lost: SessionLost, confirmed: int) -> str:
    """What users are told when a session is lost; `confirmed` bytes had been there."""
    if lost.loss is Loss.BEHIND:
        return f"The target lost bytes of {name} that it had confirmed, they are sent again: {lost.cause}."
    again = f"{format_size(confirmed)} that were there are sent again" if confirmed else "nothing was there yet"
    return f"The upload of {name} starts over, {again}: {lost.cause}."


def _ends(run: FileRun) -> float | None:
    return None if run.session.slides else run.session.expires_at


def _missing(run: FileRun) -> int:
    return run.plan.size - sum(receipt.size for receipt in run.receipts if receipt is not None)


def _too_slow(run: FileRun, ahead: int, rate: float, left: float) -> str:
    return (
        f"The session of {run.entry.name} ends in {format_duration(max(left, 0.0))}, but what is left takes "
        f"{format_duration(ahead / rate)} at {format_rate(rate)}; then all {format_size(run.plan.size)} are sent again."
    )
