"""Who is asking. Outside of the routes, so that a stranger is answered before any body is read."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.types import ASGIApp, Receive, Scope, Send

from ppcli.server.refusal import problem
from ppcli.server.users import User, Users

OPEN = frozenset(
    {"/health", "/api/login", "/api/v2/auth/login", "/openapi.json", "/docs", "/redoc", "/docs/oauth2-redirect"}
)
_SCHEME = HTTPBearer(auto_error=False, description="A token of `ppcli serve --new-token`, or of a login")


class Gate:
    """ASGI middleware: no path but the open ones without a valid token."""

    def __init__(self, app: ASGIApp, users: Users) -> None:
        self._app = app
        self._users = users

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN:
            try:
                user = await self._user(scope)
            except (sqlite3.Error, OSError) as error:
                logging.getLogger("ppcli.server").error("who is asking: %s", error)
                await send_problem(scope, send, 503, "The server cannot read its users now", {"retry-after": "5"})
                return
            if user is None:
                headers = {"www-authenticate": "Bearer"}
                await send_problem(scope, send, 401, "Not authenticated: a valid token is needed", headers)
                return
            scope["user"] = user
        await self._app(scope, receive, send)

    async def _user(self, scope: Scope) -> User | None:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return None
        kind, _, token = given[0].decode("latin-1").partition(" ")
        token = token.strip()
        if kind.lower() != "bearer" or not token:
            return None
        user = self._users.known(token)
        return user or await asyncio.to_thread(self._users.owner_of, token)


async def send_problem(
    scope: Scope, send: Send, status: int, detail: str, headers: dict[str, str] | None = None
) -> None:
    """Reply from outside the routes, in the same form as theirs."""
    body = json.dumps(problem(scope["path"], status, detail)).encode()
    lines = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode(), value.encode()) for name, value in lines.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def _caller(request: Request, _token: Annotated[HTTPAuthorizationCredentials | None, Depends(_SCHEME)]) -> User:
    """Not a plain function: each of those would run in a thread."""
    user: User = request.scope["user"]
    return user


Caller = Annotated[User, Depends(_caller)]
"""A route's parameter: the user whose token came with the request."""
