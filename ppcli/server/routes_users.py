"""Logging in, whether the server is there, and what it accepts."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter

from ppcli import __version__
from ppcli.server.depot import Depot
from ppcli.server.gate import Caller
from ppcli.server.models import MOST_KNOWN, Health, LimitsReply, Login, Token
from ppcli.server.problems import problems
from ppcli.server.refusal import Refused
from ppcli.server.users import LOGIN_LIFETIME

_WAITING = 32
"""Logins that are looked at or wait, at most: strangers may ask, and each takes a while."""


def users_router(depot: Depot) -> APIRouter:
    router = APIRouter(tags=["users"])

    waiting = 0

    @router.post("/api/v2/auth/login", responses=problems(401, 429, open=True))
    async def login(body: Login) -> Token:
        """A token for an e-mail and a password; it lasts two hours."""
        nonlocal waiting
        if waiting >= _WAITING:
            raise Refused(429, "Too many logins at once, try again", retry_after=1)
        waiting += 1
        try:
            work = asyncio.get_running_loop().run_in_executor
            token = await work(depot.logins, depot.users.login, body.email, body.password)
        finally:
            waiting -= 1
        return Token(access_token=token, expires_in=int(LOGIN_LIFETIME))

    @router.post("/api/login", responses=problems(401, 429, open=True))
    async def login_0_10(body: Login) -> Token:
        """The same, under the path of PutPlace 0.10."""
        return await login(body)

    @router.get("/health")
    async def health() -> Health:
        """Answers as long as the server runs."""
        return Health(version=__version__)

    @router.get("/api/limits", responses=problems())
    async def limits(_user: Caller) -> LimitsReply:
        """What an upload may be."""
        bounds = depot.limits
        return LimitsReply(
            chunk_min=bounds.chunk_min,
            chunk_max=bounds.chunk_max,
            max_file_size=bounds.max_file_size,
            whole_max=depot.wholes.most,
            known_max=MOST_KNOWN,
            sessions_per_user=bounds.sessions_per_user,
        )

    return router
