"""Bodies that are bytes: how the OpenAPI document tells of them, and their length."""

from __future__ import annotations

from typing import Any

from fastapi import Request

from ppcli.server.refusal import Refused

BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
BINARY_BODY: dict[str, Any] = {"requestBody": {"required": True, "content": BINARY}}


def declared_length(request: Request) -> int | None:
    """Content-Length; None where there is none. Raises `Refused` 400."""
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise Refused(400, "Content-Length is no number")
    return int(text)


def needed_length(request: Request) -> int:
    """Content-Length. Raises `Refused` 400, and 411 where there is none."""
    length = declared_length(request)
    if length is None:
        raise Refused(411, "Content-Length is needed")
    return length
