"""The GraphWiz storage API: upload sessions, single-shot uploads, and assets."""

from __future__ import annotations

import asyncio
import json
import mimetypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import TypeAdapter, ValidationError

from ppcli.server import assets
from ppcli.server.assets import About, AssetType
from ppcli.server.depot import Depot
from ppcli.server.fields import LARGEST, FilePath, rfc3339
from ppcli.server.forms import Form
from ppcli.server.gate import Caller
from ppcli.server.models_storage import (
    MIME_TYPE,
    STATUS,
    AssetReply,
    AssetsReply,
    BeginReply,
    BeginRequest,
    CompletedReply,
    Message,
    StandingReply,
    StorageProblem,
    StoredReply,
    asset_fields,
    standing_fields,
)
from ppcli.server.plan import Wanted
from ppcli.server.problems import problems
from ppcli.server.refusal import STORAGE, Refused
from ppcli.server.routes_files import send_content
from ppcli.server.sessions import Session, check_open
from ppcli.server.states import SessionState
from ppcli.server.users import User

SessionId = Annotated[str, Path(max_length=64)]
AssetId = Annotated[str, Path(max_length=64)]
_NAME: TypeAdapter[str] = TypeAdapter(FilePath)
_PER_PAGE = 1000
_FILE = {"type": "string", "format": "binary"}


def _form(part: str, **fields: dict[str, str]) -> dict[str, Any]:
    shape = {"type": "object", "properties": {**fields, part: _FILE, "sha256": {"type": "string"}}, "required": [part]}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": shape}}}}


def _problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    return problems(*codes, model=StorageProblem)


def storage_router(depot: Depot) -> APIRouter:
    router = APIRouter(prefix=STORAGE, tags=["storage"])

    @router.post("/chunked-upload", status_code=201, responses=_problems(429, 507))
    def begin_session(body: BeginRequest, user: Caller) -> BeginReply:
        """Open an upload session. It ends a day after its last stored chunk."""
        about = About(body.asset_type, body.mime_type, body.is_public, body.metadata)
        wanted = assets.plan(body.file_name, body.file_size, body.chunk_size, about, depot.limits)
        depot.upload_rate.take(user)
        session = depot.sessions.begin(user, wanted)
        place = f"{STORAGE}/chunked-upload/{session.id}"
        assert wanted.chunk_size is not None
        return BeginReply(
            session_id=session.id,
            file_name=wanted.filepath,
            file_size=wanted.file_size,
            chunk_size=wanted.chunk_size,
            total_chunks=wanted.total_chunks,
            upload_url=f"{place}/chunk",
            resume_url=place,
            complete_url=f"{place}/complete",
            cancel_url=f"{place}/cancel",
            expires_at=rfc3339(session.expires_at),
        )

    @router.post(
        "/chunked-upload/{session_id}/chunk", openapi_extra=_form("chunk"), responses=_problems(403, 404, 503, 507)
    )
    async def send_chunk(
        session_id: SessionId,
        chunk_number: Annotated[int, Query(ge=1, le=LARGEST, description="From 1")],
        request: Request,
        user: Caller,
    ) -> StoredReply:
        """Send one chunk as the part `chunk` of a form. It is durable when the reply comes. The session is `completed`
        with its last chunk. Ours: a field `sha256` (hex) behind it is compared before the chunk counts."""
        return await _send_chunk(depot, user, session_id, chunk_number, request)

    @router.get("/chunked-upload/{session_id}", responses=_problems(403, 404))
    def session_status(session_id: SessionId, user: Caller) -> StandingReply:
        """What the session is and which chunks it holds."""
        session, chunks = _session(depot, user, session_id), list(depot.sessions.chunks(session_id))
        created, asset = session.created_at, depot.assets.named_by(session)
        return StandingReply(**standing_fields(session, chunks, created, asset))

    @router.post("/chunked-upload/{session_id}/complete", responses=_problems(403, 404, 503, 507))
    async def complete_session(session_id: SessionId, user: Caller) -> CompletedReply:
        """Make the asset. Once more gives the same reply, as long as the asset is there."""
        session = await asyncio.to_thread(_session, depot, user, session_id)
        if STATUS[session.state] != "completed":
            raise Refused(400, "Upload is not complete. All chunks must be uploaded first.", code="invalid_state")
        with _in_their_words():
            async with depot.live.get(session_id).asking:  # impatient clients must not take all threads with one file
                loop = asyncio.get_running_loop()
                done = await loop.run_in_executor(depot.completions, depot.completer.complete, user, session_id, {})
        fields = await asyncio.to_thread(lambda: asset_fields(depot.assets.of_entry(done.file_id or 0)))
        return CompletedReply(session_id=session_id, **fields)

    @router.post("/chunked-upload/{session_id}/pause", responses=_problems(403, 404))
    def pause_session(session_id: SessionId, user: Caller) -> Message:
        """Ours: mark a session as paused; the next chunk goes on with it."""
        _must(_session(depot, user, session_id), "paused", SessionState.UPLOADING)
        with _in_their_words():
            depot.sessions.pause(user, session_id)
        return Message(message="Upload paused successfully")

    @router.post("/chunked-upload/{session_id}/cancel", responses=_problems(403, 404, 503))
    def cancel_session(session_id: SessionId, user: Caller) -> Message:
        """Give an upload up and drop what it holds. Once more is fine."""
        open_states = (SessionState.INITIATED, SessionState.UPLOADING, SessionState.PAUSED, SessionState.FAILED)
        _must(_session(depot, user, session_id), "cancelled", *open_states, SessionState.ABORTED)
        with _in_their_words():
            depot.sessions.abort(user, session_id)
        depot.live.forget(session_id)
        return Message(message="Upload cancelled successfully")

    return _with_assets(router, depot)


