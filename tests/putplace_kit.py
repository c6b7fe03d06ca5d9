"""The real PutPlace server for tests: the published package, unpatched, in front of our MongoDB shim.

It is started as its own command starts it, configured by the environment alone, with a home and a storage directory of
its own. Sessions and tokens are aged in the database and with the server's own signing key, never in its code.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
from guarded import GuardedServer
from mongo_shim import Shim
from recording_proxy import Proxy

EMAIL, PASSWORD = "tests@example.com", "correct horse battery"
SIGNING_KEY = "a signing key for tests, long enough for HS256 by any measure"
DATABASE = "putplace_tests"
HOST = "testhost"


class PutPlace(GuardedServer):
    """The server, its database, and a proxy before it that keeps what passed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, "putplace_server.main:app")
        self.shim = Shim()
        self.start()
        self.proxy = Proxy(self.port)
        self.http = httpx.Client(base_url=self.base, timeout=30, trust_env=False)
        self.token = self.login()

    # --- The process -----------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        home = self.root / "home"
        home.mkdir(exist_ok=True)
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

    def answers(self) -> bool:
        answer = httpx.get(f"{self.base}/health", trust_env=False, timeout=5)
        return bool(answer.json()["status"] == "healthy")

    def close(self) -> None:
        """End it, when it has cleared away the chunks of what nobody finished: they are outside of its storage."""
        try:
            if self.running:
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
