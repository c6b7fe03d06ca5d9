"""How refusals and failures become replies, and how the OpenAPI document tells about them."""

from __future__ import annotations

import errno
import logging
import math
import sqlite3
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ppcli.server.database import error_code
from ppcli.server.models import Problem
from ppcli.server.refusal import STORAGE, Refused, problem

_MEANING = {
    400: "The request does not fit the session or the body cannot be read",
    401: "No valid token",
    403: "It belongs to another user",
    404: "Not there",
    405: "Not a method of this path",
    408: "The body came too slowly",
    409: "The file is completed already, or the pad's counter is not below this one",
    410: "The session has ended",
    411: "Content-Length is needed",
    412: "Another index of these pads counts now",
    413: "Too large",
    416: "No such range",
    422: "A field does not fit",
    429: "Too many, see Retry-After",
    503: "Not now, see Retry-After",
    507: "No space left, or not in the quota",
}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def problems(*codes: int, open: bool = False, model: type[BaseModel] = Problem) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer these codes, besides those that every route may."""
    common = (400, 408, 413, 422) if open else (400, 401, 408, 413, 422)
    return {code: {"model": model, "description": _MEANING[code]} for code in sorted({*common, *codes})}


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _unfit)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(OSError, _failed)
    app.add_exception_handler(sqlite3.Error, _failed)
    app.add_exception_handler(Exception, _bug)


def _reply(
    request: Request, status: int, detail: Any, headers: dict[str, str] | None = None, code: str | None = None
) -> JSONResponse:
    return JSONResponse(problem(request.scope["path"], status, detail, code), status, headers)


def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    headers = dict(error.headers)
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _reply(request, error.status, error.detail, headers, error.code)


def _unfit(request: Request, error: Exception) -> JSONResponse:
    """Names the fields, without repeating what was in them."""
    assert isinstance(error, RequestValidationError)
    faults = [{key: fault[key] for key in ("type", "loc", "msg")} for fault in error.errors()]
    if request.scope["path"].startswith(f"{STORAGE}/"):
        return _reply(request, 400, "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in faults))
    return _reply(request, 422, faults)


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _reply(request, error.status_code, error.detail, dict(error.headers or {}))


def _gone(request: Request, error: Exception) -> JSONResponse:
    """The client left before the end of its body: everyday trouble of networks, and nobody hears the reply."""
    return _reply(request, 400, "The body broke off")


def _failed(request: Request, error: Exception) -> JSONResponse:
    """This machine's trouble. Whoever asks is told what kind, and no path."""
    code = error_code(error) if isinstance(error, sqlite3.Error) else None
    logging.getLogger("ppcli.server").error("%s %s: %s", request.method, ascii(request.scope["path"]), error)
    if code == sqlite3.SQLITE_FULL or (isinstance(error, OSError) and error.errno in _FULL):
        return _reply(request, 507, "There is no space left on the server")
    if isinstance(error, (InterruptedError, sqlite3.ProgrammingError)):
        return _reply(request, 503, "The server stops, ask again later", {"Retry-After": "5"})
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return _reply(request, 503, "The server waits for its database, ask again", {"Retry-After": "5"})
    return _reply(request, 500, "The server could not read or write its data")


def _bug(request: Request, _error: Exception) -> JSONResponse:
    return _reply(request, 500, "This is a bug in the server")
