"""The calls of the GraphWiz storage API (seed document 003), one method each: what is sent, and what the replies mean.
Nothing is decided here. Chunks are counted from 0, as everywhere else in ppcli; the server counts them from 1. A reply
that makes no sense is `Transient`: it may be a proxy's.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from ppcli.errors import Crowded, Damaged, Doubt, Loss, Rejected, SessionLost, Transient
from ppcli.model import FilePlan
from ppcli.target import Body
from ppcli.targets.graphwiz_form import FormBody
from ppcli.targets.json_replies import by_our_clock, number, record_of, text, when
from ppcli.transport import Reply, Request, Transport
from ppcli.transport.refusals import own_words, refusal, retry_after

LIFETIME = 86400.0
"""Seconds that a session lives, where the server does not say."""
_PER_PAGE = 1000
_GONE = frozenset({403, 404, 410})
"""What a server answers about a session that cannot be used (any more), or not by this account."""
_NO_ROUTE = frozenset({404, 405})
_CROWDED = "Too many unfinished uploads"
"""What our own server says; others count requests only."""
_TOO_LARGE = re.compile(r"too large|maximum size", re.IGNORECASE)
_MERGE_RATE = 50e6
"""Bytes per second at which a server is trusted to put a file together before it answers."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What GraphWiz wants to know of a file besides its name and size."""

    asset_type: str
    mime_type: str


@dataclass(frozen=True, slots=True)
class Begun:
    """A new session. `slides`: each stored chunk moves its end on. `extensions` are what our own server says it does
    beyond the API."""

    id: str
    chunk_size: int
    chunks: int
    expires_at: float
    slides: bool
    extensions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Standing:
    """A session as the server sees it: `completed` means that all chunks are there. `digests` are the SHA-256 (hex) of
    chunks, where it tells them; `asset` is the id of what the session has become."""

    status: str
    marks: frozenset[int]
    digests: Mapping[int, str]
    expires_at: float | None
    asset: str | None
    extensions: frozenset[str]

    @property
    def completed(self) -> bool:
        return self.status == "completed"


@dataclass(frozen=True, slots=True)
class Stored:
    """The reply to a chunk: whether it is among the marks, its SHA-256 as the server tells it and as it was sent."""

    marked: bool
    told: str | None
    sent: str | None


@dataclass(frozen=True, slots=True)
class Asset:
    """A finished file. `digest` is `sha256:hex` where the server tells it; `created` is in seconds since the epoch."""

    id: str
    name: str
    size: int
    digest: str | None = None
    created: float | None = None


