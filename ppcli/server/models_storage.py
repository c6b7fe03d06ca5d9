"""Bodies of requests and replies of the GraphWiz storage API: its field names, additions are marked."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field, JsonValue

from ppcli.server.assets import Asset, AssetType
from ppcli.server.fields import LARGEST, FilePath, Size, rfc3339
from ppcli.server.sessions import Session, StoredChunk
from ppcli.server.states import SessionState

EXTENSIONS = ["checksum-sha256", "parallel"]
"""What this server does beyond the API: it checks and tells digests, and takes chunks side by side."""
MIME_TYPE = r"^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$"
STATUS = {
    SessionState.INITIATED: "initiated",
    SessionState.UPLOADING: "uploading",
    SessionState.PAUSED: "paused",
    SessionState.GATHERED: "completed",
    SessionState.COMPLETING: "completed",
    SessionState.ASSEMBLED: "completed",
    SessionState.COMPLETED: "completed",
    SessionState.FAILED: "failed",
    SessionState.ABORTED: "cancelled",
}
"""What clients are told: a session is `completed` from its last chunk on. One that has expired is not there."""

_Extensions = Annotated[list[str], Field(description="Ours: what the server does beyond the API")]


class StorageProblem(BaseModel):
    """Every reply that is an error."""

    error: str
    message: str


class BeginRequest(BaseModel):
    file_name: FilePath
    file_size: Size
    asset_type: AssetType
    mime_type: Annotated[str, Field(pattern=MIME_TYPE)] = "application/octet-stream"
    chunk_size: Annotated[int | None, Field(ge=1, le=LARGEST, description="Bytes; the reply tells what it is")] = None
    is_public: bool = False
    metadata: JsonValue = None


class BeginReply(BaseModel):
    session_id: str
    file_name: str
    file_size: int
    chunk_size: int
    total_chunks: int
    upload_url: str
    resume_url: str
    complete_url: str
    cancel_url: str
    expires_at: Annotated[datetime, Field(description="Ours: it moves on with every stored chunk")]
    extensions: _Extensions = EXTENSIONS


class StoredReply(BaseModel):
    session_id: str
    chunk_number: int
    uploaded_chunks: list[int]
    progress: Annotated[float, Field(description="Percent")]
    status: str
    sha256: Annotated[str, Field(description="Ours: of the chunk as it is stored, hex")]
    expires_at: datetime


class ChunkDigest(BaseModel):
    chunk_number: int
    sha256: str
    size: int


class StandingReply(BaseModel):
    session_id: str
    file_name: str
    file_size: int
    uploaded_chunks: list[int]
    total_chunks: int
    progress: float
    status: str
    created_at: datetime
    chunk_size: Annotated[int, Field(description="Ours, as all that follows")]
    chunks: list[ChunkDigest]
    expires_at: datetime
    asset_id: Annotated[str | None, Field(description="What the session has become")]
    extensions: _Extensions = EXTENSIONS


class CompletedReply(BaseModel):
    session_id: str
    asset_id: str
    file_name: str
    file_size: int
    mime_type: str
    download_url: str
    sha256: Annotated[str, Field(description="Ours: of the whole file, hex")]


class Message(BaseModel):
    message: str


class AssetReply(BaseModel):
    asset_id: str
    file_name: str
    asset_type: AssetType
    file_size: int
    mime_type: str
    is_public: bool
    created_at: datetime
    download_url: str
    sha256: Annotated[str, Field(description="Ours: of the content, hex")]


class AssetsReply(BaseModel):
    assets: list[AssetReply]
    total: int
    page: int
    per_page: int
    extensions: _Extensions = EXTENSIONS


def asset_fields(asset: Asset) -> dict[str, Any]:
    return {
        "asset_id": asset.id,
        "file_name": asset.file_name,
        "asset_type": asset.about.asset_type,
        "file_size": asset.file_size,
        "mime_type": asset.about.mime_type,
        "is_public": asset.about.is_public,
        "created_at": rfc3339(asset.created_at),
        "download_url": f"/storage/assets/{asset.id}/download",
        "sha256": asset.sha256,
    }


def standing_fields(
    session: Session, chunks: list[StoredChunk], created_at: float, asset: str | None
) -> dict[str, Any]:
    """Once a session has become an asset, its chunks are no longer told one by one."""
    wanted, over = session.wanted, session.state is SessionState.COMPLETED
    numbers = list(range(1, wanted.total_chunks + 1)) if over else [chunk.chunk_num + 1 for chunk in chunks]
    return {
        "session_id": session.id,
        "file_name": wanted.filepath,
        "file_size": wanted.file_size,
        "uploaded_chunks": numbers,
        "total_chunks": wanted.total_chunks,
        "progress": 100.0 * len(numbers) / wanted.total_chunks,
        "status": STATUS[session.state],
        "created_at": rfc3339(created_at),
        "chunk_size": wanted.chunk_size,
        "chunks": [ChunkDigest(chunk_number=c.chunk_num + 1, sha256=c.etag, size=c.size) for c in chunks],
        "expires_at": rfc3339(session.expires_at),
        "asset_id": asset,
    }
