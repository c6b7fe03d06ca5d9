"""The GraphWiz storage API of `ppcli serve`: the table of states, edge by edge, and what it refuses."""

from __future__ import annotations

import contextlib
import http.client
import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_kit import fast_directory, until
from server_kit import ServerProcess, cut, form, running_server, sha256

SIZE = 1024
LIMITS = {"asset_chunk_min": "1KiB", "uploads_per_hour": 100_000, "sessions_per_user": 10_000, "max_texture": 5000}
DATA = random.Random(5).randbytes(3 * SIZE + 7)
CHUNKS = cut(DATA, SIZE)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with fast_directory() as root, running_server(root, LIMITS) as running:
        yield running


def begun(server: ServerProcess, **more: str) -> str:
    reply = server.begin(len(DATA), SIZE, **more)
    assert reply.status == 201, reply.body
    assert (reply.json["chunk_size"], reply.json["total_chunks"]) == (SIZE, len(CHUNKS))
    return str(reply.json["session_id"])


def in_state(server: ServerProcess, state: str) -> str:
    """A session that has come to a state as clients bring it there; but for `failed`, which only the server can."""
    session = begun(server)
    if state != "initiated":
        assert server.send(session, 1, CHUNKS[0]).status == 200
    if state == "completed":
        assert [server.send(session, n + 1, chunk).status for n, chunk in enumerate(CHUNKS)][1:] == [200] * 3
    if state in ("paused", "cancelled"):
        assert server.session(session, {"paused": "pause", "cancelled": "cancel"}[state]).status == 200
    if state == "failed":
        with contextlib.closing(sqlite3.connect(server.data / "server.sqlite3", timeout=30)) as database, database:
            database.execute("UPDATE sessions SET state = 'failed' WHERE id = ?", (session,))
    assert status(server, session) == state
    return session


def status(server: ServerProcess, session: str) -> str:
    return str(server.session(session).json["status"])


