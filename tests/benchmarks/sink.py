"""A loopback server that takes uploads and throws them away, to measure senders against.

    python tests/benchmarks/sink.py [PORT]          127.0.0.1 only; prints its URL; ends when its stdin does

Any PUT or POST is 200. Bodies below /api/uploads/ (PutPlace) are hashed, as a real server must; all others are dropped,
in the kernel where it can (Linux), so that the sink costs as little as possible. It checks nothing: for speed only.
Below /s3/ it speaks as much S3 as uploads take: small bodies get their MD5 as ETag, and a wrong CRC64NVME is refused.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import sys
import threading
import uuid
from typing import Any

WINDOW = 1 << 20
SMALL = 1 << 16
TRAILER = 64
"""The last bytes of a body in which the checksum that follows it is looked for."""


class Peer:
    """One connection, served by one thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._window = memoryview(bytearray(WINDOW))
        self._held = b""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def serve(self) -> None:
        with self._sock:
            while head := self._head():
                first, *lines = head.decode("latin-1").split("\r\n")
                method, path, _ = first.split(" ")
                fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                if fields.get("expect"):
                    self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                self._answer(method, path, int(fields.get("content-length", "0")), fields)

    def _head(self) -> bytes:
        while b"\r\n\r\n" not in self._held:
            data = self._sock.recv(1 << 16)
            if not data:
                return b""
            self._held += data
        head, _, self._held = self._held.partition(b"\r\n\r\n")
        return head

    def _answer(self, method: str, path: str, size: int, fields: dict[str, str]) -> None:
        value: Any = {}
        if path.startswith("/s3"):
            self._answer_s3(method, path, size, fields)
            return
        if path.startswith("/api/clones/"):
            value = []  # it knows no file yet
        elif "/chunk/" in path:
            value = {"etag": self._digest(size), "received_bytes": size}
        elif path.startswith("/api/uploads/"):
            self._digest(size)
            value = {"upload_id": str(uuid.uuid4()), "expires_at": "2099-01-01T00:00:00", "status": "completed"}
        else:
            self._drop(size)
        body = b"" if method == "HEAD" else json.dumps(value).encode()
        self._sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nETag: x\r\n\r\n" % len(body) + body)

    def _answer_s3(self, method: str, path: str, size: int, fields: dict[str, str]) -> None:
        query = path.partition("?")[2]
        if method == "GET":
            name = "ListMultipartUploadsResult" if query.startswith("uploads") else "ListBucketResult"
            self._send(200, f"<{name}><IsTruncated>false</IsTruncated></{name}>".encode())
        elif method in ("HEAD", "DELETE"):
            self._send(404 if method == "HEAD" else 204, b"")
        elif method == "POST" and "uploadId=" not in query:
            self._drop(size)
            name = "InitiateMultipartUploadResult"
            self._send(200, f"<{name}><UploadId>{uuid.uuid4().hex}</UploadId></{name}>".encode())
        elif method == "POST":
            self._drop(size)
            name = "CompleteMultipartUploadResult"
            self._send(200, f'<{name}><ETag>"{"0" * 32}-1"</ETag></{name}>'.encode())
        else:
            self._take_s3(size, fields)

    def _take_s3(self, size: int, fields: dict[str, str]) -> None:
        etag, trails = "0" * 32, "x-amz-trailer" in fields
        checksum = fields.get("x-amz-checksum-crc64nvme")
        if size <= SMALL:
            data = self._read(size)
            if trails:
                first, _, data = data.partition(b"\r\n")
                data, checksum = data[: int(first, 16)], trailer(data)
            if checksum and checksum != crc64nvme(data):
                self._send(400, b"<Error><Code>BadDigest</Code><Message>no</Message></Error>")
                return
            etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
        elif trails:
            self._drop(size - TRAILER)
            checksum = trailer(self._read(TRAILER))
        else:
            self._drop(size)
        told = f"x-amz-checksum-crc64nvme: {checksum}\r\n" if checksum else ""
        self._send(200, b"", f'ETag: "{etag}"\r\n{told}')

    def _send(self, status: int, body: bytes, more: str = "") -> None:
        self._sock.sendall(f"HTTP/1.1 {status} OK\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def _read(self, size: int) -> bytes:
        while len(self._held) < size:
            data = self._sock.recv(1 << 16)
            if not data:
                raise ConnectionError
            self._held += data
        data, self._held = self._held[:size], self._held[size:]
        return data

    def _digest(self, size: int) -> str:
        hasher = hashlib.sha256(self._held[:size])
        size -= min(size, len(self._held))
        self._held = b""
        while size:
            size -= self._receive(min(size, WINDOW), 0, hasher)
        return hasher.hexdigest()

    def _drop(self, size: int) -> None:
        held = min(size, len(self._held))
        self._held, size = self._held[held:], size - held
        flags = socket.MSG_TRUNC if sys.platform == "linux" else 0
        while size:
            size -= self._receive(min(size, WINDOW), flags, None)

    def _receive(self, size: int, flags: int, hasher: Any) -> int:
        count = self._sock.recv_into(self._window, size, flags)
        if not count:
            raise ConnectionError
        if hasher:
            hasher.update(self._window[:count])
        return count


def trailer(end: bytes) -> str:
    """The checksum that follows a body."""
    return end.rpartition(b":")[2].strip().decode()


def crc64nvme(data: bytes) -> str:
    from awscrt import checksums

    return base64.b64encode(checksums.crc64nvme(data).to_bytes(8, "big")).decode()


def serve(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # senders may leave as they like
        Peer(sock).serve()


def accept(listener: socket.socket) -> None:
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=serve, args=(sock,), daemon=True).start()


def main() -> None:
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0), backlog=512)
    threading.Thread(target=accept, args=(listener,), daemon=True).start()
    sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
