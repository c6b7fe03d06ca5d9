"""A real `ppcli serve` process for tests: on a free loopback port, with a token; to stop, kill and start again.

with running_server(root) as server:
    server.url, server.token, server.data          # as long as it runs; the token survives restarts
    reply = server.call("GET", "/api/my_files")     # reply.status, reply.json, reply.body, reply.headers
    server.kill(); server.start()                   # SIGKILL, and again on the same port
    server.env                                      # for a client: the same directories, so it has the login
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nursery import Forked

from ppcli.server.database import DATABASE, Database
from ppcli.server.users import Users

STARTING = 30.0
ENDING = 20.0


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class ServerProcess:
    """`limits` is the table `[server]` of its `config.toml`; `extra` are more words for the command line. `fresh`: by
    an interpreter of its own, as users start it; else from the nursery, which takes a tenth of the time."""

    def __init__(
        self,
        root: Path,
        limits: Mapping[str, object] | None = None,
        *extra: str,
        umask: int = 0o022,
        fresh: bool = sys.platform == "darwin",
    ) -> None:
        self.root, self.extra, self.umask, self.fresh = root, extra, umask, fresh
        self.config, self.data = root / "server-config", root / "server-data"
        self.port, self.url, self.token = 0, "", ""
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("PPCLI_")}
        self.env |= {"PPCLI_CONFIG_DIR": str(self.config), "PPCLI_DATA_DIR": str(root / "client-data")}
        self.env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent.parent), self.env.get("PYTHONPATH", "")])
        self.events: list[dict[str, Any]] = []
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self.limit(**(limits or {}))

    @property
    def origin(self) -> str:
        return self.url

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def limit(self, **limits: object) -> None:
        """Write the table `[server]`; it counts from the next start."""
        self.config.mkdir(parents=True, exist_ok=True)
        lines = ["[server]", *(f"{key} = {json.dumps(value)}" for key, value in limits.items())]
        (self.config / "config.toml").write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        """Start it and wait until it listens; the same port again after the first time."""
        words = ["serve", "--json", "--port", str(self.port), "--data", str(self.data), *self.extra]
        with (self.root / "server-stderr").open("ab") as errors:
            self._process = self._fresh(words, errors) if self.fresh else Forked(words, self.env, errors, self.umask)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            self.events.append(event)
            if event["event"] == "token":
                self.token = event["token"]
            elif event["event"] == "serving":
                self.url, self.port = event["url"], event["port"]
                return
        raise AssertionError(f"it did not start: {self.events}, {self.stderr}")

    def _fresh(self, words: list[str], errors: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "ppcli", *words],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            umask=self.umask,
        )

    @property
    def stderr(self) -> str:
        return (self.root / "server-stderr").read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> dict[str, Any]:
        """Stop it in good order; gives its `result`."""
        process = self._process
        assert process is not None
        process.send_signal(number)
        out, _ = process.communicate(timeout=ENDING)
        self._process = None
        last: dict[str, Any] = json.loads(out.splitlines()[-1])
        assert process.returncode == last["exit_code"], (process.returncode, last)
        return last

    def kill(self) -> None:
        """SIGKILL."""
        process = self._process
        if process is not None:
            process.kill()
            process.communicate()
        self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def connect(self, timeout: float = 30.0) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = "",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request on a connection of its own. A dict goes as JSON; `token` None sends none, "" the server's own."""
        lines = dict(headers or {})
        if token is not None:
            lines["Authorization"] = f"Bearer {token or self.token}"
        if isinstance(body, dict):
            body = json.dumps(body).encode()
            lines["Content-Type"] = "application/json"
        connection = self.connect()
        with contextlib.closing(connection):
            connection.request(method, path, body, lines)
            with contextlib.closing(connection.getresponse()) as response:
                return Reply(response.status, dict(response.getheaders()), response.read())

    def run(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """A ppcli command with the same directories, such as `serve --new-token`."""
        return subprocess.run(
            [sys.executable, "-m", "ppcli", *words],
            env=self.env,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=60,
        )

    def add_user(self, email: str, password: str = "correct horse") -> str:
        """A further user; gives a token of theirs. As `--add-user` and `--new-token` do it, beside the server."""
        database = Database(self.data / DATABASE)
        with contextlib.closing(database):
            users = Users(database)
            return users.new_token(users.add(email, password))

    # the GraphWiz protocol, step by step

    def begin(self, size: int, chunk_size: int, /, name: str = "a.glb", **more: Any) -> Reply:
        """`more` are fields that replace or join the usual ones; and `token`."""
        token = more.pop("token", "")
        kind = {"asset_type": "model", "mime_type": "model/gltf-binary"}
        body = {"file_name": name, "file_size": size, "chunk_size": chunk_size} | kind | more
        return self.call("POST", "/storage/chunked-upload", body, token=token)

    def send(self, session: str, number: int, data: bytes, *, token: str | None = "", **fields: str) -> Reply:
        body, headers = form("chunk", data, **fields)
        path = f"/storage/chunked-upload/{session}/chunk?chunk_number={number}"
        return self.call("POST", path, body, headers=headers, token=token)

    def session(self, session: str, step: str = "", **more: Any) -> Reply:
        """Its status without a `step`."""
        path = f"/storage/chunked-upload/{session}{'/' if step else ''}{step}"
        return self.call("POST" if step else "GET", path, **more)

    def upload_asset(self, data: bytes, file_name: str = "a.glb", *, token: str = "", **fields: str) -> Reply:
        body, headers = form("file", data, file_name, **fields)
        return self.call("POST", "/storage/upload", body, headers=headers, token=token)

    # the PutPlace protocol, step by step

    def initiate(self, data: bytes, size: int, /, name: str = "a.bin", **more: Any) -> Reply:
        """`more` are fields that replace or join the usual ones; and `token`."""
        token = more.pop("token", "")
        body = {
            "filepath": name,
            "hostname": "here",
            "sha256": sha256(data),
            "file_size": len(data),
            "chunk_size": size,
            "total_chunks": max(1, -(-len(data) // size)),
        } | more
        return self.call("POST", "/api/uploads/initiate", body, token=token)

    def put(self, upload_id: str, chunk: int, data: bytes, **more: Any) -> Reply:
        return self.call("PUT", f"/api/uploads/{upload_id}/chunk/{chunk}", data, **more)

    def complete(self, upload_id: str, parts: list[dict[str, Any]] | None = None, **more: Any) -> Reply:
        return self.call("POST", f"/api/uploads/{upload_id}/complete", {"parts": parts or []}, **more)

    def upload(self, data: bytes, chunk_size: int = 1024, name: str = "a.bin", *, token: str = "") -> Reply:
        """All of it; gives the reply to complete."""
        begun = self.initiate(data, chunk_size, name, token=token)
        assert begun.status == 201, begun.body
        upload_id = begun.json["upload_id"]
        for number, piece in enumerate(cut(data, chunk_size)):
            reply = self.put(upload_id, number, piece, token=token)
            assert reply.status == 200, reply.body
        return self.complete(upload_id, token=token)


def form(part: str, data: bytes, file_name: str = "a.bin", **fields: str) -> tuple[bytes, dict[str, str]]:
    """A multipart/form-data body and its header; a field `sha256` comes after the part."""
    boundary = "a-boundary-for-tests"

    def one(head: str, value: bytes) -> bytes:
        return f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + value + b"\r\n"

    before = [one(f'name="{name}"', value.encode()) for name, value in fields.items() if name != "sha256"]
    after = [one(f'name="{name}"', value.encode()) for name, value in fields.items() if name == "sha256"]
    body = b"".join([*before, one(f'name="{part}"; filename="{file_name}"', data), *after])
    return body + f"--{boundary}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)] or [b""]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def running_server(
    root: Path,
    limits: Mapping[str, object] | None = None,
    *extra: str,
    umask: int = 0o022,
    fresh: bool = sys.platform == "darwin",
) -> Iterator[ServerProcess]:
    """A server that listens; killed at the end if it still runs."""
    server = ServerProcess(root, limits, *extra, umask=umask, fresh=fresh)
    try:
        server.start()
        yield server
    finally:
        server.kill()
