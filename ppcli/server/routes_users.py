"""Logging in, and whether the server is there."""

from __future__ import annotations

from fastapi import APIRouter

from ppcli import __version__
from ppcli.server.depot import Depot
from ppcli.server.models import Health, Login, Token
from ppcli.server.problems import problems
from ppcli.server.users import LOGIN_LIFETIME


def users_router(depot: Depot) -> APIRouter:
    router = APIRouter(tags=["users"])

    @router.post("/api/v2/auth/login", responses=problems(401, 429, open=True))
    def login(body: Login) -> Token:
        """A token for an e-mail and a password; it lasts two hours."""
        return Token(access_token=depot.users.login(body.email, body.password), expires_in=int(LOGIN_LIFETIME))

    @router.post("/api/login", responses=problems(401, 429, open=True))
    def login_0_10(body: Login) -> Token:
        """The same, under the path of PutPlace 0.10."""
        return login(body)

    @router.get("/health")
    async def health() -> Health:
        """Answers as long as the server runs."""
        return Health(version=__version__)

    return router
