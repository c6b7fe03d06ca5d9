"""What counts for a user's quota, whatever the protocol."""

from __future__ import annotations

import sqlite3

from ppcli.server.states import BEING_COMPLETED, OPEN, sql

_STORED = (
    "SELECT coalesce(sum(file_size), 0) FROM (SELECT DISTINCT sha256, file_size FROM entries"
    " WHERE user_id = ? AND status = 'active' AND has_content)"
)
_PADS = (
    "SELECT coalesce(sum(pad_size * (SELECT count(*) FROM pads WHERE store = pad_stores.id)), 0) FROM pad_stores"
    " WHERE user_id = ?"
)
_BEGUN = (
    "SELECT coalesce(sum(file_size), 0) FROM sessions WHERE user_id = ?"
    f" AND (state IN {sql(BEING_COMPLETED)} OR state IN {sql(OPEN)} AND expires_at > ?)"
)


def held_bytes(connection: sqlite3.Connection, user_id: int, now: float) -> int:
    """Bytes that a user has stored or promised: files, unfinished uploads, and pads, each at its full size."""
    counted = [(_STORED, (user_id,)), (_PADS, (user_id,)), (_BEGUN, (user_id, now))]
    return sum(int(connection.execute(query, values).fetchone()[0]) for query, values in counted)
