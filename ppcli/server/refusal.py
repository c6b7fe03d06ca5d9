"""What the server says no to, as one exception: the HTTP status and the sentence of the reply."""

from __future__ import annotations

from collections.abc import Mapping


class Refused(Exception):
    """Becomes the reply `{"detail": detail}` with `status`; `retry_after` (seconds) becomes its header, beside others.
    To GraphWiz clients it is `{"error": code, "message": detail}`.

    On the paths of PutPlace, 409 is kept for a file that is there already: its own uploader takes every 409 for
    success.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after = retry_after
        self.headers = headers or {}
        self.code = code


STORAGE = "/storage"
"""The path below which GraphWiz clients are served."""
_CODES = {
    400: "validation_error", 401: "unauthorized", 403: "forbidden", 404: "not_found", 408: "timeout",
    413: "file_too_large", 429: "rate_limited", 503: "unavailable", 507: "storage_full",
}  # fmt: skip


def problem(path: str, status: int, detail: object, code: str | None = None) -> dict[str, object]:
    """The JSON body of a refusal, as the clients that ask below `path` know it."""
    if path != STORAGE and not path.startswith(f"{STORAGE}/"):
        return {"detail": detail}
    return {"error": code or _CODES.get(status, "internal_error"), "message": detail}


class Unwanted(Refused):
    """The length of a chunk is wrong."""

    def __init__(self, chunk: int, expected: int, got: str) -> None:
        super().__init__(400, f"Chunk {chunk} has {expected} bytes, not {got}")
