"""Bodies of requests and replies: the field names are those of the PutPlace server, additions are marked."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ppcli.server.entries import Entry, Stat
from ppcli.server.fields import LARGEST, FilePath, HostName, Moment, Seconds, Sha256, Short, Size, rfc3339
from ppcli.server.states import SessionState

MOST_KNOWN = 1000


class Problem(BaseModel):
    """Every reply that is an error. `detail` is a sentence; for fields that do not fit, a list that names them."""

    detail: str | list[dict[str, Any]]


class Health(BaseModel):
    status: Literal["ok"] = "ok"
    version: str


class LimitsReply(BaseModel):
    """Ours: what this server accepts, so that a client can plan by it. Sizes are bytes."""

    chunk_min: int
    chunk_max: int
    max_file_size: int
    whole_max: Annotated[int, Field(description="A file of up to so many bytes may be sent in one request")]
    known_max: Annotated[int, Field(description="Digests that may be asked for at once")]
    sessions_per_user: int


class Login(BaseModel):
    email: Annotated[str, Field(min_length=1, max_length=254)]
    password: Annotated[str, Field(max_length=1024)]


class Token(BaseModel):
    access_token: str
    token_type: Literal["bearer"] = "bearer"
    expires_in: Annotated[int, Field(description="Seconds")]


class InitiateRequest(BaseModel):
    filepath: FilePath
    hostname: HostName
    sha256: Sha256
    file_size: Size
    chunk_size: Annotated[
        int | None, Field(description="Bytes. Left out, the first chunk that comes tells it", ge=1, le=LARGEST)
    ] = None
    total_chunks: Annotated[int, Field(ge=0, le=LARGEST, description="An empty file has one empty chunk, or none")]
    ip_address: Short = ""
    file_mtime: Seconds = 0.0


class InitiateReply(BaseModel):
    upload_id: str
    expires_at: datetime
    expiry: Annotated[Literal["idle"], Field(description="Ours: expires_at moves on with every stored chunk")] = "idle"
    chunk_urls: Annotated[list[str] | None, Field(description="Left out for more than 1000 chunks")] = None
    message: str = "Upload session created successfully"


class ChunkReply(BaseModel):
    chunk_num: int
    etag: Annotated[str, Field(description="SHA-256 of the chunk as it is stored, hex")]
    received_bytes: Annotated[int, Field(description="0 when the chunk was stored before")]
    uploaded_chunks: int
    total_chunks: int
    expires_at: datetime


class PartName(BaseModel):
    chunk_num: Annotated[int, Field(ge=0, le=LARGEST)]
    etag: str


class CompleteRequest(BaseModel):
    parts: list[PartName]


class CompleteReply(BaseModel):
    file_id: str
    sha256: str
    file_size: int
    status: Literal["completed"] = "completed"
    storage_location: Annotated[str, Field(description="A label below the server's data dir")]


def completed(file_id: int | None, sha256: str, size: int) -> CompleteReply:
    return CompleteReply(file_id=str(file_id), sha256=sha256, file_size=size, storage_location=storage_label(sha256))


class AbortReply(BaseModel):
    upload_id: str
    status: Literal["aborted", "expired"]
    chunks_uploaded: int
    chunks_deleted: int


class ReceivedChunk(BaseModel):
    chunk_num: int
    etag: str
    size: int


class SessionReply(BaseModel):
    """Ours: what a session holds. `next` is where the next page of `received` begins, null on the last one."""

    upload_id: str
    state: SessionState
    filepath: str
    hostname: str
    sha256: str
    file_size: int
    chunk_size: int | None
    total_chunks: int
    uploaded_chunks: int
    received: list[ReceivedChunk]
    next: int | None
    expires_at: datetime


class UploadReply(BaseModel):
    upload_id: str
    state: SessionState
    filepath: str
    hostname: str
    sha256: str
    file_size: int
    total_chunks: int
    uploaded_chunks: int
    created_at: datetime
    expires_at: datetime


class UploadsReply(BaseModel):
    """Ours: the caller's unfinished uploads. `next` is where the next page begins, null on the last one."""

    uploads: list[UploadReply]
    next: str | None


class DeletionRequest(BaseModel):
    filepath: FilePath
    hostname: HostName
    deleted_at: Moment


class DeletionReply(BaseModel):
    sha256: str
    filepath: str
    hostname: str
    status: Literal["deleted", "not_found"] = "deleted"
    deleted_at: datetime


class BatchDeletion(DeletionRequest):
    sha256: Sha256


class DeletionsRequest(BaseModel):
    files: Annotated[list[BatchDeletion], Field(max_length=10_000)]


class DeletionsReply(BaseModel):
    files: list[DeletionReply]


_Whole = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]


class FileMetadata(BaseModel):
    filepath: FilePath
    hostname: HostName
    ip_address: Short = ""
    sha256: Sha256
    file_size: Size
    file_mode: _Whole = 0
    file_uid: _Whole = 0
    file_gid: _Whole = 0
    file_mtime: Seconds = 0.0
    file_atime: Seconds = 0.0
    file_ctime: Seconds = 0.0

    def stat(self) -> Stat:
        return Stat(**{key: getattr(self, key) for key in Stat.__slots__})


class EntryReply(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    id: Annotated[str, Field(alias="_id")]
    filepath: str
    hostname: str
    ip_address: str
    sha256: str
    file_size: int
    file_mode: int
    file_uid: int
    file_gid: int
    file_mtime: float
    file_atime: float
    file_ctime: float
    has_file_content: Annotated[bool, Field(description="Whether you can read the content here")]
    file_uploaded_at: datetime | None
    uploaded_at: Annotated[datetime | None, Field(description="The same, ours")]
    storage_path: str | None
    uploaded_by_user_id: str
    uploaded_by_api_key_id: None = None
    created_at: datetime
    status: Literal["active", "deleted"]
    deleted_at: datetime | None

    @classmethod
    def fields_of(cls, entry: Entry) -> dict[str, Any]:
        uploaded = None if entry.uploaded_at is None else rfc3339(entry.uploaded_at)
        return {
            "id": str(entry.id),
            "filepath": entry.filepath,
            "hostname": entry.hostname,
            "sha256": entry.sha256,
            "file_size": entry.file_size,
            **{key: getattr(entry.stat, key) for key in Stat.__slots__},
            "has_file_content": entry.has_content,
            "file_uploaded_at": uploaded,
            "uploaded_at": uploaded,
            "storage_path": storage_label(entry.sha256) if entry.has_content else None,
            "uploaded_by_user_id": str(entry.user_id),
            "created_at": rfc3339(entry.created_at),
            "status": entry.status,
            "deleted_at": entry.deleted_at,
        }


class KnownRequest(BaseModel):
    sha256: Annotated[list[Sha256], Field(max_length=MOST_KNOWN)]


class KnownReply(BaseModel):
    """Ours: the caller's entries with any of the digests, not deleted, the oldest first."""

    files: list[EntryReply]


class PutFileReply(EntryReply):
    upload_required: bool
    upload_url: Annotated[str | None, Field(description="Where to begin the upload")]


def storage_label(sha256: str) -> str:
    return f"content/{sha256[:2]}/{sha256}"
