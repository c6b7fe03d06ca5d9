"""Every limit of the table [server]: what is above it is refused with its own status, and nothing is harmed."""

from __future__ import annotations

import contextlib
import json
import random
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cli_kit import fast_directory, until
from server_kit import ServerProcess, cut, running_server, sha256

from ppcli.errors import Usage
from ppcli.server.limits import ServerLimits, load_limits, parse_limits
from ppcli.server.plan import Wanted, check_plan
from ppcli.server.refusal import Refused

DATA = random.Random(0).randbytes(3000)
MIB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    limits = {
        "max_body": "4KiB",
        "max_file_size": "8MiB",
        "chunk_max": "4MiB",
        "sessions_per_user": 3,
        "body_timeout": 0.5,
        "quota": "16MiB",
    }
    with fast_directory() as root, running_server(root, limits) as running:
        yield running


@pytest.fixture
def token(server: ServerProcess, request: pytest.FixtureRequest) -> str:
    """A user of their own, with nothing stored."""
    return server.add_user(f"{abs(hash(request.node.name))}@example.org")


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"chunk_size": 1023, "total_chunks": 3}, 422),
        ({"chunk_size": 4 * MIB + 1, "total_chunks": 1}, 422),
        ({"total_chunks": 4}, 422),
        ({"total_chunks": 2}, 422),
        ({"total_chunks": 0}, 422),
        ({"chunk_size": None, "total_chunks": 4}, 422),
        ({"file_size": -1}, 422),
        ({"file_size": 8 * MIB + 1, "total_chunks": 8193}, 413),
        ({"file_size": 2**70}, 422),
        ({"file_size": "many"}, 422),
        ({"sha256": sha256(DATA).upper()}, 422),
        ({"sha256": "0" * 63}, 422),
        ({"sha256": "0" * 65}, 422),
        ({"sha256": "g" * 64}, 422),
        ({"sha256": "0" * 64 + "\n"}, 422),
        ({"filepath": "x" * 4097}, 413),
        ({"hostname": "x" * 256}, 422),
        ({"filepath": None}, 422),
    ],
)
def test_what_initiate_refuses(server: ServerProcess, more: dict[str, object], status: int) -> None:
    reply = server.initiate(DATA, 1024, **more)
    assert reply.status == status, reply.body
    assert reply.json["detail"]


def test_a_json_body_above_the_limit(server: ServerProcess) -> None:
    for body in (b" " * 5000, iter([b" " * 3000, b" " * 3000])):
        reply = server.call("POST", "/api/uploads/initiate", body, headers={"Content-Type": "application/json"})
        assert (reply.status, reply.json["detail"]) == (413, "The body must not be above 4096 bytes")


def test_a_chunk_above_the_limit(server: ServerProcess, token: str) -> None:
    upload_id = server.initiate(bytes(4 * MIB), 4 * MIB, token=token).json["upload_id"]
    for body in (bytes(4 * MIB + 1), iter([bytes(4 * MIB), b"x"])):
        reply = server.call("PUT", f"/api/uploads/{upload_id}/chunk/0", body, token=token)
        assert reply.status in (400, 413)
    assert server.call("GET", f"/api/uploads/{upload_id}", token=token).json["received"] == []
    assert server.put(upload_id, 0, bytes(4 * MIB), token=token).status == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"filepath": NaN}', b"\xff", b'{"filepath":"\\ud800"}'])
def test_a_body_that_is_not_what_is_wanted(server: ServerProcess, body: bytes) -> None:
    for path in ("/api/uploads/initiate", "/api/uploads/x/complete", "/put_file", "/api/files/deletions", "/api/login"):
        reply = server.call("POST", path, body, headers={"Content-Type": "application/json"})
        assert reply.status == (400 if body == b"\xff" else 422), (path, reply.body)
        assert reply.json["detail"]


def test_too_many_unfinished_uploads(server: ServerProcess, token: str) -> None:
    begun = [server.initiate(DATA, 1024, f"n{n}", token=token).json["upload_id"] for n in range(3)]
    refused = server.initiate(DATA, 1024, token=token)
    assert refused.status == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    server.call("DELETE", f"/api/uploads/{begun[0]}", token=token)
    assert server.initiate(DATA, 1024, token=token).status == 201, "one that is aborted does not count"


