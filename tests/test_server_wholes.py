"""Small files in one request, many digests in one question, and what the server says of itself."""

from __future__ import annotations

import http.client
import random
import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from server_kit import Reply, ServerProcess, running_server, sha256

from ppcli.server.placing import Placing

MIB = 1 << 20
DATA = random.Random(1).randbytes(5000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    limits = {"chunk_max": "4MiB", "quota": "3MiB", "sessions_per_user": 7}
    with running_server(tmp_path_factory.mktemp("server"), limits) as running:
        yield running


@pytest.fixture
def token(server: ServerProcess, request: pytest.FixtureRequest) -> str:
    return server.add_user(f"{abs(hash(request.node.name))}@example.org")


def send(server: ServerProcess, data: Any, token: str = "", *, digest: str | None = None, **query: Any) -> Reply:
    named = urlencode({"filepath": "d/a.bin", "hostname": "here", **query})
    path = f"/api/files/{digest or sha256(data)}/content?{named}"
    return server.call("PUT", path, data, token=token)


def files(server: ServerProcess) -> set[str]:
    return {path.name for folder in ("content", "partial") for path in (server.data / folder).rglob("*.*")} | {
        path.name for path in (server.data / "content").rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("size", [0, 1, 5000, MIB])
def test_a_small_file_in_one_request(server: ServerProcess, token: str, size: int) -> None:
    data = random.Random(size).randbytes(size)
    for _ in range(2):  # once more is fine
        reply = send(server, data, token, file_mtime=1700000000.5)
        assert (reply.status, reply.json["sha256"], reply.json["file_size"]) == (200, sha256(data), size)
    (entry,) = server.call("GET", "/api/my_files", token=token).json
    assert (entry["filepath"], entry["hostname"], entry["file_mtime"]) == ("d/a.bin", "here", 1700000000.5)
    assert entry["has_file_content"] and entry["_id"] == reply.json["file_id"]
    assert server.call("GET", f"/api/files/{sha256(data)}/content", token=token).body == data


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"digest": "0" * 64}, 400),
        ({"digest": sha256(DATA).upper()}, 422),
        ({"filepath": "../up"}, 422),
        ({"filepath": ""}, 422),
        ({"hostname": "a\x01b"}, 422),
        ({"file_mtime": "nan"}, 422),
        ({"token": "not-a-token"}, 401),
    ],
)
def test_what_is_refused(server: ServerProcess, token: str, query: dict[str, str], status: int) -> None:
    before = files(server)
    reply = send(server, DATA + b"x", query.pop("token", token), **query)
    assert reply.status == status and reply.json["detail"]
    assert files(server) == before
    assert server.call("GET", "/api/my_files", token=token).json == []


def test_bodies_that_are_too_long_or_of_unknown_length(server: ServerProcess, token: str) -> None:
    long = bytes(MIB + 1)
    assert send(server, long, token).status == 413
    assert send(server, iter([DATA]), token, digest=sha256(DATA)).status == 411
    assert server.call("GET", "/api/my_files", token=token).json == []


def test_the_quota_holds_and_content_that_is_there_counts_once(server: ServerProcess, token: str) -> None:
    kept = [random.Random(n).randbytes(MIB) for n in range(3)]
    assert [send(server, data, token).status for data in kept] == [200] * 3
    assert send(server, DATA, token).status == 507
    assert send(server, kept[0], token, filepath="again").status == 200, "it is there already"