def _with_assets(router: APIRouter, depot: Depot) -> APIRouter:
    fields = {"asset_type": {"type": "string"}, "is_public": {"type": "string"}, "metadata": {"type": "string"}}

    @router.post("/upload", status_code=201, openapi_extra=_form("file", **fields), responses=_problems(429, 507))
    async def upload_asset(request: Request, user: Caller) -> AssetReply:
        """A whole file as the part `file` of a form."""
        asset = await _upload(depot, user, request)
        return AssetReply(**asset_fields(asset))

    @router.get("/assets", responses=_problems())
    def list_assets(
        user: Caller,
        asset_type: AssetType | None = None,
        page: Annotated[int, Query(ge=1, le=1 << 31)] = 1,
        per_page: Annotated[int, Query(ge=1, le=_PER_PAGE)] = 20,
    ) -> AssetsReply:
        """Your assets, the newest first."""
        found, total = depot.assets.listed(user, asset_type, page, per_page)
        replies = [AssetReply(**asset_fields(asset)) for asset in found]
        return AssetsReply(assets=replies, total=total, page=page, per_page=per_page)

    @router.get("/assets/{asset_id}", responses=_problems(403, 404))
    def get_asset(asset_id: AssetId, user: Caller) -> AssetReply:
        return AssetReply(**asset_fields(depot.assets.get(user, asset_id)))

    @router.delete("/assets/{asset_id}", responses=_problems(403, 404))
    def delete_asset(asset_id: AssetId, user: Caller) -> Message:
        depot.assets.delete(user, asset_id)
        if depot.limits.content_grace == 0:
            depot.cleanup.remove_content()
        return Message(message="Asset deleted successfully")

    @router.get(
        "/assets/{asset_id}/download",
        response_class=Response,
        responses=_problems(403, 404, 416)
        | {200: {"content": {"*/*": {"schema": _FILE}}}, 206: {"content": {"*/*": {"schema": _FILE}}}},
    )
    async def download_asset(asset_id: AssetId, request: Request, user: Caller) -> Response:
        """The bytes; one range of them with a Range header."""
        asset = await asyncio.to_thread(depot.assets.get, user, asset_id)
        attachment = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(asset.file_name, safe='')}"}
        return await send_content(depot, asset.sha256, asset.file_size, request, asset.about.mime_type, attachment)

    return router


