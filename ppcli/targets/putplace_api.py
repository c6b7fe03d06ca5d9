"""The calls of the PutPlace API (seed document 004, and putplace-server 0.9 to 0.11), one method each: what is sent,
and what the replies mean. Nothing is decided here. A reply that makes no sense is `Transient`: it may be a proxy's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from ppcli.errors import Credentials, Crowded, Doubt, Loss, SessionLost, Transient
from ppcli.model import FilePlan, Receipt
from ppcli.target import Body
from ppcli.targets.json_replies import by_our_clock, number, record_of, sane, text, when
from ppcli.transport import Reply, Request, Transport
from ppcli.transport.refusals import own_words, refusal, retry_after
from ppcli.values import value

_PAGE = 500
NOT_OURS = frozenset({403, 404, 409, 410})
"""What a server answers about a session that cannot be used (any more), or not by this account."""
_ASSEMBLY_RATE = 50e6
"""Bytes per second at which a server is trusted to put a file together before it answers."""
_CROWDED = "Too many unfinished uploads"
_COUNT = re.compile(r"Not all chunks uploaded: (\d+)/(\d+)")


@value(frozen=True, slots=True)
class Begun:
    """A new session. `slides`: each stored chunk moves its end on (our own server says so)."""

    id: str
    expires_at: float | None
    slides: bool


@value(frozen=True, slots=True)
class Stored:
    """What the server holds for a chunk: its SHA-256, and the bytes it took now (0: it had the chunk before)."""

    etag: str
    received: int


@value(frozen=True, slots=True)
class Entry:
    """A file that the server knows. `digest` is `sha256:hex`; `content` says that its bytes are there; `deleted` is
    None where the server does not tell (putplace-server up to 0.11), as `newest`: no later file has its name."""

    id: str | None
    name: str
    hostname: str
    digest: str
    size: int
    content: bool
    modified: float | None
    deleted: bool | None
    owner: str | None
    newest: bool | None = None


class Api:
    """Any thread may call it. `prefix` is the path that the API lives under, without a slash at its end."""

    def __init__(self, transport: Transport, prefix: str) -> None:
        self._transport = transport
        self._prefix = prefix

    def initiate(self, file: FilePlan, hostname: str) -> Begun:
        asked = {
            "filepath": file.name,
            "hostname": hostname,
            "sha256": hex_of(file.digest),
            "file_size": file.size,
            "chunk_size": file.chunk_size,
            "total_chunks": file.chunks,
        }
        reply = self._send(Request.json("POST", self._path("/api/uploads/initiate"), asked, expect=(429,)))
        if reply.status == 429:
            said = own_words(reply)
            if said.startswith(_CROWDED):
                raise Crowded(said, retry_after=retry_after(reply.headers))
            raise refusal(self._transport.origin, reply)
        record = record_of(reply)
        return Begun(text(record, "upload_id"), by_our_clock(record, reply), record.get("expiry") == "idle")

    def put(self, session: str, chunk: int, body: Body) -> Stored:
        """Raises `SessionLost` when the session has ended."""
        path = self._session(session, f"/chunk/{chunk}")
        headers = {"Content-Type": "application/octet-stream"}
        reply = self._send(Request("PUT", path, headers, expect=NOT_OURS), body)
        still_there(reply)
        record = record_of(reply)
        received = record.get("received_bytes")
        return Stored(text(record, "etag"), received if isinstance(received, int) else body.size)

    def complete(self, session: str, receipts: Sequence[Receipt], size: int) -> Mapping[str, Any]:
        """The server's record of the finished file. Raises `Doubt` where it may have been finished, `SessionLost` where
        what is there can never become this file."""
        parts = [{"chunk_num": receipt.index, "etag": receipt.etag} for receipt in receipts]
        path, patience = self._session(session, "/complete"), 60.0 + size / _ASSEMBLY_RATE
        asked = Request.json("POST", path, {"parts": parts}, expect=NOT_OURS | {400}, patience=patience)
        try:
            reply = self._send(asked)
        except Transient as error:  # also a 500: the second of two completes gets one
            raise Doubt(error.cause, retry_after=error.retry_after) from error
        if reply.status == 400:
            said = own_words(reply)
            count = _COUNT.search(said)
            missing = count is not None and int(count[1]) < int(count[2])
            raise SessionLost(f"the server answers: {said}", Loss.GONE if missing else Loss.POISONED)
        still_there(reply)
        return record_of(reply)

    def abort(self, session: str) -> None:
        """Repeatable; a session that is unknown, or belongs to another account, is no error."""
        self._send(Request("DELETE", self._session(session), expect=NOT_OURS))

    def with_content(self, digest: str) -> list[Entry]:
        """Entries with this digest: all that the server tells, at least one of them where it has any."""
        for route in ("/api/clones/", "/get_file/"):
            reply = self._send(Request("GET", self._path(route + hex_of(digest)), expect=frozenset({404, 405})))
            if reply.status == 200:
                found = reply.json()
                return [entry_of(one) for one in (found if isinstance(found, list) else [found])]
        return []

    def files(self, hostname: str, prefix: str = "") -> Iterator[Entry]:
        """The caller's files, newest first; servers that know no such filter give those of other hosts as well."""
        skip, before = 0, None
        while True:
            query = urlencode({"limit": _PAGE, "skip": skip, "hostname": hostname, "prefix": prefix})
            page = self._send(Request("GET", self._path(f"/api/my_files?{query}"))).json()
            if not isinstance(page, list):
                raise Transient("the server's list of files makes no sense")
            if not page or page == before:  # the second: a server that knows no pages
                return
            yield from map(entry_of, page)
            skip, before = skip + len(page), page

    def me(self) -> str | None:
        """The caller's id, which the server tells with the files of theirs; None while there are none."""
        page = self._send(Request("GET", self._path("/api/my_files?limit=1"))).json()
        return entry_of(page[0]).owner if isinstance(page, list) and page else None

    def register(self, file: FilePlan, hostname: str) -> bool:
        """Tell of a file under a name. True where the server has its content, so that nothing is to be sent."""
        said: dict[str, Any] = dict.fromkeys(("file_mode", "file_uid", "file_gid"), 0)
        said |= dict.fromkeys(("file_mtime", "file_atime", "file_ctime"), file.modified)
        said |= {"filepath": file.name, "hostname": hostname, "ip_address": "", "file_size": file.size}
        said["sha256"] = hex_of(file.digest)
        return (
            record_of(self._send(Request.json("POST", self._path("/put_file"), said))).get("upload_required") is False
        )

    def deleted(self, entries: Sequence[Entry]) -> None:
        """Give notice that these files are gone: all at once where the server takes that, else one by one."""
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        files = [_notice(entry, at) | {"sha256": hex_of(entry.digest)} for entry in entries]
        batch = Request.json("POST", self._path("/api/files/deletions"), {"files": files}, expect=(404, 405))
        if len(entries) > 1 and self._send(batch).status == 200:
            return
        for entry in entries:
            path = self._path(f"/api/files/{hex_of(entry.digest)}")
            self._send(Request.json("DELETE", path, _notice(entry, at), expect=(404,)))

    def login(self, email: str, password: str) -> str:
        """A token. The path is that of putplace-server 0.11, then that of older ones. Raises `Credentials`."""
        for route in ("/api/v2/auth/login", "/api/login"):
            asked = Request.json(
                "POST", self._path(route), {"email": email, "password": password}, expect=(400, 401, 403, 404, 405, 422)
            )
            reply = self._send(asked)
            if reply.status == 200:
                return text(record_of(reply), "access_token")
            if reply.status not in (404, 405):
                said = own_words(reply, password) or f"status {reply.status}"
                raise Credentials(f"The login was refused: {said}.", hint="Check the e-mail and the password.")
        raise Credentials("The server has no login.", hint="Use 'ppcli login --token-stdin' with a token of its own.")

    def accepts(self, token: str) -> bool:
        """Whether the server takes this token."""
        headers = {"Authorization": f"Bearer {token}"}
        path = self._path("/api/my_files?limit=1")
        return self._send(Request("GET", path, headers, expect=frozenset({401, 403}))).status == 200

    def _send(self, request: Request, body: Body | None = None) -> Reply:
        return self._transport.send(request, body)

    def _path(self, path: str) -> str:
        return f"{self._prefix}{path}"

    def _session(self, session: str, path: str = "") -> str:
        return self._path(f"/api/uploads/{quote(session, safe='')}{path}")


def still_there(reply: Reply) -> None:
    if reply.status == 410:
        raise SessionLost("its session has expired", Loss.EXPIRED)
    if reply.status in NOT_OURS:
        raise SessionLost(f"the server no longer knows its session ({own_words(reply) or reply.status})")


def entry_of(record: Any) -> Entry:
    name = text(record, "filepath")
    known_as, owner, newest = record.get("_id"), record.get("uploaded_by_user_id"), record.get("newest")
    return Entry(
        id=known_as if isinstance(known_as, str) else None,
        name=name,
        hostname=text(record, "hostname"),
        digest=f"sha256:{text(record, 'sha256')}",
        size=number(record, "file_size"),
        content=record.get("has_file_content") is True,
        modified=sane(record.get("file_mtime")) or when(record.get("created_at")),
        deleted=record["status"] == "deleted" if "status" in record else None,
        owner=owner if isinstance(owner, str) else None,
        newest=newest if isinstance(newest, bool) else None,
    )


def _notice(entry: Entry, at: str) -> dict[str, str]:
    return {"filepath": entry.name, "hostname": entry.hostname, "deleted_at": at}


def hex_of(digest: str | None) -> str:
    return (digest or "").removeprefix("sha256:")