def test_a_full_disk_is_507_and_leaves_nothing(server: ServerProcess, token: str) -> None:
    before, data = files(server), random.Random(9).randbytes(MIB // 2)
    limit = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (MIB // 4, limit[1]))
    try:
        assert send(server, data, token).status == 507
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, limit)
    assert files(server) == before
    assert send(server, data, token).status == 200


def test_what_was_acknowledged_survives_a_kill_and_what_no_entry_names_does_not(root: Path) -> None:
    with running_server(root) as server:
        datas = [random.Random(n).randbytes(2000) for n in range(60)]
        acknowledged: list[bytes] = []
        started = threading.Event()

        def one(data: bytes) -> None:
            try:
                if send(server, data, filepath=sha256(data)).status == 200:
                    acknowledged.append(data)
            except (OSError, http.client.HTTPException):  # the second: cut off in the middle of a reply
                pass
            if len(acknowledged) > 15:
                started.set()

        with ThreadPoolExecutor(8) as pool:
            sent = [pool.submit(one, data) for data in datas]
            assert started.wait(20)
            server.kill()
            for each in sent:
                each.result()
        assert len(acknowledged) < len(datas)
        stray = server.data / "content" / "00" / ("00" * 32)
        stray.parent.mkdir(exist_ok=True)
        stray.write_bytes(b"cut off between the file and its entry")
        (server.data / "partial" / "whole.1.spool").write_bytes(b"cut off")
        server.start()
        for data in acknowledged:
            assert server.call("GET", f"/api/files/{sha256(data)}/content").body == data
        named = {entry["sha256"] for entry in server.call("GET", "/api/my_files?limit=1000").json}
        assert {path.name for path in (server.data / "content").rglob("*") if path.is_file()} == named
        assert not any((server.data / "partial").iterdir())


def test_content_is_never_removed_while_it_is_placed() -> None:
    placing, seen = Placing(), []
    with placing.adding("a"), placing.adding("a"):
        with placing.removing("a") as free:
            seen.append(free)
        with placing.removing("b") as free:
            seen.append(free)
    entered = threading.Event()

    def place() -> None:
        with placing.adding("a"):
            entered.set()

    with placing.removing("a") as free:
        thread = threading.Thread(target=place)
        thread.start()
        assert free and not entered.wait(0.05), "it has to wait until the old one is gone"
    thread.join(20)
    assert entered.is_set() and seen == [False, True]


def test_many_digests_in_one_question(server: ServerProcess, token: str) -> None:
    other = server.add_user("other@example.org")
    for name, data, whose in (("a", b"one", token), ("b", b"one", token), ("c", b"two", token), ("d", b"three", other)):
        assert send(server, data, whose, filepath=name).status == 200
    asked = {"sha256": [sha256(data) for data in (b"one", b"two", b"three", b"four")]}
    found = server.call("POST", "/api/files/known", asked, token=token).json["files"]
    assert [(entry["filepath"], entry["has_file_content"]) for entry in found] == [
        ("a", True), ("b", True), ("c", True),
    ]  # fmt: skip
    assert server.call("POST", "/api/files/known", {"sha256": ["0" * 64] * 1001}, token=token).status == 422
    assert server.call("POST", "/api/files/known", {"sha256": ["x"]}, token=token).status == 422


def test_the_server_says_what_it_takes(server: ServerProcess) -> None:
    limits = server.call("GET", "/api/limits").json
    assert (limits["chunk_min"], limits["chunk_max"], limits["whole_max"]) == (1024, 4 * MIB, MIB)
    assert limits["sessions_per_user"] == 7
    assert server.call("GET", "/api/limits", token=None).status == 401


def test_unfinished_uploads_are_listed_in_pages_to_their_owner(server: ServerProcess, token: str) -> None:
    ids = {server.initiate(DATA, 1024, f"n{n}", token=token).json["upload_id"] for n in range(5)}
    gone, done = sorted(ids)[:2]
    server.call("DELETE", f"/api/uploads/{gone}", token=token)
    for number in range(5):
        server.put(done, number, DATA[1024 * number : 1024 * (number + 1)], token=token)
    assert server.complete(done, token=token).status == 200
    seen, after = [], ""
    while after is not None:
        page = server.call("GET", f"/api/uploads?limit=2&after={after}", token=token).json
        seen += [upload["upload_id"] for upload in page["uploads"]]
        after = page["next"]
    assert seen == sorted(ids - {gone, done})
    assert server.call("GET", "/api/uploads").json == {"uploads": [], "next": None}, "those of another user"