TABLE = {
    "initiated": {"chunk": "uploading", "cancel": "cancelled"},
    "uploading": {"chunk": "uploading", "last": "completed", "pause": "paused", "cancel": "cancelled"},
    "paused": {"chunk": "uploading", "cancel": "cancelled"},
    "completed": {"complete": "completed"},
    "failed": {"cancel": "cancelled"},
    "cancelled": {"cancel": "cancelled"},  # once more is fine
}
STEPS = ["chunk", "last", "pause", "complete", "cancel"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("state", TABLE)
def test_every_edge_of_the_table_of_states(server: ServerProcess, state: str, step: str) -> None:
    session = in_state(server, state)
    if step == "last" and state == "uploading":
        for number in (2, 3):
            assert server.send(session, number, CHUNKS[number - 1]).status == 200
    match step:
        case "chunk":
            reply = server.send(session, 2, CHUNKS[1])
        case "last":
            reply = server.send(session, 4, CHUNKS[3])
        case _:
            reply = server.session(session, step)
    if step == "last" and state in ("initiated", "paused"):  # a chunk like any other: not all are there
        assert (reply.status, status(server, session)) == (200, "uploading")
    elif step in TABLE[state]:
        assert (reply.status, status(server, session)) == (200, TABLE[state][step])
    else:
        assert (reply.status, reply.json["error"]) == (400, "invalid_state")
        assert status(server, session) == state


def test_an_upload_becomes_an_asset_and_completing_again_says_the_same(server: ServerProcess) -> None:
    session = in_state(server, "completed")
    told = server.session(session).json
    assert told["uploaded_chunks"] == [1, 2, 3, 4] and told["progress"] == 100.0
    assert [chunk["sha256"] for chunk in told["chunks"]] == [sha256(chunk) for chunk in CHUNKS]
    first, again = server.session(session, "complete"), server.session(session, "complete")
    assert first.status == 200 and first.json == again.json
    assert (first.json["file_size"], first.json["sha256"]) == (len(DATA), sha256(DATA))
    assert server.session(session).json["asset_id"] == first.json["asset_id"]
    reply = server.call("GET", first.json["download_url"])
    assert (reply.body, reply.headers["content-type"]) == (DATA, "model/gltf-binary")
    part = server.call("GET", first.json["download_url"], headers={"Range": "bytes=1000-"})
    assert (part.status, part.body) == (206, DATA[1000:])
    assert server.session(session, "cancel").status == 400 == server.send(session, 1, CHUNKS[0]).status
    assert not (server.data / "partial" / session).exists()


def test_chunks_side_by_side_lose_no_update(server: ServerProcess) -> None:
    """Twenty uploads at once, each with its chunks at once."""
    sessions = [begun(server, name=f"m{n}.glb") for n in range(20)]
    work = [(session, number) for session in sessions for number in range(len(CHUNKS))]
    random.Random(1).shuffle(work)
    statuses: list[int] = []

    def send() -> None:
        while work:
            with contextlib.suppress(IndexError):
                session, number = work.pop()
                statuses.append(server.send(session, number + 1, CHUNKS[number]).status)

    threads = [threading.Thread(target=send) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 80
    for session in sessions:
        assert server.session(session).json["uploaded_chunks"] == [1, 2, 3, 4]
        assert server.session(session, "complete").json["sha256"] == sha256(DATA)


def test_other_bytes_replace_a_chunk_until_the_last_has_come(server: ServerProcess) -> None:
    session = begun(server)
    assert server.send(session, 1, CHUNKS[1]).json["sha256"] == sha256(CHUNKS[1])
    again = server.send(session, 1, CHUNKS[0]).json
    assert (again["sha256"], again["uploaded_chunks"], again["status"]) == (sha256(CHUNKS[0]), [1], "uploading")


def test_a_chunk_with_another_digest_than_told_does_not_count(server: ServerProcess) -> None:
    session = begun(server)
    reply = server.send(session, 1, CHUNKS[0], sha256=sha256(CHUNKS[1]))
    assert (reply.status, reply.json["error"]) == (400, "checksum_mismatch")
    assert server.session(session).json["uploaded_chunks"] == []
    assert server.send(session, 1, CHUNKS[0], sha256=sha256(CHUNKS[0])).status == 200


def test_strangers_and_others(server: ServerProcess) -> None:
    session, other = begun(server), server.add_user("other@example.org")
    assert server.send(session, 1, CHUNKS[0], token=None).json["error"] == "unauthorized"
    for token, code in ((other, 403), ("nonsense", 401)):
        replies = [server.send(session, 1, CHUNKS[0], token=token), server.session(session, token=token)]
        replies += [server.session(session, step, token=token) for step in ("complete", "pause", "cancel")]
        assert [reply.status for reply in replies] == [code] * 5
    mine = server.upload_asset(b"private", "p.glb").json
    for method, path in (("GET", ""), ("GET", "/download"), ("DELETE", "")):
        assert server.call(method, f"/storage/assets/{mine['asset_id']}{path}", token=other).status == 403
    public = server.upload_asset(b"public", "q.glb", is_public="true").json
    assert server.call("GET", public["download_url"], token=other).body == b"public"
    assert server.call("DELETE", f"/storage/assets/{public['asset_id']}", token=other).status == 403
    assert server.call("GET", "/storage/assets", token=other).json["assets"] == []


def test_sessions_of_one_protocol_are_not_there_for_the_other(server: ServerProcess) -> None:
    session = begun(server)
    assert server.call("GET", f"/api/uploads/{session}").status == 404 == server.put(session, 0, CHUNKS[0]).status
    assert server.call("DELETE", f"/api/uploads/{session}").status == 404 == server.complete(session).status
    upload = server.initiate(DATA, SIZE).json["upload_id"]
    assert server.session(upload).status == 404 == server.send(upload, 1, CHUNKS[0]).status


@pytest.mark.parametrize(
    ("fields", "code", "error"),
    [
        ({"asset_type": "hologram"}, 400, "validation_error"),
        ({"mime_type": "nonsense"}, 400, "validation_error"),
        ({"file_name": ""}, 400, "validation_error"),
        ({"file_name": "../../etc/passwd"}, 400, "validation_error"),
        ({"file_size": -1}, 400, "validation_error"),
        ({"file_size": "many"}, 400, "validation_error"),
        ({"file_size": 5001, "asset_type": "texture"}, 413, "file_too_large"),
        ({"file_size": (100 << 20) + 1}, 413, "file_too_large"),
    ],
)
def test_what_cannot_be_begun(server: ServerProcess, fields: dict[str, object], code: int, error: str) -> None:
    more = {"name": fields.pop("file_name", "a.glb")} | fields
    reply = server.begin(len(DATA), SIZE, **more)
    assert (reply.status, reply.json["error"]) == (code, error)
    assert isinstance(reply.json["message"], str)


@pytest.mark.parametrize(("wish", "size"), [(1, SIZE), (30 << 20, 20 << 20), (None, 10 << 20), (4000, 4000)])
def test_the_chunk_size_is_held_within_bounds(server: ServerProcess, wish: int, size: int) -> None:
    assert server.begin(60 << 20, wish).json["chunk_size"] == size


def test_chunks_that_do_not_fit(server: ServerProcess) -> None:
    session = begun(server)
    for number, data, code in ((0, CHUNKS[0], 400), (5, CHUNKS[0], 400), (1, CHUNKS[0][:-1], 400), (4, CHUNKS[0], 400)):
        assert server.send(session, number, data).status == code
    path = f"/storage/chunked-upload/{session}/chunk?chunk_number=1"
    body, headers = form("chunk", CHUNKS[0])
    wrong_name, _ = form("piece", CHUNKS[0])
    for content, kind in (
        (body, "application/json"),
        (body, "multipart/form-data"),
        (body[:-20], headers["Content-Type"]),
        (b"nonsense", headers["Content-Type"]),
        (wrong_name, headers["Content-Type"]),
        (body.removesuffix(b"--a-boundary-for-tests--\r\n") + body, headers["Content-Type"]),
    ):
        assert server.call("POST", path, content, headers={"Content-Type": kind}).status == 400
    large, _ = form("chunk", CHUNKS[0], junk="x" * (65 << 10))
    assert server.call("POST", path, large, headers=headers).status == 413
    assert server.session(session).json["uploaded_chunks"] == []


def test_a_form_of_any_length_is_refused_before_it_is_read(server: ServerProcess) -> None:
    session = begun(server)
    with contextlib.closing(server.connect()) as connection:
        connection.putrequest("POST", f"/storage/chunked-upload/{session}/chunk?chunk_number=1")
        connection.putheader("Authorization", f"Bearer {server.token}")
        connection.putheader("Content-Length", str(10 << 30))
        connection.endheaders()
        assert connection.getresponse().status == 413


def test_a_cut_body_leaves_nothing(server: ServerProcess) -> None:
    session, (body, headers) = begun(server), form("chunk", CHUNKS[0])
    (whole, _), before = form("file", DATA), set((server.data / "partial").iterdir())
    for path, content in (
        (f"/storage/chunked-upload/{session}/chunk?chunk_number=1", body),
        ("/storage/upload", whole),
    ):
        with contextlib.closing(server.connect()) as connection:
            connection.putrequest("POST", path)
            connection.putheader("Authorization", f"Bearer {server.token}")
            connection.putheader("Content-Type", headers["Content-Type"])
            connection.putheader("Content-Length", str(len(content)))
            connection.endheaders()
            connection.send(content[:-1])
    until(lambda: set((server.data / "partial").iterdir()) == before)
    assert server.session(session).json["uploaded_chunks"] == []


@pytest.mark.parametrize("size", [0, 1, 3 << 20])
def test_a_whole_file_in_one_request(server: ServerProcess, size: int) -> None:
    data = random.Random(size).randbytes(size)
    reply = server.upload_asset(data, 'größe \\"x\\".glb', asset_type="video", metadata='{"a": 1}', sha256=sha256(data))
    assert reply.status == 201
    assert (reply.json["file_name"], reply.json["asset_type"]) == ('größe "x".glb', "video")
    assert server.call("GET", reply.json["download_url"]).body == data


def test_forms_of_fields_without_end_are_refused(server: ServerProcess) -> None:
    body, headers = form("file", b"", **{f"field{number}": "" for number in range(5000)})
    assert server.call("POST", "/storage/upload", body, headers=headers).status == 413


def test_a_type_that_would_break_a_header_is_refused(server: ServerProcess) -> None:
    body, headers = form("file", b"x")
    body = body.replace(b'"a.bin"\r\n', b'"a.bin"\r\nContent-Type: text/html\n\r\n')
    assert server.call("POST", "/storage/upload", body, headers=headers).status == 400


def test_metadata_are_bounded(server: ServerProcess) -> None:
    assert server.begin(5, 5, metadata={"a": "b" * 1000}).status == 201
    assert server.begin(5, 5, metadata={"a": "b" * (64 << 10)}).status == 413


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"asset_type": "hologram"}, 400),
        ({"metadata": "{"}, 400),
        ({"sha256": "0" * 64}, 400),
        ({"asset_type": "texture"}, 413),
        ({"file_name": "a/../b"}, 400),
    ],
)
def test_whole_files_that_are_refused_leave_nothing(server: ServerProcess, fields: dict[str, str], code: int) -> None:
    before = set((server.data / "partial").iterdir())
    assert server.upload_asset(bytes(5001), **fields).status == code  # type: ignore[arg-type]
    until(lambda: set((server.data / "partial").iterdir()) == before)


