"""The real PutPlace server for tests: the published package, unpatched, in front of our MongoDB shim.

It is started as its own command starts it, configured by the environment alone, with a home and a storage directory of
its own. Sessions and tokens are aged in the database and with the server's own signing key, never in its code.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import jwt
from cli_kit import until
from mongo_shim import Shim
from recording_proxy import Proxy

GUARDED = str(Path(__file__).parent / "guarded.py")
EMAIL, PASSWORD = "tests@example.com", "correct horse battery"
SIGNING_KEY = "a signing key for tests, long enough for HS256 by any measure"
DATABASE = "putplace_tests"
HOST = "testhost"
READY = 30.0


class PutPlace:
    """The server, its database, and a proxy before it that keeps what passed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.shim = Shim()
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._log = root / "server.log"
        self.start()
        self.proxy = Proxy(self.port)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30, trust_env=False)
        self.token = self.login()

    # --- The process -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it, on the port of before if there was one, and wait until it answers."""
        home = self.root / "home"
        home.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "uvicorn", "putplace_server.main:app", "--host", "127.0.0.1"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, GUARDED, *command, "--port", str(self.port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment(home),
                cwd=home,
                start_new_session=True,
            )
        try:
            self._pid = int(self._output.readline())
            until(self._ready, READY)
        except BaseException:
            self._reap()
            raise

    def _environment(self, home: Path) -> dict[str, str]:
        keep = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "TMPDIR", "SYSTEMROOT")}
        return keep | {
            "HOME": str(home),
            "MONGODB_URL": self.shim.url,
            "MONGODB_DATABASE": DATABASE,
            "STORAGE_BACKEND": "local",
            "STORAGE_PATH": str(self.root / "storage"),
            "PUTPLACE_ADMIN_EMAIL": EMAIL,
            "PUTPLACE_ADMIN_PASSWORD": PASSWORD,
            "REGSTACK_JWT_SECRET": SIGNING_KEY,
        }

    @property
    def _output(self) -> BinaryIO:
        assert self._process is not None and self._process.stdout is not None
        return self._process.stdout  # type: ignore[return-value]

    def _ready(self) -> bool:
        assert self._process is not None
        log = self._log.read_text()
        assert self._process.poll() is None, f"the server ended:\n{log}"
        if found := re.search(r"running on http://127\.0\.0\.1:(\d+)", log):
            self.port = int(found[1])
            with contextlib.suppress(httpx.TransportError):
                answer = httpx.get(f"http://127.0.0.1:{self.port}/health", trust_env=False, timeout=5)
                return bool(answer.json()["status"] == "healthy")
        return False

    def kill(self) -> None:
        """As the power goes: nothing is finished, nothing is said."""
        os.kill(self._pid, signal.SIGKILL)
        self._reap()

    def stop(self) -> None:
        assert self._process is not None
        os.kill(self._pid, signal.SIGTERM)
        self._process.wait(20)
        self._reap()

    def _reap(self) -> None:
        """Its guard ends it when our end of the pipe closes, if it has not ended yet."""
        assert self._process is not None
        self._process.communicate(timeout=20)
        self._process = None

    def close(self) -> None:
        """End it, when it has cleared away the chunks of what nobody finished: they are outside of its storage."""
        try:
            if self._process:
                for session in self.sessions():
                    if session["status"] in ("initiated", "uploading"):
                        self.call("DELETE", f"/api/uploads/{session['upload_id']}")
                self.stop()
        finally:
            self.http.close()
            self.proxy.close()
            self.shim.close()

    # --- Users and tokens ------------------------------------------------------------------------------------------

    def login(self, email: str = EMAIL) -> str:
        answer = self.http.post("/api/v2/auth/login", json={"email": email, "password": PASSWORD})
        answer.raise_for_status()
        return str(answer.json()["access_token"])

    def aged(self, seconds: float) -> str:
        """A token as the server makes them, which ends in so many seconds; below zero: it ended that long ago."""
        key = hmac.digest(SIGNING_KEY.encode(), b"session", hashlib.sha256)
        claims = jwt.decode(self.token, key, algorithms=["HS256"], options={"verify_exp": False, "verify_iat": False})
        claims |= {"jti": os.urandom(8).hex(), "exp": int(time.time() + seconds), "iat": time.time() - 7200}
        return jwt.encode(claims, key, algorithm="HS256")

    def revoke(self, token: str) -> None:
        """From now on the server answers 401 to this token: its owner has logged out somewhere else."""
        answer = self.http.post("/api/v2/auth/logout", headers={"Authorization": f"Bearer {token}"})
        answer.raise_for_status()

    def add_user(self, email: str) -> None:
        """Another verified user, with the same password."""
        with self.shim.lock:
            users = self._database["regstack_users"]
            first = users.find_one({"email": EMAIL})
            users.insert_one({key: value for key, value in first.items() if key != "_id"} | {"email": email})

    # --- What it holds ---------------------------------------------------------------------------------------------

    @property
    def _database(self) -> Any:
        return self.shim.client[DATABASE]

    def sessions(self, **wanted: Any) -> list[dict[str, Any]]:
        """The upload sessions, oldest first."""
        with self.shim.lock:
            return list(self._database["upload_sessions"].find(wanted).sort("created_at", 1))

    def entries(self, **wanted: Any) -> list[dict[str, Any]]:
        """What it says it stores, one entry per complete."""
        with self.shim.lock:
            return list(self._database["file_metadata"].find(wanted))

    def content(self, sha256: str) -> bytes:
        """The bytes on the server's disk; an entry that only refers to them (POST /put_file) has no path."""
        (path,) = {Path(entry["storage_path"]) for entry in self.entries(sha256=sha256, has_file_content=True)}
        return path.read_bytes()

    def expire(self, upload_id: str | None = None) -> None:
        """The hour of a session is over (of all that are open, when none is named)."""
        wanted = {"upload_id": upload_id} if upload_id else {"status": {"$in": ["initiated", "uploading"]}}
        past = datetime.now().replace(microsecond=0) - timedelta(days=2)
        with self.shim.lock:
            self._database["upload_sessions"].update_many(wanted, {"$set": {"expires_at": past}})

    def double(self, upload_id: str) -> None:
        """Enter a chunk of a session a second time, which is what two equal PUTs at once leave behind."""
        with self.shim.lock:
            sessions = self._database["upload_sessions"]
            first = sessions.find_one({"upload_id": upload_id})["uploaded_chunks"][0]
            sessions.update_one({"upload_id": upload_id}, {"$push": {"uploaded_chunks": first}})

    def forget_files(self) -> None:
        """Nothing is stored any more, as far as its database goes."""
        with self.shim.lock:
            self._database["file_metadata"].delete_many({})

    def drop_chunk(self, upload_id: str) -> None:
        """Forget that a chunk of a session has come."""
        with self.shim.lock:
            self._database["upload_sessions"].update_one({"upload_id": upload_id}, {"$pop": {"uploaded_chunks": 1}})

    @contextlib.contextmanager
    def commands(self, before: Callable[[dict[str, Any]], object]) -> Iterator[None]:
        """`before` sees every command that goes to the database."""
        self.shim.before = before
        try:
            yield
        finally:
            self.shim.before = lambda command: None

    # --- Raw calls -------------------------------------------------------------------------------------------------

    def call(self, method: str, path: str, *, token: str | None = None, **more: Any) -> httpx.Response:
        return self.http.request(method, path, headers={"Authorization": f"Bearer {token or self.token}"}, **more)

    def initiate(self, data: bytes, size: int, /, name: str = "raw.bin", **more: Any) -> httpx.Response:
        wanted = {
            "filepath": name,
            "hostname": HOST,
            "sha256": hashlib.sha256(data).hexdigest(),
            "file_size": len(data),
            "chunk_size": size,
            "total_chunks": max(1, -(-len(data) // size)),
        }
        return self.call("POST", "/api/uploads/initiate", json=wanted | more)

    def put(self, upload_id: str, chunk: int, data: bytes, **more: Any) -> httpx.Response:
        return self.call("PUT", f"/api/uploads/{upload_id}/chunk/{chunk}", content=data, **more)

    def complete(self, upload_id: str, parts: list[dict[str, Any]] | None = None) -> httpx.Response:
        return self.call("POST", f"/api/uploads/{upload_id}/complete", json={"parts": parts or []})


@contextlib.contextmanager
def running_putplace(root: Path) -> Iterator[PutPlace]:
    server = PutPlace(root)
    try:
        yield server
    finally:
        server.close()
