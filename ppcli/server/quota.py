"""How much one user has begun and stored, whatever the protocol, and whether more may come."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass

from ppcli.server.limits import ServerLimits
from ppcli.server.refusal import Refused
from ppcli.server.states import BEING_COMPLETED, OPEN, sql

STANDING = f"(state IN {sql(BEING_COMPLETED)} OR state IN {sql(OPEN)} AND expires_at > ?)"
"""A condition on sessions, with the time now: neither ended nor expired."""
_STORED = (
    "SELECT coalesce(sum(file_size), 0) FROM (SELECT DISTINCT sha256, file_size FROM entries"
    " WHERE user_id = ? AND status = 'active' AND has_content AND sha256 != ?)"
)
_PADS = (
    "SELECT coalesce(sum(pad_size * (SELECT count(*) FROM pads WHERE store = pad_stores.id)), 0) FROM pad_stores"
    " WHERE user_id = ?"
)


@dataclass(frozen=True, slots=True)
class Begun:
    """The unfinished uploads of a user; `first_end` (UTC seconds) is when the first of them expires."""

    uploads: int
    bytes: int
    first_end: float


def begun(connection: sqlite3.Connection, user_id: int) -> Begun:
    now = time.time()
    row = connection.execute(
        "SELECT count(*), coalesce(sum(file_size), 0), coalesce(min(expires_at), ?) FROM sessions"
        f" WHERE user_id = ? AND {STANDING}",
        (now, user_id, now),
    ).fetchone()
    return Begun(*row)


def check_quota(
    connection: sqlite3.Connection, user_id: int, size: int, limits: ServerLimits, *, sha256: str = ""
) -> None:
    """Whether so many bytes fit beside all else that the user has stored or begun, pads at their full size; content
    of the digest `sha256` is not counted twice. Raises `Refused` 507."""
    if limits.quota is None:
        return
    (stored,) = connection.execute(_STORED, (user_id, sha256)).fetchone()
    (pads,) = connection.execute(_PADS, (user_id,)).fetchone()
    if stored + pads + begun(connection, user_id).bytes + size > limits.quota:
        raise Refused(507, "This does not fit into your quota")