def test_the_quota_counts_what_is_stored_and_what_is_begun(server: ServerProcess, token: str) -> None:
    first, second = bytes(7 * MIB), bytes(7 * MIB + 1)
    assert server.upload(first, 4 * MIB, token=token).status == 200
    assert server.upload(first, 4 * MIB, "again", token=token).status == 200, "the same content counts once"
    begun = server.initiate(second, 4 * MIB, token=token)
    assert begun.status == 201
    refused = server.initiate(bytes(3 * MIB), 4 * MIB, token=token)
    assert (refused.status, refused.json["detail"]) == (507, "This does not fit into your quota")
    server.call("DELETE", f"/api/uploads/{begun.json['upload_id']}", token=token)
    assert server.initiate(bytes(3 * MIB), 4 * MIB, token=token).status == 201


def trickle(server: ServerProcess, head: str, pause: float = 0.1) -> bytes:
    """Send a body byte by byte until there is a reply."""
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=20)) as connection:
        connection.sendall(head.encode())
        connection.settimeout(pause)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                return connection.recv(4096)
            except TimeoutError:
                connection.sendall(b" ")
    raise AssertionError("it waits for ever")


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_body_that_trickles_is_cut_off(server: ServerProcess, token: str, method: str) -> None:
    path = "/api/uploads/initiate"
    if method == "PUT":
        path = f"/api/uploads/{server.initiate(DATA, 1024, token=token).json['upload_id']}/chunk/0"
    reply = trickle(
        server,
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1024\r\n\r\n",
    )
    assert reply.startswith(b"HTTP/1.1 408 ")


def _until_closed(connection: socket.socket) -> bytes:
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(4096):
            got += piece
    return got


@pytest.mark.parametrize(
    ("head", "reply"),
    [
        (b"", b""),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nX-Never-Ends: ", b"HTTP/1.1 408 "),
        (b"GET /health HTTP/1.1\r\n" + b"X-More: x\r\n" * 30_000, b"HTTP/1.1 431 "),
        (b"no request at all\r\n\r\n", b"HTTP/1.1 400 "),
    ],
)
@pytest.mark.parametrize("used", [False, True])
def test_a_head_that_never_ends_is_cut_off(server: ServerProcess, head: bytes, reply: bytes, used: bool) -> None:
    """Also on a connection that has served a request; one that is idle after that is kept, though."""
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=20)) as connection:
        if used:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            got = b""
            while not got.endswith(b"}"):
                got += connection.recv(4096)
            if not head:
                time.sleep(1)  # longer than body_timeout
                head, reply = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"HTTP/1.1 200 "
        with contextlib.suppress(OSError):
            connection.sendall(head)
        got = _until_closed(connection)
        assert got.startswith(reply) and bool(got) == bool(reply)
        assert not got or json.loads(got.partition(b"\r\n\r\n")[2])


def test_a_full_disk_is_507_and_the_session_goes_on_after_it(server: ServerProcess, token: str) -> None:
    """The system refuses the server to write beyond 1 MiB into a file, as a full disk does."""
    data = random.Random(1).randbytes(3 * MIB)
    upload_id = server.initiate(data, MIB, token=token).json["upload_id"]
    pieces = cut(data, MIB)
    assert server.put(upload_id, 0, pieces[0], token=token).status == 200
    before = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (MIB, before[1]))
    try:
        for number in (1, 2, 1):
            refused = server.put(upload_id, number, pieces[number], token=token)
            assert (refused.status, refused.json["detail"]) == (507, "There is no space left on the server")
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, before)
    told = server.call("GET", f"/api/uploads/{upload_id}", token=token).json
    assert [chunk["chunk_num"] for chunk in told["received"]] == [0]
    for number in (1, 2):
        assert server.put(upload_id, number, pieces[number], token=token).status == 200
    assert server.complete(upload_id, token=token).status == 200
    assert server.call("GET", f"/api/files/{sha256(data)}/content", token=token).body == data


