"""The states of an upload session, and which may follow which. Pure.

initiated -> uploading -> completing -> assembled -> completed
    `completing` goes back to `uploading` when the digest is wrong or the server stops; what is not yet `assembled`
    may become `aborted` or `expired`, except while it is completing. The last three states are final.

Sessions of GraphWiz clients have three states more: `paused`, `gathered` (all chunks are there: nothing but complete is
taken) and `failed` (the server has lost its bytes).
"""

from __future__ import annotations

from enum import StrEnum

from ppcli.server.refusal import Refused


class SessionState(StrEnum):
    INITIATED = "initiated"
    UPLOADING = "uploading"
    PAUSED = "paused"
    GATHERED = "gathered"
    FAILED = "failed"
    COMPLETING = "completing"
    """All chunks are there, the whole is being verified."""
    ASSEMBLED = "assembled"
    """Verified; the file is being put to its place."""
    COMPLETED = "completed"
    ABORTED = "aborted"
    EXPIRED = "expired"


_S = SessionState
FOLLOWING: dict[SessionState, frozenset[SessionState]] = {
    _S.INITIATED: frozenset({_S.UPLOADING, _S.COMPLETING, _S.ABORTED, _S.EXPIRED}),
    _S.UPLOADING: frozenset(set(_S) - {_S.INITIATED, _S.ASSEMBLED, _S.COMPLETED}),
    _S.PAUSED: frozenset({_S.UPLOADING, _S.FAILED, _S.ABORTED, _S.EXPIRED}),
    _S.GATHERED: frozenset({_S.COMPLETING, _S.FAILED, _S.EXPIRED}),
    _S.FAILED: frozenset({_S.ABORTED, _S.EXPIRED}),
    _S.COMPLETING: frozenset({_S.UPLOADING, _S.GATHERED, _S.ASSEMBLED}),
    _S.ASSEMBLED: frozenset({_S.COMPLETED}),
    _S.COMPLETED: frozenset(),
    _S.ABORTED: frozenset(),
    _S.EXPIRED: frozenset(),
}
RECEIVING = (_S.INITIATED, _S.UPLOADING, _S.PAUSED)
OPEN = (*RECEIVING, _S.GATHERED)
EXPIRING = (*OPEN, _S.FAILED)
BEING_COMPLETED = (_S.COMPLETING, _S.ASSEMBLED)
UNFINISHED = (*OPEN, *BEING_COMPLETED)
FINAL = (_S.COMPLETED, _S.ABORTED, _S.EXPIRED)


def check(old: SessionState, new: SessionState) -> None:
    """Raise the refusal that a client gets whose request would take a session from `old` to `new`."""
    if new not in FOLLOWING[old]:
        raise _refusal(old)


def check_receiving(state: SessionState) -> None:
    """Raise the refusal that a client gets who sends a chunk to a session that takes none. A session that is being
    completed may well become `uploading` again, but not because of a chunk."""
    if state not in RECEIVING:
        raise _refusal(state)


def _refusal(old: SessionState) -> Refused:
    if old in (_S.PAUSED, _S.GATHERED, _S.FAILED):
        shown = "completed" if old is _S.GATHERED else old
        return Refused(400, f"The upload session is {shown}", code="invalid_state")
    if old is _S.COMPLETED:
        return Refused(409, "The upload is completed")
    if old in FINAL:
        return Refused(410, f"Upload session has {'expired' if old is _S.EXPIRED else 'been aborted'}")
    return Refused(503, "The upload is being completed, ask again", retry_after=1)


def sql(states: tuple[SessionState, ...]) -> str:
    """These states as the list of an IN."""
    return "(" + ", ".join(f"'{state}'" for state in states) + ")"