def test_assets_are_listed_in_pages_filtered_and_deleted(server: ServerProcess) -> None:
    token = server.add_user("lister@example.org")
    names = [f"a{n}.glb" for n in range(5)]
    for name in names:
        server.upload_asset(name.encode(), name, token=token, asset_type="audio" if name == "a3.glb" else "model")

    def listed(query: str) -> list[str]:
        reply = server.call("GET", f"/storage/assets?{query}", token=token).json
        return [asset["file_name"] for asset in reply["assets"]]

    assert listed("page=1&per_page=3") + listed("page=2&per_page=3") == names[::-1]
    assert listed("asset_type=audio") == ["a3.glb"]
    assert server.call("GET", "/storage/assets?page=0", token=token).status == 400
    asset = server.call("GET", "/storage/assets?asset_type=audio", token=token).json["assets"][0]
    path = f"/storage/assets/{asset['asset_id']}"
    assert server.call("GET", path, token=token).json == asset
    assert [server.call("DELETE", path, token=token).status for _ in range(2)] == [200, 404]
    assert server.call("GET", f"{path}/download", token=token).status == 404
    assert listed("") == [name for name in names[::-1] if name != "a3.glb"]


def test_a_rate_limit_names_itself_and_says_when(root: Path) -> None:
    with running_server(root, LIMITS | {"uploads_per_hour": 2}) as server:
        assert server.begin(1, SIZE).status == 201 == server.upload_asset(b"x").status
        for reply in (server.begin(1, SIZE), server.upload_asset(b"x")):
            assert (reply.status, reply.json["error"]) == (429, "rate_limited")
            assert "2 uploads an hour" in reply.json["message"] and 0 < int(reply.headers["retry-after"]) <= 3600
        other = server.add_user("other@example.org")
        assert server.begin(1, SIZE, token=other).status == 201


