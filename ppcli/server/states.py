"""The states of an upload session, and which may follow which. Pure.

initiated -> uploading -> completing -> assembled -> completed
    `completing` goes back to `uploading` when the digest is wrong or the server stops; what is not yet `assembled`
    may become `aborted` or `expired`, except while it is completing. The last three states are final.
"""

from __future__ import annotations

from enum import StrEnum

from ppcli.server.refusal import Refused


class SessionState(StrEnum):
    INITIATED = "initiated"
    UPLOADING = "uploading"
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
    _S.UPLOADING: frozenset({_S.UPLOADING, _S.COMPLETING, _S.ABORTED, _S.EXPIRED}),
    _S.COMPLETING: frozenset({_S.UPLOADING, _S.ASSEMBLED}),
    _S.ASSEMBLED: frozenset({_S.COMPLETED}),
    _S.COMPLETED: frozenset(),
    _S.ABORTED: frozenset(),
    _S.EXPIRED: frozenset(),
}
RECEIVING = (_S.INITIATED, _S.UPLOADING)
BEING_COMPLETED = (_S.COMPLETING, _S.ASSEMBLED)
UNFINISHED = (*RECEIVING, *BEING_COMPLETED)
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
    if old is _S.COMPLETED:
        return Refused(409, "The upload is completed")
    if old in FINAL:
        return Refused(410, f"Upload session has {'expired' if old is _S.EXPIRED else 'been aborted'}")
    return Refused(503, "The upload is being completed, ask again", retry_after=1)


def sql(states: tuple[SessionState, ...]) -> str:
    """For `state IN ...` of a query."""
    return "(" + ", ".join(f"'{state}'" for state in states) + ")"
