"""The two forms in which S3 writes times. Pure."""

from __future__ import annotations

from datetime import UTC, datetime


def when(text: str | None) -> float | None:
    """Seconds since the epoch; None for what is no time."""
    if not text:
        return None
    from email.utils import parsedate_to_datetime

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
