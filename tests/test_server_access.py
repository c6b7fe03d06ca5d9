"""Who may do what: tokens, users, logins; and nothing that leaks from one user to another or onto the disk."""

from __future__ import annotations

import hashlib
import random
import stat
import time
from collections.abc import Iterator

import pytest
from cli_kit import fast_directory
from server_kit import ServerProcess, running_server, sha256

from ppcli.logins import Logins
from ppcli.origin import Origin

UNKNOWN = "0" * 64
PATHS = [
    ("POST", "/api/uploads/initiate"),
    ("PUT", "/api/uploads/x/chunk/0"),
    ("POST", "/api/uploads/x/complete"),
    ("DELETE", "/api/uploads/x"),
    ("GET", "/api/uploads/x"),
    ("DELETE", f"/api/files/{UNKNOWN}"),
    ("POST", "/api/files/deletions"),
    ("GET", f"/get_file/{UNKNOWN}"),
    ("GET", f"/api/clones/{UNKNOWN}"),
    ("GET", "/api/my_files"),
    ("POST", "/put_file"),
    ("GET", f"/api/files/{UNKNOWN}/content"),
    ("HEAD", f"/api/files/{UNKNOWN}/content"),
    ("GET", "/no/such/path"),
    ("POST", "//health"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with fast_directory() as root, running_server(root, umask=0) as running:
        yield running


@pytest.fixture(scope="module")
def other(server: ServerProcess) -> str:
    """The token of another user."""
    return server.add_user("other@example.org", "other's password")


@pytest.fixture
def data(request: pytest.FixtureRequest) -> bytes:
    return random.Random(request.node.name).randbytes(2000)


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic {}", "{}"])
def test_nothing_works_without_a_valid_token(
    server: ServerProcess, method: str, path: str, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.format(server.token)}
    reply = server.call(method, path, b"{}" if method != "GET" else None, token=None, headers=headers)
    assert reply.status == 401
    assert reply.headers["www-authenticate"] == "Bearer"


def test_a_login_and_the_documents_need_no_token(server: ServerProcess) -> None:
    for path in ("/health", "/openapi.json", "/docs"):
        assert server.call("GET", path, token=None).status == 200
    assert server.call("GET", "/health", token=None).json["status"] == "ok"


def test_a_session_belongs_to_its_user(server: ServerProcess, other: str, data: bytes) -> None:
    upload_id = server.initiate(data, 1024).json["upload_id"]
    server.put(upload_id, 0, data[:1024])
    assert server.put(upload_id, 1, data[1024:], token=other).status == 403
    assert server.complete(upload_id, token=other).status == 403
    for method in ("GET", "DELETE"):
        assert server.call(method, f"/api/uploads/{upload_id}", token=other).status == 403
    assert server.put(upload_id, 1, data[1024:]).status == 200
    assert server.complete(upload_id).status == 200
    assert server.complete(upload_id, token=other).status == 403


def test_an_unknown_session_is_404(server: ServerProcess, data: bytes) -> None:
    assert server.put("nothing", 0, data).status == 404
    assert server.complete("nothing").status == 404
    for method in ("GET", "DELETE"):
        assert server.call(method, "/api/uploads/nothing").status == 404


def test_content_of_others_is_neither_readable_nor_noticeable(server: ServerProcess, other: str, data: bytes) -> None:
    """Knowing a digest must not be enough: only who has sent the bytes has them."""
    assert server.upload(data).status == 200
    digest = sha256(data)
    for path in (f"/get_file/{digest}", f"/api/files/{digest}/content"):
        assert server.call("GET", path, token=other).status == 404
    assert server.call("GET", f"/api/clones/{digest}", token=other).json == []
    entry = {"filepath": "theirs", "hostname": "there", "sha256": digest, "file_size": len(data)}
    claimed = server.call("POST", "/put_file", entry, token=other)
    assert (claimed.status, claimed.json["upload_required"], claimed.json["has_file_content"]) == (201, True, False)
    assert server.call("GET", f"/api/files/{digest}/content", token=other).status == 404
    assert server.call("GET", f"/get_file/{digest}", token=other).json["has_file_content"] is False
    notice = {"filepath": "a.bin", "hostname": "here", "deleted_at": "2026-01-05T12:00:00Z"}
    assert server.call("DELETE", f"/api/files/{digest}", notice, token=other).status == 404
    assert server.upload(data, token=other).status == 200
    assert server.call("GET", f"/api/files/{digest}/content", token=other).body == data
    assert len(list((server.data / "content").rglob(digest))) == 1, "stored once"


def test_lists_show_only_what_is_ones_own(server: ServerProcess, other: str, data: bytes) -> None:
    server.upload(data, name="mine-alone")
    names = {entry["filepath"] for entry in server.call("GET", "/api/my_files?limit=1000", token=other).json}
    assert "mine-alone" not in names


@pytest.mark.parametrize("path", ["/api/login", "/api/v2/auth/login"])
def test_a_login_gives_a_token(server: ServerProcess, other: str, path: str) -> None:
    reply = server.call("POST", path, {"email": "Other@Example.org", "password": "other's password"}, token=None)
    assert (reply.status, reply.json["token_type"]) == (200, "bearer")
    assert server.call("GET", "/api/my_files", token=reply.json["access_token"]).status == 200


def test_five_wrong_passwords_lock_an_email_out(server: ServerProcess) -> None:
    server.add_user("target@example.org", "right password")

    def login(email: str, password: str) -> int:
        return server.call("POST", "/api/login", {"email": email, "password": password}, token=None).status

    for email in ("target@example.org", "nobody@example.org"):
        assert [login(email, "wrong") for _ in range(5)] == [401] * 5
        assert login(email, "wrong") == 429
    locked = server.call(
        "POST", "/api/login", {"email": "target@example.org", "password": "right password"}, token=None
    )
    assert locked.status == 429
    assert 800 < int(locked.headers["retry-after"]) <= 900
    assert login("other2@example.org", "wrong") == 401, "others are not locked out"
    server.restart()
    assert login("TARGET@example.org", "right password") == 429, "a restart does not forget"


def test_a_right_password_starts_the_count_again(server: ServerProcess) -> None:
    server.add_user("forgetful@example.org", "right password")
    for password in ["wrong"] * 4 + ["right password"] + ["wrong"] * 4 + ["right password"]:
        reply = server.call("POST", "/api/login", {"email": "forgetful@example.org", "password": password}, token=None)
        assert reply.status == (401 if password == "wrong" else 200)


def test_a_token_that_ended_is_refused(server: ServerProcess) -> None:
    from ppcli.server.accounts import DATABASE
    from ppcli.server.database import Database
    from ppcli.server.users import Users

    database = Database(server.data / DATABASE)
    users = Users(database)
    user = users.find("owner@localhost")
    assert user is not None
    token = users.new_token(user, lifetime=0.0)
    database.close()
    assert server.call("GET", "/api/my_files", token=token).status == 401


def test_the_first_start_makes_one_token_that_a_client_here_can_use(server: ServerProcess) -> None:
    told = [event for event in server.events if event["event"] == "token"]
    assert [(event["user"], event["saved"]) for event in told] == [
        ("owner@localhost", str(server.config / "logins.json"))
    ], "once, also after restarts"
    assert Logins(server.config).find(Origin.parse(server.url)) == server.token


def test_no_token_and_no_password_is_kept_in_the_data_dir(server: ServerProcess, other: str) -> None:
    login = server.call(
        "POST", "/api/login", {"email": "other@example.org", "password": "other's password"}, token=None
    )
    secrets = [server.token, other, login.json["access_token"], "other's password"]
    for path in server.data.rglob("*"):
        if path.is_file():
            held = path.read_bytes()
            for secret in secrets:
                assert secret.encode() not in held, path
    digest = hashlib.sha256(server.token.encode()).digest()
    database = b"".join(path.read_bytes() for path in server.data.glob("server.sqlite3*"))
    assert digest in database, "the hash is what is kept"


def test_everything_is_private_whatever_the_umask(server: ServerProcess, data: bytes) -> None:
    server.upload(data)
    server.initiate(data + b"x", 1024)
    seen = [server.data, server.config / "logins.json", *server.data.rglob("*")]
    assert len(seen) > 8
    for path in seen:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), (path, oct(mode))


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "..", "a/..", "..\\x", "C:\\..\\x", "a\0b", "a\nb", "\x1b[0m", "\x7f", "\x85", ""]
)
@pytest.mark.parametrize("field", ["filepath", "hostname"])
def test_dangerous_names_are_refused(server: ServerProcess, data: bytes, name: str, field: str) -> None:
    reply = server.initiate(data, 1024, **{field: name})  # type: ignore[arg-type]
    assert (reply.status, reply.json["detail"][0]["loc"]) == (422, ["body", field])
    entry = {"filepath": "a", "hostname": "h", "sha256": sha256(data), "file_size": 1, field: name}
    assert server.call("POST", "/put_file", entry).status == 422


@pytest.mark.parametrize("name", ["/etc/passwd", "C:\\Users\\x", "a..b", "...", "~/x", "%2e%2e/x", "ü/日本", "a b;'\""])
def test_other_names_are_data_and_touch_no_path(server: ServerProcess, data: bytes, name: str) -> None:
    before = {path for path in server.root.rglob("*") if server.data not in path.parents}
    assert server.upload(data, name=name).status == 200
    assert server.call("GET", f"/get_file/{sha256(data)}").json["filepath"] == name
    after = {path for path in server.root.rglob("*") if server.data not in path.parents}
    assert before == after, "nothing outside the data dir"
    known = ("content", "pads", "partial", "lock", "server.sqlite3", "server.log")
    assert all(path.name.startswith(known) for path in server.data.iterdir())


def test_a_login_takes_as_long_for_nobody(server: ServerProcess, other: str) -> None:
    """Or it would tell who has an account. Wide bounds: it is about scrypt being run or not."""
    took = {}
    for email in ("other@example.org", "nobody2@example.org"):
        started = time.perf_counter()
        server.call("POST", "/api/login", {"email": email, "password": "wrong"}, token=None)
        took[email] = time.perf_counter() - started
    assert took["nobody2@example.org"] > took["other@example.org"] / 4
