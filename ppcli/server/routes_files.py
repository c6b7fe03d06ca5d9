"""Stored files: metadata, lists, deletion notices, and their content."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Body, Query, Request, Response

from ppcli.server.bodies import BINARY_BODY, needed_length
from ppcli.server.depot import Depot
from ppcli.server.entries import Deletion
from ppcli.server.fields import LARGEST, FilePathInQuery, HostNameInQuery, SecondsInQuery, Sha256InPath
from ppcli.server.gate import Caller
from ppcli.server.models import (
    CompleteReply,
    DeletionReply,
    DeletionRequest,
    DeletionsReply,
    DeletionsRequest,
    EntryReply,
    FileMetadata,
    KnownEntry,
    KnownReply,
    KnownRequest,
    PutFileReply,
    completed,
)
from ppcli.server.problems import problems
from ppcli.server.refusal import Refused
from ppcli.server.streaming import RANGED, open_file, ranged, whole
from ppcli.server.users import User
from ppcli.server.wholes import Whole

_MOST = 1000
_CONTENT = RANGED | {304: {"description": "Not modified"}}


def files_router(depot: Depot) -> APIRouter:
    router = APIRouter(tags=["files"])

    @router.post("/put_file", status_code=201, responses=problems(507))
    def put_file(body: FileMetadata, user: Caller) -> PutFileReply:
        """Register a file. `upload_required` is false when you have stored this content already, or it is empty."""
        entry = depot.entries.register(user, body.filepath, body.hostname, body.sha256, body.file_size, body.stat())
        required = not entry.has_content and body.file_size > 0
        url = "/api/uploads/initiate" if required else None
        return PutFileReply(**EntryReply.fields_of(entry), upload_required=required, upload_url=url)

    @router.get("/get_file/{sha256}", responses=problems(404))
    def get_file(sha256: Sha256InPath, user: Caller) -> EntryReply:
        """Your newest entry with this digest; a deleted one (see `status`) only where there is no other."""
        entry = depot.entries.newest(user, sha256)
        if entry is None:
            raise Refused(404, f"File with SHA256 {sha256} not found")
        return EntryReply(**EntryReply.fields_of(entry))

    @router.get("/api/clones/{sha256}", responses=problems())
    def clones(sha256: Sha256InPath, user: Caller) -> list[EntryReply]:
        """All of your entries with this digest that are not deleted, the oldest first."""
        return [EntryReply(**EntryReply.fields_of(entry)) for entry in depot.entries.clones(user, sha256)]

    @router.post("/api/files/known", responses=problems())
    def known(body: KnownRequest, user: Caller) -> KnownReply:
        """All of your entries with any of these digests: the question of `/api/clones`, for many at once."""
        entries = depot.entries.with_digests(user, body.sha256)
        return KnownReply(files=[KnownEntry(**EntryReply.fields_of(entry), newest=newest) for entry, newest in entries])

    @router.get("/api/my_files", responses=problems())
    def my_files(
        user: Caller,
        limit: Annotated[int, Query(ge=1, le=_MOST)] = 100,
        skip: Annotated[int, Query(ge=0, le=LARGEST)] = 0,
        prefix: Annotated[str, Query(max_length=4096, description="Ours: how the filepath begins")] = "",
        hostname: Annotated[str | None, Query(max_length=255, description="Ours: the whole host name")] = None,
    ) -> list[EntryReply]:
        """Your entries that are not deleted, the newest first."""
        entries = depot.entries.recent(user, prefix, hostname, limit, skip)
        return [EntryReply(**EntryReply.fields_of(entry)) for entry in entries]

    return _with_content(_with_deletion(router, depot), depot)


def _with_deletion(router: APIRouter, depot: Depot) -> APIRouter:
    def delete(user: User, deletions: list[Deletion]) -> list[bool]:
        found = depot.entries.delete(user, deletions)
        if any(found) and depot.limits.content_grace == 0:
            depot.cleanup.remove_content()
        return found

    @router.delete("/api/files/{sha256}", responses=problems(404))
    def delete_file(
        sha256: Sha256InPath, user: Caller, body: Annotated[DeletionRequest | None, Body()] = None
    ) -> DeletionReply:
        """The file was deleted where it came from: mark the entry. The body may be left out by old clients when only
        one entry has the digest."""
        if body is None:
            body = _only_entry(depot, user, sha256)
        deletion = Deletion(sha256, body.filepath, body.hostname, body.deleted_at.isoformat())
        if delete(user, [deletion]) != [True]:
            raise Refused(404, f"File not found: {body.filepath} on {body.hostname}")
        return DeletionReply(sha256=sha256, filepath=body.filepath, hostname=body.hostname, deleted_at=body.deleted_at)

    @router.post("/api/files/deletions", responses=problems())
    def delete_files(body: DeletionsRequest, user: Caller) -> DeletionsReply:
        """Many deletion notices at once; each has a status of its own."""
        asked = [Deletion(f.sha256, f.filepath, f.hostname, f.deleted_at.isoformat()) for f in body.files]
        found = delete(user, asked)
        return DeletionsReply(
            files=[
                DeletionReply(
                    sha256=file.sha256,
                    filepath=file.filepath,
                    hostname=file.hostname,
                    status="deleted" if there else "not_found",
                    deleted_at=file.deleted_at,
                )
                for file, there in zip(body.files, found, strict=True)
            ]
        )

    return router


def _only_entry(depot: Depot, user: User, sha256: str) -> DeletionRequest:
    entries = depot.entries.clones(user, sha256)
    if not entries:
        raise Refused(404, f"File with SHA256 {sha256} not found")
    if len(entries) > 1:
        raise Refused(422, "Several files have this digest: a body with filepath, hostname and deleted_at is needed")
    only = entries[0]
    return DeletionRequest(filepath=only.filepath, hostname=only.hostname, deleted_at=datetime.now(UTC))


def _with_content(router: APIRouter, depot: Depot) -> APIRouter:
    @router.put("/api/files/{sha256}/content", openapi_extra=BINARY_BODY, responses=problems(411, 507))
    async def put_content(
        sha256: Sha256InPath,
        filepath: FilePathInQuery,
        hostname: HostNameInQuery,
        request: Request,
        user: Caller,
        file_mtime: SecondsInQuery = 0.0,
    ) -> CompleteReply:
        """Send a small file (see `/api/limits`) as a whole: it is stored, entered and durable when the reply comes.
        Once more is fine."""
        length = needed_length(request)
        if length > depot.wholes.most:
            raise Refused(413, f"A file that is sent whole must not be above {depot.wholes.most} bytes")
        body = await request.body()
        whole = Whole(sha256, filepath, hostname, file_mtime)
        store = asyncio.get_running_loop().run_in_executor
        number = await store(depot.workers, depot.wholes.store, user, whole, body)
        return completed(number, sha256, len(body))

    @router.get("/api/files/{sha256}/content", response_class=Response, responses=_CONTENT)
    async def content(sha256: Sha256InPath, request: Request, user: Caller) -> Response:
        """The bytes of a file that you have stored; one range of them with a Range header."""
        return await _content(depot, user, sha256, request)

    @router.head("/api/files/{sha256}/content", response_class=Response, responses=_CONTENT)
    async def content_head(sha256: Sha256InPath, request: Request, user: Caller) -> Response:
        """The headers of the same."""
        return await _content(depot, user, sha256, request)

    return router


async def _content(depot: Depot, user: User, sha256: str, request: Request) -> Response:
    size = await asyncio.to_thread(depot.entries.readable, user, sha256)
    if size is None:
        raise Refused(404, f"No content of yours has SHA256 {sha256}")
    return await send_content(depot, sha256, size, request)


async def send_content(
    depot: Depot,
    sha256: str,
    size: int,
    request: Request,
    kind: str = "application/octet-stream",
    more: Mapping[str, str] | None = None,
) -> Response:
    """Content of `size` bytes that the caller may read, or the range of it that the request asks for; `more` are
    headers besides the usual ones."""
    tag = f'"{sha256}"'
    headers = {"ETag": tag, "Cache-Control": "private", "Content-Type": kind, **(more or {})}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if request.headers.get("if-range", tag) != tag:
        return await whole(request, size, headers, lambda: open_file(depot.files.content(sha256)))
    return await ranged(request, size, headers, lambda: open_file(depot.files.content(sha256)))
