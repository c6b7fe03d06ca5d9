"""What `ppcli serve` can do beside the PutPlace API: say what it takes and what it holds, answer for many digests at
once, take a small file in one request, give content back. Other servers answer 404 or 405."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import quote, urlencode

from ppcli.errors import Loss, Rejected, SessionLost, Transient
from ppcli.model import FilePlan
from ppcli.target import Body
from ppcli.targets.json_replies import by_our_clock, number, record_of, text, when
from ppcli.targets.putplace_api import NOT_OURS, Entry, entry_of, hex_of, still_there
from ppcli.transport import Reply, Request, Transport
from ppcli.transport.refusals import own_words, refusal

_NO_SUCH_ROUTE = frozenset({404, 405})
_OTHER_DIGEST = "SHA256 mismatch"


@dataclass(frozen=True, slots=True)
class Offer:
    """What a server says of itself; only our own does. `whole_max`: a file of up to so many bytes may go in one
    request, without a session (-1: none may); `known_max`: digests that may be asked for at once (0: none)."""

    chunk_min: int
    chunk_max: int
    max_file_size: int | None = None
    whole_max: int = -1
    known_max: int = 0


NO_OFFER = Offer(1 << 10, 10 << 20)
"""What holds for servers that say nothing of themselves."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A session as our own server sees it: `etags` are the SHA-256 of the chunks that are there."""

    finished: bool
    etags: Mapping[int, str]
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An upload that our own server lists; `begun` in seconds since the epoch."""

    id: str
    name: str
    hostname: str
    size: int
    begun: float | None


class OwnApi:
    """As `Api`: any thread may call it."""

    def __init__(self, transport: Transport, prefix: str) -> None:
        self._transport = transport
        self._prefix = prefix

    def offer(self) -> Offer:
        """What the server takes, as far as it says so; whatever else answers here says nothing."""
        reply = self._send(Request("GET", self._path("/api/limits"), expect=_NO_SUCH_ROUTE | {400, 403, 422}))
        if reply.status == 200:
            with contextlib.suppress(Transient, ValueError):
                record = record_of(reply)
                return Offer(*(number(record, field.name) for field in fields(Offer)))
        return NO_OFFER

    def put_whole(self, file: FilePlan, hostname: str, body: Body) -> bool:
        """Send a small file without a session. False: the server computed another digest."""
        query = urlencode({"filepath": file.name, "hostname": hostname, "file_mtime": file.modified})
        path = self._path(f"/api/files/{hex_of(file.digest)}/content?{query}")
        headers = {"Content-Type": "application/octet-stream"}
        reply = self._send(Request("PUT", path, headers, expect=frozenset({400})), body)
        if reply.status == 400 and not own_words(reply).startswith(_OTHER_DIGEST):
            raise refusal(self._transport.origin, reply)
        return reply.status != 400

    def standing(self, session: str, chunks: int) -> Standing | None:
        """What the server says of a session of so many chunks; None where it cannot say (only our own can). Raises
        `SessionLost`."""
        there: dict[int, str] = {}
        start, following = -1, 0
        while start < following < chunks:
            start = following
            path = self._path(f"/api/uploads/{quote(session, safe='')}?start={start}")
            reply = self._send(Request("GET", path, expect=NOT_OURS | {405}))
            if reply.status == 405:
                return None
            still_there(reply)
            record = record_of(reply)
            held, state = record.get("received"), record.get("state")
            if not isinstance(held, list):
                raise Transient("the server's list of chunks makes no sense")
            if state in ("expired", "aborted"):
                raise SessionLost(f"its session is {state}", Loss.EXPIRED if state == "expired" else Loss.GONE)
            there |= {number(one, "chunk_num"): text(one, "etag") for one in held}
            following = after if isinstance(after := record.get("next"), int) else start
        return Standing(state in ("assembled", "completed"), there, by_our_clock(record, reply))

    def known(self, digests: Sequence[str]) -> Mapping[str, list[Entry]]:
        """As `with_content`, for many digests at once."""
        asked = Request.json("POST", self._path("/api/files/known"), {"sha256": [hex_of(one) for one in digests]})
        found = record_of(self._send(asked)).get("files")
        if not isinstance(found, list):
            raise Transient("the server's list of files makes no sense")
        entries: dict[str, list[Entry]] = {digest: [] for digest in digests}
        for entry in map(entry_of, found):
            entries.setdefault(entry.digest, []).append(entry)
        return entries

    def unfinished(self) -> Iterator[Unfinished] | None:
        """The caller's uploads that are neither completed nor given up; None where the server cannot say."""
        first = self._unfinished("")
        return None if first is None else self._pages(first)

    def _pages(self, page: Mapping[str, Any]) -> Iterator[Unfinished]:
        while True:
            uploads, following = page.get("uploads"), page.get("next")
            if not isinstance(uploads, list):
                raise Transient("the server's list of uploads makes no sense")
            for one in uploads:
                begun = when(one.get("created_at")) if isinstance(one, dict) else None
                yield Unfinished(
                    text(one, "upload_id"),
                    text(one, "filepath"),
                    text(one, "hostname"),
                    number(one, "file_size"),
                    begun,
                )
            if not isinstance(following, str):
                return
            page = self._unfinished(following) or {}

    def _unfinished(self, after: str) -> Mapping[str, Any] | None:
        path = self._path(f"/api/uploads?{urlencode({'after': after})}")
        reply = self._send(Request("GET", path, expect=_NO_SUCH_ROUTE))
        return record_of(reply) if reply.status == 200 else None

    def content(self, digest: str, offset: int, size: int | None = None) -> Iterator[memoryview]:
        """`size` bytes from `offset` on (None: all of them)."""
        headers = {"Range": f"bytes={offset}-{offset + size - 1 if size else ''}"} if offset or size else {}
        path = self._path(f"/api/files/{hex_of(digest)}/content")
        asked = Request("GET", path, headers, expect=_NO_SUCH_ROUTE | {416})
        with self._transport.stream(asked) as stream:
            if stream.status in _NO_SUCH_ROUTE:
                raise Rejected(
                    f"{self._transport.origin} does not give content back: this server can only take files.",
                    hint="Fetch it where the server stores its files.",
                    reason="unsupported",
                )
            if stream.status == 416:
                return
            if (offset or size) and stream.status != 206:
                raise Transient("the server does not go on in the middle of a file")
            yield from stream.pieces()

    def _send(self, request: Request, body: Body | None = None) -> Reply:
        return self._transport.send(request, body)

    def _path(self, path: str) -> str:
        return f"{self._prefix}{path}"
