"""A GraphWiz-XR storage server as the real one behaves, written from its document: in memory, on a free loopback port.

It is no friend: marks of chunks that arrive side by side get lost, what a broken connection brought is stored and
marked, there are no checksums, `complete` works once, refusals are JSON or text, and names are not unique.

    with running_graphwiz() as server:
        server.url                          # graphwiz+http://127.0.0.1:PORT
        server.content("a.bin")             # the newest asset of that name
        server.heard                        # ["POST /storage/chunked-upload", ...]
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

MIB = 1 << 20
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Session:
    name: str
    size: int
    chunk_size: int
    total: int
    chunks: dict[int, bytes] = field(default_factory=dict)
    marks: list[int] = field(default_factory=list)
    status: str = "initiated"


@dataclass(frozen=True)
class Asset:
    id: str
    name: str
    kind: str
    mime: str
    data: bytes
    created: str


Cut = Callable[["Handler"], bool]


class GraphWizServer(ThreadingHTTPServer):
    """`token`: the one it wants, if any. `single`: it has the route for whole files. `requests_left`: before 429.
    `cut(handler)`: whether to break off before this request is answered, after it had its effect."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.token: str | None = None
        self.single = self.chunked = True
        self.chunk_bounds = (5 * MIB, 20 * MIB)
        self.max_size = 200 * MIB
        self.requests_left = 1 << 30
        self.cut: Cut = lambda handler: False
        self.sessions: dict[str, Session] = {}
        self.assets: list[Asset] = []
        self.heard: list[str] = []
        self.received: list[tuple[int, int]] = []
        self._ids = itertools.count(1)

    @property
    def url(self) -> str:
        return f"graphwiz+http://127.0.0.1:{self.server_address[1]}"

    def content(self, name: str) -> bytes | None:
        return next((asset.data for asset in reversed(self.assets) if asset.name == name), None)

    def unfinished(self) -> int:
        return sum(session.status != "cancelled" for session in self.sessions.values())

    def add(self, name: str, kind: str, mime: str, data: bytes) -> Asset:
        number = next(self._ids)
        created = (EPOCH + timedelta(seconds=number)).isoformat()
        self.assets.append(Asset(f"asset-{number}", name, kind, mime, data, created))
        return self.assets[-1]

    def begin(self, asked: dict[str, Any]) -> tuple[str, Session]:
        low, high = self.chunk_bounds
        size, chunk = asked["file_size"], min(max(asked["chunk_size"], low), high)
        session = Session(asked["file_name"], size, chunk, -(-size // chunk))
        key = f"session-{next(self._ids)}"
        self.sessions[key] = session
        return key, session

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: GraphWizServer

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        server, path = self.server, urlsplit(self.path).path
        server.heard.append(f"{self.command} {path}")
        self.marks_before: list[int] | None = None
        if found := re.fullmatch(r"/storage/chunked-upload/([^/]+)/chunk", path):
            session = server.sessions.get(found[1])
            self.marks_before = list(session.marks) if session else None
        self.size = int(self.headers.get("Content-Length", "0"))
        self.body = self.rfile.read(self.size)
        self.whole = len(self.body) == self.size
        if server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
            return self._answer(401, "Invalid token")
        server.requests_left -= 1
        if server.requests_left < 0:
            return self._answer(429, "Rate limit exceeded. Maximum 100 uploads per 3600s")
        return self._route(path)

    def _route(self, path: str) -> None:
        server = self.server
        words = path.removeprefix("/storage/").split("/")
        match (self.command, *words):
            case ("POST", "upload") if server.single:
                self._upload()
            case ("POST", "chunked-upload") if server.chunked:
                self._initiate()
            case (_, "chunked-upload", session, *step) if server.chunked:
                found = server.sessions.get(session)
                if found is None:
                    self._refuse(404, "not_found", "Upload session not found")
                else:
                    {"chunk": self._chunk, "complete": self._complete, "cancel": self._cancel, "": self._status}[
                        step[0] if step else ""
                    ](session, found)
            case ("GET", "assets"):
                self._list()
            case ("GET", "assets", asset, "download"):
                self._download(asset)
            case ("DELETE", "assets", asset):
                before = len(server.assets)
                server.assets = [one for one in server.assets if one.id != asset]
                gone = len(server.assets) < before
                self._answer(200, {"message": "ok"}) if gone else self._refuse(404, "not_found", "Asset not found")
            case _:
                self._answer(404, "")

    def _initiate(self) -> None:
        asked = json.loads(self.body)
        if asked["file_size"] > self.server.max_size:
            said = f"File too large. Maximum size: {self.server.max_size} bytes"
            return self._refuse(400, "validation_error", said)
        key, session = self.server.begin(asked)
        told = {"session_id": key, "file_name": session.name, "file_size": session.size}
        urls = {f"{step}_url": f"/storage/chunked-upload/{key}/{step}" for step in ("upload", "complete", "cancel")}
        return self._answer(201, told | urls | {"chunk_size": session.chunk_size, "total_chunks": session.total})

    def _chunk(self, key: str, session: Session) -> None:
        number = int(parse_qs(urlsplit(self.path).query)["chunk_number"][0])
        if session.status not in ("initiated", "uploading"):
            return self._refuse(400, "invalid_state", f"Upload session is in {session.status} state")
        if not 1 <= number <= session.total:
            return self._refuse(400, "invalid_chunk", f"Must be between 1 and {session.total}")
        data = self._part("chunk")
        if not data:
            return self._refuse(400, "no_data", "No chunk data provided")
        self.server.received.append((number, len(data)))
        session.chunks[number] = data
        session.marks = sorted({*(self.marks_before or ()), number})
        session.status = "completed" if len(session.marks) == session.total else "uploading"
        told = {"session_id": key, "chunk_number": number, "uploaded_chunks": session.marks}
        return self._answer(200, told | {"progress": 0.0, "status": session.status})

    def _status(self, key: str, session: Session) -> None:
        told = {"session_id": key, "file_name": session.name, "file_size": session.size, "progress": 0.0}
        more = {"uploaded_chunks": session.marks, "total_chunks": session.total, "status": session.status}
        self._answer(200, told | more | {"created_at": EPOCH.isoformat()})

    def _complete(self, key: str, session: Session) -> None:
        if session.status != "completed":
            return self._refuse(400, "invalid_state", "Upload is not complete. All chunks must be uploaded first.")
        data = b"".join(session.chunks[number] for number in sorted(session.chunks))
        asset = self.server.add(session.name, "model", "application/octet-stream", data)
        del self.server.sessions[key]
        told = {"session_id": key, "asset_id": asset.id, "file_name": asset.name, "file_size": len(data)}
        return self._answer(
            200, told | {"mime_type": asset.mime, "download_url": f"/storage/assets/{asset.id}/download"}
        )

    def _cancel(self, key: str, session: Session) -> None:
        if session.status == "completed":
            return self._refuse(400, "invalid_state", "Cannot cancel a completed upload")
        session.status, session.chunks = "cancelled", {}
        return self._answer(200, {"message": "Upload cancelled successfully"})

    def _upload(self) -> None:
        if not self.whole:
            return self._answer(500, "")
        data, name = self._part("file"), re.findall(rb'name="file"; filename="([^"]*)"', self.body)[0].decode()
        if len(data) > self.server.max_size:
            said = f"File too large. Maximum size: {self.server.max_size} bytes"
            return self._refuse(400, "validation_error", said)
        kind = self._part("asset_type").decode()
        asset = self.server.add(name, kind, "application/octet-stream", data)
        told = {"asset_id": asset.id, "file_name": name, "asset_type": kind, "file_size": len(data)}
        return self._answer(201, told | {"mime_type": asset.mime, "download_url": "/storage/assets/x/download"})

    def _list(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        page, per_page = int(asked.get("page", ["1"])[0]), min(int(asked.get("per_page", ["20"])[0]), 50)
        listed = [
            {"asset_id": one.id, "file_name": one.name, "asset_type": one.kind, "file_size": len(one.data)}
            | {"mime_type": one.mime, "is_public": False, "created_at": one.created}
            for one in self.server.assets[(page - 1) * per_page : page * per_page]
        ]
        pages = -(-len(self.server.assets) // per_page)
        self._answer(200, {"assets": listed, "total": pages, "page": page, "per_page": per_page})

    def _download(self, asset: str) -> None:
        found = next((one for one in self.server.assets if one.id == asset), None)
        self._answer(404, "") if found is None else self._answer(200, found.data)

    def _part(self, name: str) -> bytes:
        """What came of a part; all that came, where the body was cut."""
        boundary = self.headers["Content-Type"].partition("boundary=")[2].encode()
        found = re.search(rb'name="' + name.encode() + rb'"[^\n]*\r\n(?:[^\r\n]+\r\n)*\r\n', self.body)
        assert found or not self.whole, self.body[:200]
        return self.body[found.end() :].partition(b"\r\n--" + boundary)[0] if found else b""

    def _refuse(self, status: int, error: str, message: str) -> None:
        self._answer(status, {"error": error, "message": message})

    def _answer(self, status: int, told: dict[str, Any] | str | bytes) -> None:
        if not self.whole or self.server.cut(self):
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        kind = "application/json" if isinstance(told, dict) else "text/plain"
        content = json.dumps(told) if isinstance(told, dict) else told
        raw = content.encode() if isinstance(content, str) else content
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def running_graphwiz() -> Iterator[GraphWizServer]:
    server = GraphWizServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
