"""A real tus server (tuspyserver) as an ASGI application: files in the directory TUS_DIR; the comma-separated
extensions in TUS_WITHOUT are not offered, and an upload lives TUS_DAYS days."""

from __future__ import annotations

import os

from fastapi import FastAPI, Request, Response
from starlette.middleware.base import RequestResponseEndpoint
from tuspyserver import create_tus_router

WITHOUT = set(filter(None, os.environ.get("TUS_WITHOUT", "").split(",")))

app = FastAPI()
app.include_router(
    create_tus_router(
        prefix="files",
        files_dir=os.environ["TUS_DIR"],
        days_to_keep=int(os.environ.get("TUS_DAYS", "1")),
        max_size=1 << 33,
    )
)


@app.middleware("http")
async def offer_less(request: Request, call_next: RequestResponseEndpoint) -> Response:
    reply = await call_next(request)
    if "Tus-Extension" in reply.headers:
        offered = reply.headers["Tus-Extension"].split(",")
        reply.headers["Tus-Extension"] = ",".join(name for name in offered if name not in WITHOUT)
    return reply