class Api:
    """Any thread may call it. `prefix` is the path that the API lives under, without a slash at its end."""

    def __init__(self, transport: Transport, prefix: str) -> None:
        self._transport = transport
        self._base = f"{prefix}/storage"
        self._sessions = f"{self._base}/chunked-upload"

    def initiate(self, file: FilePlan, kind: Kind) -> Begun:
        """Raises `Rejected` where the file is too large, or the server takes no chunks."""
        asked = {
            "file_name": file.name,
            "file_size": file.size,
            "asset_type": kind.asset_type,
            "mime_type": kind.mime_type,
            "chunk_size": file.chunk_size,
            "is_public": False,
        }
        reply = self._send(Request.json("POST", self._sessions, asked, expect=_NO_ROUTE | {400}))
        if reply.status in _NO_ROUTE:
            raise Rejected(
                f"{self._transport.origin.netloc} takes no uploads in chunks.",
                hint="Check the URL with who runs the server; it may take small files only.",
                reason="unsupported",
            )
        self._refuse(reply)
        record = record_of(reply)
        ends = by_our_clock(record, reply)
        return Begun(
            id=text(record, "session_id"),
            chunk_size=number(record, "chunk_size"),
            chunks=number(record, "total_chunks"),
            expires_at=time.time() + LIFETIME if ends is None else ends,
            slides=ends is not None,
            extensions=_extensions(record),
        )

    def send(self, session: str, chunk: int, body: Body, *, digest: bool) -> Stored | None:
        """Send a chunk; `digest`: with its SHA-256 behind it. None where the session takes none now. Raises
        `SessionLost`; `Damaged` where the server computed another SHA-256."""
        form = FormBody("chunk", body, file_name="chunk", digest=digest)
        path = f"{self._path(session)}/chunk?chunk_number={chunk + 1}"
        reply = self._send(Request("POST", path, form.headers, expect=_GONE | {400}), form)
        _still_there(reply)
        if reply.status == 400 and _code(reply) == "invalid_state":
            return None
        self._refuse(reply)
        record = record_of(reply)
        told = record.get("sha256")
        return Stored(chunk in _marks(record), told if isinstance(told, str) else None, form.sha256)

    def standing(self, session: str) -> Standing:
        """Raises `SessionLost`."""
        reply = self._send(Request("GET", self._path(session), expect=_GONE))
        _still_there(reply)
        record = record_of(reply)
        listed = record.get("chunks")
        digests = {number(one, "chunk_number") - 1: text(one, "sha256") for one in listed or ()}
        asset = record.get("asset_id")
        return Standing(
            status=text(record, "status"),
            marks=_marks(record),
            digests=digests,
            expires_at=by_our_clock(record, reply),
            asset=asset if isinstance(asset, str) else None,
            extensions=_extensions(record),
        )

    def complete(self, session: str, file: FilePlan) -> Asset:
        """Raises `Doubt` where it may have been completed, `SessionLost` where the session is gone (or was completed
        before), or where chunks are missing (`BEHIND`)."""
        asked = Request(
            "POST", f"{self._path(session)}/complete", expect=_GONE | {400}, patience=60.0 + file.size / _MERGE_RATE
        )
        try:
            reply = self._send(asked)
        except Transient as error:  # also a 500: the asset may be there, and only the session was not deleted
            raise Doubt(error.cause, retry_after=error.retry_after, reason=error.reason) from error
        _still_there(reply)
        if reply.status == 400 and _code(reply) == "invalid_state":
            raise SessionLost(f"the server answers: {own_words(reply)}", Loss.BEHIND)
        self._refuse(reply)
        return _asset(record_of(reply))

    def cancel(self, session: str) -> bool:
        """Repeatable; a session that is gone is no error. False for one with all its chunks: it cannot be cancelled."""
        reply = self._send(Request("POST", f"{self._path(session)}/cancel", expect=_GONE | {400}))
        if reply.status == 400 and _code(reply) == "invalid_state":
            return False
        if reply.status not in _GONE:
            self._refuse(reply)
        return True

    def upload(self, file: FilePlan, kind: Kind, body: Body, *, digest: bool) -> Asset | None:
        """A whole file in one request; None where the server has no such route. Raises `Damaged` as `send` does."""
        fields = {"asset_type": kind.asset_type, "is_public": "false"}
        form = FormBody("file", body, file_name=file.name, mime_type=kind.mime_type, fields=fields, digest=digest)
        path, patience = f"{self._base}/upload", 60.0 + file.size / _MERGE_RATE
        reply = self._send(Request("POST", path, form.headers, expect=_NO_ROUTE | {400}, patience=patience), form)
        if reply.status in _NO_ROUTE:
            return None
        self._refuse(reply)
        asset = _asset(record_of(reply))
        if form.sha256 is not None and asset.digest not in (None, f"sha256:{form.sha256}"):
            raise Damaged(f"it is stored as {asset.digest}, sha256:{form.sha256} was sent")
        return asset

    def assets(self) -> tuple[list[Asset], frozenset[str]]:
        """All of the caller's assets, and the server's extensions."""
        found: dict[str, Asset] = {}
        page, extensions = 1, frozenset[str]()
        while True:
            record = record_of(self._send(Request("GET", f"{self._base}/assets?page={page}&per_page={_PER_PAGE}")))
            listed = record.get("assets")
            if not isinstance(listed, list):
                raise Transient("the server's list of assets makes no sense")
            extensions, before = _extensions(record), len(found)
            found |= {asset.id: asset for asset in map(_asset, listed)}
            size = record.get("per_page")
            if len(found) == before or len(listed) < (size if isinstance(size, int) else _PER_PAGE):
                return list(found.values()), extensions
            page += 1

    def delete(self, asset: str) -> None:
        """Repeatable."""
        self._send(Request("DELETE", f"{self._base}/assets/{quote(asset, safe='')}", expect=frozenset({404})))

    def content(self, asset: str, start: int, end: int | None = None) -> Request:
        """The request for the bytes from `start` to `end`; a server that knows no ranges gives all of them."""
        headers = {"Range": f"bytes={start}-{end - 1 if end else ''}"} if start or end else {}
        path = f"{self._base}/assets/{quote(asset, safe='')}/download"
        return Request("GET", path, headers, expect=frozenset({404, 416}))

    def _send(self, request: Request, body: Body | None = None) -> Reply:
        reply = self._transport.send(replace(request, expect=request.expect | {429}), body)
        if reply.status == 429:
            said = own_words(reply)
            if said.startswith(_CROWDED):
                raise Crowded(said, retry_after=retry_after(reply.headers))
            raise Transient(
                f"{self._transport.origin.netloc} takes no more requests for now (429{': ' if said else ''}{said}); "
                "GraphWiz servers allow 100 an hour",
                retry_after=retry_after(reply.headers),
                reason="rate_limit",
            )
        return reply

    def _refuse(self, reply: Reply) -> None:
        """Raise what a 400 means that is nothing else."""
        if reply.status != 400:
            return
        if _code(reply) == "checksum_mismatch":
            raise Damaged("the server computed another SHA-256")
        error = refusal(self._transport.origin, reply)
        if isinstance(error, Rejected) and _TOO_LARGE.search(own_words(reply)):
            raise Rejected(error.message, hint="Choose another target, or another asset_type.", reason="too_large")
        raise error

    def _path(self, session: str) -> str:
        return f"{self._sessions}/{quote(session, safe='')}"


def _still_there(reply: Reply) -> None:
    if reply.status in _GONE:
        expired = reply.status == 410 or _code(reply) == "session_expired"
        told = own_words(reply) or str(reply.status)
        raise SessionLost(f"the server no longer knows its session ({told})", Loss.EXPIRED if expired else Loss.GONE)


def _code(reply: Reply) -> str:
    """The `error` of a refusal; empty where it is no JSON."""
    try:
        record = reply.json()
    except Transient:
        return ""
    code = record.get("error") if isinstance(record, dict) else None
    return code if isinstance(code, str) else ""


def _asset(record: Any) -> Asset:
    digest = record.get("sha256") if isinstance(record, dict) else None
    return Asset(
        id=text(record, "asset_id"),
        name=text(record, "file_name"),
        size=number(record, "file_size"),
        digest=f"sha256:{digest}" if isinstance(digest, str) else None,
        created=when(record.get("created_at")),
    )


def _marks(record: Mapping[str, Any]) -> frozenset[int]:
    marks = record.get("uploaded_chunks")
    if not isinstance(marks, list) or not all(isinstance(mark, int) for mark in marks):
        raise Transient("the server's list of chunks makes no sense")
    return frozenset(mark - 1 for mark in marks)


def _extensions(record: Mapping[str, Any]) -> frozenset[str]:
    told = record.get("extensions")
    return frozenset(filter(lambda one: isinstance(one, str), told)) if isinstance(told, list) else frozenset()
