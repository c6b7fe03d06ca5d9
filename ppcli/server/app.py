"""The ASGI application: routes around one depot, behind the gate. A new protocol is one more router in `create`."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute

from ppcli import __version__
from ppcli.server import problems
from ppcli.server.bounds import Bounds, EarlyReplies
from ppcli.server.depot import Depot
from ppcli.server.gate import Gate
from ppcli.server.routes_files import files_router
from ppcli.server.routes_pads import pads_router
from ppcli.server.routes_storage import storage_router
from ppcli.server.routes_uploads import uploads_router
from ppcli.server.routes_users import users_router


def create(depot: Depot) -> FastAPI:
    """The application for an open depot. Who opened the depot closes it."""
    app = FastAPI(
        title="ppcli serve",
        version=__version__,
        description="The PutPlace chunked upload API and the GraphWiz storage API, with what resuming takes; pads.",
        generate_unique_id_function=_name,
        redirect_slashes=False,  # or a Host header would say where tokens go next
    )
    for router in (users_router, uploads_router, files_router, storage_router, pads_router):
        app.include_router(router(depot))
    problems.install(app)
    app.add_middleware(Bounds, limits=depot.limits)
    app.add_middleware(Gate, users=depot.users)
    app.add_middleware(EarlyReplies)
    return app


def _name(route: APIRoute) -> str:
    return route.name
