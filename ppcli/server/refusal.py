"""What the server says no to, as one exception: the HTTP status and the sentence of the reply."""

from __future__ import annotations

from collections.abc import Mapping


class Refused(Exception):
    """Becomes the reply `{"detail": detail}` with `status`; `retry_after` (seconds) becomes its header, beside others.

    On the paths of PutPlace, 409 is kept for a file that is there already: its own uploader takes every 409 for
    success.
    """

    def __init__(
        self, status: int, detail: str, *, retry_after: float | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after = retry_after
        self.headers = headers or {}


class Unwanted(Refused):
    """The length of a chunk is wrong."""

    def __init__(self, chunk: int, expected: int, got: str) -> None:
        super().__init__(400, f"Chunk {chunk} has {expected} bytes, not {got}")
