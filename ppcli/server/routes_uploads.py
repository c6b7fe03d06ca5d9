"""The PutPlace chunked upload API: initiate, chunk, complete, abort; and what a session holds."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from ppcli.server.bodies import BINARY_BODY, declared_length
from ppcli.server.depot import Depot
from ppcli.server.fields import LARGEST, rfc3339
from ppcli.server.gate import Caller
from ppcli.server.models import (
    AbortReply,
    ChunkReply,
    CompleteReply,
    CompleteRequest,
    InitiateReply,
    InitiateRequest,
    ReceivedChunk,
    SessionReply,
    UploadReply,
    UploadsReply,
    completed,
)
from ppcli.server.plan import Wanted
from ppcli.server.problems import problems
from ppcli.server.refusal import Unwanted
from ppcli.server.sessions import Session
from ppcli.server.states import SessionState

_SHORT_LIST = 1000
"""Chunks up to which `initiate` lists their URLs."""
_PAGE = 10_000
UploadId = Annotated[str, Path(max_length=64, description="From the reply to initiate")]


def uploads_router(depot: Depot) -> APIRouter:
    router = APIRouter(prefix="/api/uploads", tags=["uploads"])

    @router.post("/initiate", status_code=201, response_model_exclude_none=True, responses=problems(413, 429, 507))
    def initiate(body: InitiateRequest, user: Caller) -> InitiateReply:
        """Open an upload session. It ends one lifetime after its last stored chunk."""
        session = depot.sessions.initiate(user, Wanted(**body.model_dump()))
        urls = [f"/api/uploads/{session.id}/chunk/{n}" for n in range(min(body.total_chunks, _SHORT_LIST + 1))]
        return InitiateReply(
            upload_id=session.id,
            expires_at=rfc3339(session.expires_at),
            chunk_urls=urls if len(urls) <= _SHORT_LIST else None,
        )

    @router.put(
        "/{upload_id}/chunk/{chunk_num}",
        openapi_extra=BINARY_BODY,
        responses=problems(400, 403, 404, 408, 409, 410, 411, 413, 503, 507),
    )
    async def put_chunk(
        upload_id: UploadId, chunk_num: Annotated[int, Path(description="From 0")], request: Request, user: Caller
    ) -> ChunkReply:
        """Send one chunk. It is durable when the reply comes. A stored chunk is replaced by other bytes."""
        return await _put_chunk(depot, user, upload_id, chunk_num, request)

    @router.post("/{upload_id}/complete", responses=problems(400, 403, 404, 409, 410, 413, 503, 507))
    async def complete(upload_id: UploadId, body: CompleteRequest, user: Caller) -> CompleteReply:
        """Verify the whole file and store it. Once more gives the same reply. `parts` may be empty."""
        etags = {part.chunk_num: part.etag for part in body.parts}
        await asyncio.to_thread(depot.sessions.get, user, upload_id)  # nothing is held for what is not there
        loop = asyncio.get_running_loop()
        async with depot.live.get(upload_id).asking:  # impatient clients must not take all threads with one file
            session = await loop.run_in_executor(depot.completions, depot.completer.complete, user, upload_id, etags)
        return completed(session.file_id, session.wanted.sha256, session.wanted.file_size)

    @router.delete("/{upload_id}", responses=problems(403, 404, 409, 503))
    def abort(upload_id: UploadId, user: Caller) -> AbortReply:
        """Give an upload up and drop what it holds. Once more is fine."""
        depot.sessions.get(user, upload_id)
        session = depot.sessions.abort(user, upload_id)
        depot.live.forget(upload_id)
        over = session.state in (SessionState.ABORTED, SessionState.EXPIRED)
        return AbortReply(
            upload_id=upload_id,
            status="expired" if session.state is SessionState.EXPIRED else "aborted",
            chunks_uploaded=session.uploaded,
            chunks_deleted=0 if over else session.uploaded,
        )

    @router.get("/{upload_id}", responses=problems(403, 404))
    def status(
        upload_id: UploadId,
        user: Caller,
        start: Annotated[int, Query(ge=0, le=LARGEST, description="The first chunk number of this page")] = 0,
        limit: Annotated[int, Query(ge=1, le=_PAGE)] = _PAGE,
    ) -> SessionReply:
        """What the session is and which chunks it holds, in pages."""
        session = depot.sessions.get(user, upload_id)
        stored = list(depot.sessions.chunks(upload_id, start, limit + 1))
        page, more = stored[:limit], stored[limit:]
        wanted = session.wanted
        return SessionReply(
            upload_id=session.id,
            state=SessionState.EXPIRED if session.expired else session.state,
            filepath=wanted.filepath,
            hostname=wanted.hostname,
            sha256=wanted.sha256,
            file_size=wanted.file_size,
            chunk_size=wanted.chunk_size,
            total_chunks=wanted.total_chunks,
            uploaded_chunks=session.uploaded,
            received=[ReceivedChunk(chunk_num=c.chunk_num, etag=c.etag, size=c.size) for c in page],
            next=more[0].chunk_num if more else None,
            expires_at=rfc3339(session.expires_at),
        )

    @router.get("", responses=problems())
    def unfinished(
        user: Caller,
        after: Annotated[str, Query(max_length=64, description="`next` of the page before")] = "",
        limit: Annotated[int, Query(ge=1, le=_PAGE)] = _SHORT_LIST,
    ) -> UploadsReply:
        """Your uploads that are neither completed nor given up, in pages."""
        found = depot.sessions.unfinished(user, after, limit + 1)
        following = found[limit - 1].id if len(found) > limit else None
        return UploadsReply(uploads=[_listed(session) for session in found[:limit]], next=following)

    return router


def _listed(session: Session) -> UploadReply:
    wanted = session.wanted
    return UploadReply(
        upload_id=session.id,
        state=session.state,
        filepath=wanted.filepath,
        hostname=wanted.hostname,
        sha256=wanted.sha256,
        file_size=wanted.file_size,
        total_chunks=wanted.total_chunks,
        uploaded_chunks=session.uploaded,
        created_at=rfc3339(session.created_at),
        expires_at=rfc3339(session.expires_at),
    )


async def _put_chunk(depot: Depot, user: Caller, upload_id: str, chunk: int, request: Request) -> ChunkReply:
    length = declared_length(request)
    session = await asyncio.to_thread(depot.sessions.admit, user, upload_id, chunk)
    if session.wanted.chunk_size is None:
        session = await asyncio.to_thread(depot.sessions.learn_chunk_size, session, chunk, length)
    if length is not None and length != session.size_of(chunk):
        raise Unwanted(chunk, session.size_of(chunk), str(length))
    try:
        received = await depot.receiver.receive(session, chunk, request.stream())
    except FileNotFoundError:  # the session ended while the chunk was on its way
        await asyncio.to_thread(depot.sessions.admit, user, upload_id, chunk)
        raise
    after = received.session
    if after is None:
        after = await asyncio.to_thread(depot.sessions.get, user, upload_id)
    return ChunkReply(
        chunk_num=chunk,
        etag=received.etag,
        received_bytes=received.received,
        uploaded_chunks=after.uploaded,
        total_chunks=after.wanted.total_chunks,
        expires_at=rfc3339(after.expires_at),
    )