def test_a_file_larger_than_the_disk_is_507(root: Path) -> None:
    with running_server(root, {"max_file_size": 2**60}) as server:
        size = 2**52
        reply = server.initiate(b"", 10 * MIB, file_size=size, total_chunks=-(-size // (10 * MIB)))
        assert (reply.status, list((server.data / "partial").iterdir())) == (507, [])


def test_an_upload_without_progress_ends_and_its_bytes_go(root: Path) -> None:
    with running_server(root, {"session_lifetime": 1.0, "cleanup_interval": 0.1}) as server:
        idle = server.initiate(DATA, 1024, "idle").json["upload_id"]
        busy = server.initiate(DATA, 1024, "busy").json["upload_id"]
        partial = server.data / "partial" / idle
        assert partial.exists()
        pieces = cut(DATA, 1024)
        moves = 0
        while partial.exists() or moves < 4:  # progress, time and again, for longer than one lifetime
            moves += 1
            assert server.put(busy, moves % 2, bytes([moves]) * 1024).status == 200
            time.sleep(0.3)
        assert server.put(idle, 0, pieces[0]).status == 410
        assert server.complete(idle).status == 410
        assert server.call("GET", f"/api/uploads/{idle}").json["state"] == "expired"
        gone = server.call("DELETE", f"/api/uploads/{idle}")
        assert (gone.status, gone.json["status"]) == (200, "expired")
        for number, piece in enumerate(pieces):
            assert server.put(busy, number, piece).status == 200
        assert server.complete(busy).status == 200


def test_an_end_that_passed_while_the_server_was_down_counts(root: Path) -> None:
    with running_server(root, {"session_lifetime": 0.2, "cleanup_interval": 60}) as server:
        upload_id = server.initiate(DATA, 1024).json["upload_id"]
        server.kill()
        time.sleep(0.25)
        server.start()
        assert server.put(upload_id, 0, DATA[:1024]).status == 410
        until(lambda: not list((server.data / "partial").iterdir()))


def test_expiry_before_a_cleanup_is_410_as_well(root: Path) -> None:
    with running_server(root, {"session_lifetime": 0.2, "cleanup_interval": 60}) as server:
        upload_id = server.initiate(DATA, 1024).json["upload_id"]
        time.sleep(0.25)
        assert server.put(upload_id, 0, DATA[:1024]).status == 410
        assert server.complete(upload_id).status == 410
        assert server.call("GET", f"/api/uploads/{upload_id}").json["state"] == "expired"


# the table itself


def test_sizes_may_be_numbers_or_text() -> None:
    limits = parse_limits({"chunk_max": "1MiB", "quota": 5, "content_grace": 0, "session_lifetime": 1.5})
    assert (limits.chunk_max, limits.quota, limits.content_grace, limits.session_lifetime) == (MIB, 5, 0.0, 1.5)
    assert parse_limits({}) == ServerLimits()


@pytest.mark.parametrize(
    "table",
    [
        {"chunk_maximum": 5},
        {"chunk_max": 0},
        {"chunk_max": -1},
        {"chunk_max": True},
        {"chunk_max": "much"},
        {"chunk_max": [1]},
        {"chunk_max": 2**70},
        {"chunk_min": 11 << 20},
        {"session_lifetime": 0},
        {"session_lifetime": float("nan")},
        {"content_grace": -1},
        {"sessions_per_user": 1.5},
        [],
    ],
)
def test_a_table_that_makes_no_sense_is_a_usage_error(table: object) -> None:
    with pytest.raises(Usage) as raised:
        parse_limits(table)
    assert raised.value.reason == "config"


def test_a_damaged_config_is_a_usage_error(root: Path) -> None:
    assert load_limits(root) == ServerLimits()
    (root / "config.toml").write_text("[server\n")
    with pytest.raises(Usage):
        load_limits(root)


@pytest.mark.parametrize(("size", "chunk", "total"), [(0, 1024, 1), (1, 1024, 1), (1024, 1024, 1), (1025, 1024, 2)])
def test_the_number_of_chunks_must_fit(size: int, chunk: int, total: int) -> None:
    check_plan(Wanted("a", "h", "0" * 64, size, chunk, total), ServerLimits())
    with pytest.raises(Refused):
        check_plan(Wanted("a", "h", "0" * 64, size, chunk, total + 1), ServerLimits())
