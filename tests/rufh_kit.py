"""A server of the IETF resumable uploads draft (interop version 8), written from the draft's text: in memory, on a free
loopback port, strict about what a client must send, and without any interim reply.

    with running_rufh() as server:
        server.url                          # rufh+http://127.0.0.1:PORT/files
        server.content("a.bin")             # the newest complete upload of that name
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

LIMIT = "max-size=10000000000, max-age=3600"


@dataclass
class Upload:
    name: str
    length: int
    data: bytearray = field(default_factory=bytearray)
    complete: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class RufhServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.held: dict[str, Upload] = {}
        self.ids = itertools.count(1)

    def handle_error(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """What happens to a client that has left is nobody's business."""
        try:
            left = not request.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            left = False
        except OSError:
            left = True
        if not left:
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"rufh+http://127.0.0.1:{self.server_address[1]}/files"

    def content(self, name: str, but: set[str] | None = None) -> bytes | None:
        whole = [
            one for path, one in self.held.items() if one.complete and one.name == name and path not in (but or ())
        ]
        return bytes(whole[-1].data) if whole else None


class _Lines(io.BufferedReader):
    last = b""

    def readline(self, size: int | None = -1) -> bytes:
        self.last = super().readline(size)
        return self.last


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RufhServer

    def setup(self) -> None:
        super().setup()
        self.rfile: _Lines = _Lines(self.rfile.detach())  # type: ignore[attr-defined]

    def parse_request(self) -> bool:
        """A head that breaks off is none."""
        return super().parse_request() and not self.rfile.last.strip()

    def do_OPTIONS(self) -> None:
        self._answer(204, Accept_Patch="application/partial-upload", Upload_Limit=LIMIT)

    def do_POST(self) -> None:
        assert self._header("Upload-Draft-Interop-Version") == "8"
        assert (self._header("Upload-Complete"), self._header("Content-Length")) == ("?0", "0")
        (name,) = re.findall(r"^inline; filename\*=UTF-8''(\S+)$", self._header("Content-Disposition"))
        path = f"/uploads/{next(self.server.ids)}"
        self.server.held[path] = Upload(unquote(name), int(self._header("Upload-Length")))
        self._answer(201, Location=path, Upload_Limit=LIMIT)

    def do_HEAD(self) -> None:
        if upload := self.server.held.get(self.path):
            state = {"Upload_Offset": str(len(upload.data)), "Upload_Complete": _boolean(upload.complete)}
            self._answer(204, Upload_Length=str(upload.length), Upload_Limit=LIMIT, **state)
        else:
            self._answer(404)

    def do_PATCH(self) -> None:
        upload = self.server.held.get(self.path)
        assert self._header("Content-Type") == "application/partial-upload"
        if upload is None:
            self.close_connection = True
            return self._answer(404)
        with upload.lock:
            return self._append(upload)

    def do_DELETE(self) -> None:
        self._answer(204 if self.server.held.pop(self.path, None) else 404)

    def _append(self, upload: Upload) -> None:
        complete, size = self._header("Upload-Complete") == "?1", int(self._header("Content-Length"))
        if int(self._header("Upload-Offset")) != len(upload.data) or upload.complete:
            self.close_connection = True
            return self._answer(409, Upload_Offset=str(len(upload.data)))
        while size:
            piece = self.rfile.read1(size)
            if not piece:
                self.close_connection = True
                return None
            upload.data += piece
            size -= len(piece)
        assert len(upload.data) <= upload.length
        upload.complete = complete and len(upload.data) == upload.length
        return self._answer(200 if complete else 204, Upload_Complete=_boolean(upload.complete))

    def _header(self, name: str) -> str:
        return str(self.headers.get(name, ""))

    def _answer(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def _boolean(value: bool) -> str:
    return "?1" if value else "?0"


@contextlib.contextmanager
def running_rufh() -> Iterator[RufhServer]:
    server = RufhServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
