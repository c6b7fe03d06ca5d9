"""Bodies that are bytes: how the OpenAPI document tells of them, and their length."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from ppcli.server.refusal import Refused

BINARY_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def declared_length(request: Request) -> int | None:
    """Content-Length; None where there is none. Raises `Refused` 400."""
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise Refused(400, "Content-Length is no number")
    return int(text)