@pytest.mark.parametrize("state", ["initiated", "uploading", "paused", "completed", "failed"])
def test_what_nobody_goes_on_with_ends(root: Path, state: str) -> None:
    with running_server(root, LIMITS | {"cleanup_interval": 0.1}) as server:
        session = in_state(server, state)
        with contextlib.closing(sqlite3.connect(server.data / "server.sqlite3", timeout=30)) as database, database:
            (left,) = database.execute("SELECT expires_at - ? FROM sessions", (time.time(),)).fetchone()
            database.execute("UPDATE sessions SET expires_at = ? WHERE id = ?", (time.time() - 1, session))
        assert 86000 < left <= 86400
        for reply in (server.session(session), server.send(session, 1, CHUNKS[0]), server.session(session, "complete")):
            assert (reply.status, reply.json["error"]) == (404, "session_expired")
        until(lambda: list((server.data / "partial").iterdir()) == [])


def test_a_lost_file_is_a_failed_session(root: Path) -> None:
    with running_server(root, LIMITS) as server:
        session = in_state(server, "uploading")
        server.stop()
        (server.data / "partial" / session).unlink()
        server.start()
        assert status(server, session) == "failed"
        assert server.send(session, 2, CHUNKS[1]).status == 400
        assert server.session(session, "cancel").status == 200


def test_kills_lose_no_chunk_that_was_acknowledged_and_no_asset(root: Path) -> None:
    data = random.Random(9).randbytes(SIZE * 200)
    with running_server(root, LIMITS) as server:
        session, left, done = server.begin(len(data), SIZE).json["session_id"], list(range(200)), set[int]()

        def send() -> None:
            while left:
                number = left.pop()
                with contextlib.suppress(OSError, http.client.HTTPException):
                    if server.send(session, number + 1, data[number * SIZE : (number + 1) * SIZE]).status == 200:
                        done.add(number + 1)

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: len(done) > 30)
        server.kill()
        for thread in threads:
            thread.join()
        server.start()
        told = server.session(session).json
        assert done <= set(told["uploaded_chunks"]) and len(done) < 200
        for number in set(range(1, 201)) - set(told["uploaded_chunks"]):
            assert server.send(session, number, data[(number - 1) * SIZE : number * SIZE]).status == 200
        asset = server.session(session, "complete").json
        server.kill()
        server.start()
        assert server.call("GET", asset["download_url"]).body == data
        assert server.session(session, "complete").json == asset


@pytest.mark.parametrize("killed_at", ["completing", "assembled"])
def test_a_kill_within_complete_is_mended(root: Path, killed_at: str) -> None:
    with running_server(root, LIMITS) as server:
        session = in_state(server, "completed")
        server.kill()
        with contextlib.closing(sqlite3.connect(server.data / "server.sqlite3")) as database, database:
            database.execute("UPDATE sessions SET state = ?", (killed_at,))
            if killed_at == "assembled":
                database.execute("UPDATE sessions SET sha256 = ?", (sha256(DATA),))
                database.execute("INSERT INTO contents VALUES (?, ?, NULL)", (sha256(DATA), len(DATA)))
        server.start()
        assert status(server, session) == "completed"
        reply = server.session(session, "complete")
        assert server.call("GET", reply.json["download_url"]).body == DATA