async def _send_chunk(depot: Depot, user: User, session_id: str, number: int, request: Request) -> StoredReply:
    session = await asyncio.to_thread(_session, depot, user, session_id)
    with _in_their_words():
        check_open(session)
    if number > session.wanted.total_chunks:
        said = f"Invalid chunk number. Must be between 1 and {session.wanted.total_chunks}"
        raise Refused(400, said, code="invalid_chunk")
    form = Form(request.headers.get("content-type", ""), request.stream())
    with _in_their_words():
        try:
            received = await depot.receiver.receive(
                session, number - 1, form.part("chunk"), lambda: form.fields.get("sha256")
            )
        except FileNotFoundError:  # the session ended while the chunk was on its way
            check_open(await asyncio.to_thread(_session, depot, user, session_id))
            raise
    after = await asyncio.to_thread(depot.sessions.owned, user, session_id)
    numbers = await asyncio.to_thread(depot.sessions.chunk_numbers, session_id)
    return StoredReply(
        session_id=session_id,
        chunk_number=number,
        uploaded_chunks=[stored + 1 for stored in numbers],
        progress=100.0 * len(numbers) / after.wanted.total_chunks,
        status=STATUS.get(after.state, "expired"),
        sha256=received.etag,
        expires_at=rfc3339(after.expires_at),
    )


async def _upload(depot: Depot, user: User, request: Request) -> assets.Asset:
    form = Form(request.headers.get("content-type", ""), request.stream())
    depot.upload_rate.take(user)

    def wanted(size: int, digest: str) -> Wanted:
        about = _about(form)
        assets.check_size(size, about.asset_type, depot.limits)
        if form.fields.get("sha256") not in (None, digest):
            raise Refused(400, "What arrived has another SHA-256 than was told", code="checksum_mismatch")
        return Wanted(_checked_name(form.file_name), "", digest, size, max(size, 1), 1, asset=about.text())

    most = max(assets.longest(asset_type, depot.limits) for asset_type in AssetType)
    session = await depot.single_shot.receive(user, form.part("file"), most, wanted)
    return await asyncio.to_thread(depot.assets.of_entry, session.file_id or 0)


def _about(form: Form) -> About:
    """Raises `Refused` 400."""
    text = form.fields.get("asset_type", AssetType.MODEL)
    kind = form.file_type or mimetypes.guess_type(form.file_name, strict=False)[0] or "application/octet-stream"
    try:
        metadata = json.loads(form.fields.get("metadata") or "null")
        about = About(AssetType(text), kind, form.fields.get("is_public") in ("true", "1"), metadata)
    except (ValueError, RecursionError):
        raise Refused(400, "asset_type or metadata makes no sense", code="validation_error") from None
    if not re.fullmatch(MIME_TYPE, kind):
        raise Refused(400, "The type of the file makes no sense", code="validation_error")
    return about


def _checked_name(name: str) -> str:
    try:
        return _NAME.validate_python(name)
    except ValidationError as error:
        raise Refused(400, f"filename: {error.errors()[0]['msg']}", code="validation_error") from None


def _session(depot: Depot, user: User, session_id: str) -> Session:
    """A GraphWiz session of this user that has not expired. Raises `Refused` 404 or 403."""
    session = depot.sessions.owned(user, session_id)
    if session.wanted.asset is None:
        raise Refused(404, "Upload session not found")
    if session.expired or session.state is SessionState.EXPIRED:
        raise Refused(404, "Upload session has expired", code="session_expired")
    return session


def _must(session: Session, become: str, *states: SessionState) -> None:
    if session.state not in states:
        said = f"An upload that is {STATUS[session.state]} cannot become {become}"
        raise Refused(400, said, code="invalid_state")


@contextmanager
def _in_their_words() -> Iterator[None]:
    """Refusals of what the protocols share, with the statuses that GraphWiz clients know."""
    try:
        yield
    except Refused as refused:
        if refused.status == 409 or refused.detail.endswith("aborted"):
            raise Refused(400, refused.detail, code="invalid_state") from None
        if refused.status == 410:
            raise Refused(404, refused.detail, code="session_expired") from None
        raise
