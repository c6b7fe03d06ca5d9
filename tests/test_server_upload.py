"""The chunked upload protocol of a real `ppcli serve`: what is acknowledged is right, all else is refused."""

from __future__ import annotations

import http.client
import random
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cli_kit import fast_directory
from server_kit import Reply, ServerProcess, cut, running_server, sha256

SIZE = 1024


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with fast_directory() as root, running_server(root) as running:
        yield running


@pytest.fixture
def data(request: pytest.FixtureRequest) -> bytes:
    return random.Random(request.node.name).randbytes(3 * SIZE + 10)


def begin(server: ServerProcess, data: bytes, **more: object) -> str:
    reply = server.initiate(data, SIZE, **more)
    assert reply.status == 201, reply.body
    return str(reply.json["upload_id"])


def content(server: ServerProcess, data: bytes) -> bytes:
    reply = server.call("GET", f"/api/files/{sha256(data)}/content")
    assert reply.status == 200
    return reply.body


class Slow:
    """A PUT whose body is sent by hand, piece by piece, as soon as the server has begun to wait for it."""

    def __init__(self, server: ServerProcess, upload_id: str, chunk: int, length: int) -> None:
        self.connection = server.connect()
        self.connection.putrequest("PUT", f"/api/uploads/{upload_id}/chunk/{chunk}")
        self.connection.putheader("Authorization", f"Bearer {server.token}")
        self.connection.putheader("Content-Length", str(length))
        self.connection.putheader("Expect", "100-continue")
        self.connection.endheaders()
        assert self.connection.sock.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"

    def send(self, data: bytes) -> None:
        self.connection.send(data)

    def reply(self) -> Reply:
        response = self.connection.getresponse()
        with closing(self.connection):
            return Reply(response.status, dict(response.getheaders()), response.read())


def test_a_file_arrives(server: ServerProcess, data: bytes) -> None:
    begun = server.initiate(data, SIZE).json
    upload_id = begun["upload_id"]
    assert begun["chunk_urls"] == [f"/api/uploads/{upload_id}/chunk/{n}" for n in range(4)]
    assert begun["expiry"] == "idle"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", begun["expires_at"])
    for number in (2, 0, 3, 1):
        piece = cut(data, SIZE)[number]
        reply = server.put(upload_id, number, piece).json
        assert (reply["chunk_num"], reply["etag"], reply["received_bytes"]) == (number, sha256(piece), len(piece))
        assert reply["total_chunks"] == 4
        assert reply["expires_at"] > begun["expires_at"], "progress moves the end on"
    assert reply["uploaded_chunks"] == 4
    done = server.complete(upload_id, [{"chunk_num": n, "etag": sha256(p)} for n, p in enumerate(cut(data, SIZE))])
    assert done.status == 200
    assert (done.json["status"], done.json["sha256"], done.json["file_size"]) == ("completed", sha256(data), len(data))
    assert "s3" not in done.json["storage_location"]
    assert content(server, data) == data


def test_complete_once_more_is_the_same(server: ServerProcess, data: bytes) -> None:
    upload_id = begin(server, data)
    for number, piece in enumerate(cut(data, SIZE)):
        server.put(upload_id, number, piece)
    replies = []
    threads = [threading.Thread(target=lambda: replies.append(server.complete(upload_id))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    replies.append(server.complete(upload_id))
    assert {(reply.status, reply.body) for reply in replies} == {(200, replies[0].body)}
    assert server.call("GET", f"/api/clones/{sha256(data)}").json[0]["filepath"] == "a.bin"
    assert len(server.call("GET", f"/api/clones/{sha256(data)}").json) == 1


def test_the_session_tells_what_it_holds(server: ServerProcess, data: bytes) -> None:
    upload_id = begin(server, data)
    path = f"/api/uploads/{upload_id}"
    assert server.call("GET", path).json["state"] == "initiated"
    server.put(upload_id, 3, data[3 * SIZE :])
    server.put(upload_id, 1, data[SIZE : 2 * SIZE])
    told = server.call("GET", path).json
    assert (told["state"], told["file_size"], told["chunk_size"], told["total_chunks"]) == ("uploading", 3082, SIZE, 4)
    assert told["received"] == [
        {"chunk_num": 1, "etag": sha256(data[SIZE : 2 * SIZE]), "size": SIZE},
        {"chunk_num": 3, "etag": sha256(data[3 * SIZE :]), "size": 10},
    ]
    first = server.call("GET", f"{path}?limit=1").json
    assert ([c["chunk_num"] for c in first["received"]], first["next"]) == ([1], 3)
    second = server.call("GET", f"{path}?limit=1&start=3").json
    assert ([c["chunk_num"] for c in second["received"]], second["next"]) == ([3], None)


def test_the_same_chunk_again_sends_nothing_new(server: ServerProcess, data: bytes) -> None:
    upload_id = begin(server, data)
    server.put(upload_id, 0, data[:SIZE])
    again = server.put(upload_id, 0, data[:SIZE])
    assert (again.status, again.json["etag"], again.json["received_bytes"]) == (200, sha256(data[:SIZE]), 0)
    assert again.json["uploaded_chunks"] == 1


def test_other_bytes_replace_a_chunk_so_that_a_damaged_one_can_be_mended(server: ServerProcess, data: bytes) -> None:
    """Never 409: PutPlace's own uploader takes that for a file that is there."""
    upload_id = begin(server, data)
    pieces = cut(data, SIZE)
    damaged = bytes(SIZE)
    for number, piece in enumerate([pieces[0], damaged, *pieces[2:]]):
        assert server.put(upload_id, number, piece).status == 200
    failed = server.complete(upload_id)
    assert (failed.status, failed.json["detail"].split(":")[0]) == (400, "SHA256 mismatch")
    mended = server.put(upload_id, 1, pieces[1])
    assert (mended.status, mended.json["etag"], mended.json["uploaded_chunks"]) == (200, sha256(pieces[1]), 4)
    assert server.complete(upload_id).status == 200
    assert content(server, data) == data


@pytest.mark.parametrize("order", ["second", "first"])
def test_a_chunk_twice_in_flight_is_stored_once(server: ServerProcess, data: bytes, order: str) -> None:
    upload_id = begin(server, data, name=order)
    pieces = cut(data, SIZE)
    first, second = Slow(server, upload_id, 0, SIZE), Slow(server, upload_id, 0, SIZE)
    first.send(pieces[0][:500])
    second.send(pieces[0][:200])
    ahead, behind = (second, first) if order == "second" else (first, second)
    ahead.send(pieces[0][200 if ahead is second else 500 :])
    won = ahead.reply()
    assert (won.status, won.json["received_bytes"], won.json["uploaded_chunks"]) == (200, SIZE, 1)
    behind.send(pieces[0][200 if behind is second else 500 :])
    lost = behind.reply()
    assert (lost.status, lost.json["received_bytes"], lost.json["uploaded_chunks"]) == (200, 0, 1)
    assert lost.json["etag"] == won.json["etag"] == sha256(pieces[0])
    for number, piece in enumerate(pieces[1:], 1):
        server.put(upload_id, number, piece)
    assert server.complete(upload_id).status == 200
    assert content(server, data) == data


def test_a_hanging_request_does_not_keep_a_retry_out(server: ServerProcess, data: bytes) -> None:
    """The client gave up on a request that the server still waits for. It may even send the rest later."""
    upload_id = begin(server, data)
    hanging = Slow(server, upload_id, 0, SIZE)
    hanging.send(bytes(500))  # not even the right bytes
    assert server.put(upload_id, 0, data[:SIZE]).json["received_bytes"] == SIZE
    hanging.send(bytes(SIZE - 500))
    assert hanging.reply().status == 503
    for number, piece in enumerate(cut(data, SIZE)):
        assert server.put(upload_id, number, piece).json["etag"] == sha256(piece)
    assert server.complete(upload_id).status == 200
    assert content(server, data) == data


def test_a_cut_body_leaves_nothing(server: ServerProcess, data: bytes) -> None:
    upload_id = begin(server, data)
    cut_off = Slow(server, upload_id, 0, SIZE)
    cut_off.send(data[:600])
    cut_off.connection.close()
    assert server.call("GET", f"/api/uploads/{upload_id}").json["received"] == []
    assert server.put(upload_id, 0, data[:SIZE]).json["uploaded_chunks"] == 1


def test_many_connections_at_once(server: ServerProcess) -> None:
    data = random.Random(7).randbytes(40 * 64 * SIZE + 1)
    begun = server.initiate(data, 64 * SIZE)
    pieces = list(enumerate(cut(data, 64 * SIZE)))
    random.Random(1).shuffle(pieces)
    statuses: list[int] = []

    def work() -> None:
        while pieces:
            number, piece = pieces.pop()
            statuses.append(server.put(begun.json["upload_id"], number, piece).status)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 41
    assert server.complete(begun.json["upload_id"]).status == 200
    assert content(server, data) == data


@pytest.mark.parametrize("length", [0, 1, SIZE - 1, SIZE + 1])
@pytest.mark.parametrize("how", ["declared", "chunked"])
def test_a_chunk_of_the_wrong_length_is_refused(server: ServerProcess, data: bytes, length: int, how: str) -> None:
    upload_id = begin(server, data)
    body: object = bytes(length) if how == "declared" else iter([bytes(length)])
    reply = server.call("PUT", f"/api/uploads/{upload_id}/chunk/0", body, headers={"X": "y"})
    assert reply.status == 400
    assert str(SIZE) in reply.json["detail"]
    assert server.call("GET", f"/api/uploads/{upload_id}").json["received"] == []


def test_a_body_without_a_length_is_fine_when_it_has_the_right_one(server: ServerProcess, data: bytes) -> None:
    upload_id = begin(server, data)
    reply = server.call("PUT", f"/api/uploads/{upload_id}/chunk/3", iter([data[3 * SIZE :][:4], data[-6:]]))
    assert (reply.status, reply.json["etag"]) == (200, sha256(data[3 * SIZE :]))


@pytest.mark.parametrize("number", ["-1", "4", "99999999999999999999"])
def test_a_chunk_number_outside_is_refused(server: ServerProcess, data: bytes, number: str) -> None:
    upload_id = begin(server, data)
    assert server.call("PUT", f"/api/uploads/{upload_id}/chunk/{number}", data[:SIZE]).status == 400


def test_complete_needs_every_chunk_and_the_right_etags(server: ServerProcess, data: bytes) -> None:
    upload_id = begin(server, data)
    server.put(upload_id, 0, data[:SIZE])
    missing = server.complete(upload_id)
    assert (missing.status, missing.json["detail"]) == (400, "Not all chunks uploaded: 1/4")
    for number, piece in enumerate(cut(data, SIZE)):
        server.put(upload_id, number, piece)
    wrong = server.complete(upload_id, [{"chunk_num": 1, "etag": "0" * 64}])
    assert (wrong.status, wrong.json["detail"]) == (400, "ETag mismatch for chunk 1")
    unknown = server.complete(upload_id, [{"chunk_num": 9, "etag": "0" * 64}])
    assert (unknown.status, unknown.json["detail"]) == (400, "Chunk 9 not found in session")
    assert server.complete(upload_id).status == 200


@pytest.mark.parametrize("total", [0, 1])
def test_an_empty_file(server: ServerProcess, total: int) -> None:
    begun = server.initiate(b"", SIZE, f"empty-{total}", total_chunks=total)
    assert begun.status == 201
    if total:
        assert server.complete(begun.json["upload_id"]).status == 400
        assert server.put(begun.json["upload_id"], 0, b"").json["etag"] == sha256(b"")
    assert server.complete(begun.json["upload_id"]).status == 200
    assert content(server, b"") == b""


@pytest.mark.parametrize("first", [0, 2, 3])
def test_without_chunk_size_the_first_chunk_tells_it(server: ServerProcess, data: bytes, first: int) -> None:
    """PutPlace's own uploader does not send it."""
    upload_id = begin(server, data, chunk_size=None, name=f"n{first}")
    pieces = cut(data, SIZE)
    order = [first, *(number for number in range(4) if number != first)]
    for number in order:
        assert server.put(upload_id, number, pieces[number]).status == 200
    assert server.put(upload_id, 0, b"x").status == 400
    assert server.complete(upload_id).status == 200
    assert content(server, data) == data


def test_without_chunk_size_an_impossible_length_is_refused(server: ServerProcess, data: bytes) -> None:
    upload_id = begin(server, data, chunk_size=None)
    assert server.put(upload_id, 0, data[: SIZE + 500]).status == 400
    assert server.call("PUT", f"/api/uploads/{upload_id}/chunk/0", iter([data[:SIZE]])).status == 411
    assert server.put(upload_id, 0, data[:SIZE]).status == 200


def test_abort_drops_everything_and_may_be_repeated(server: ServerProcess, data: bytes) -> None:
    upload_id = begin(server, data)
    server.put(upload_id, 0, data[:SIZE])
    path = f"/api/uploads/{upload_id}"
    first = server.call("DELETE", path)
    assert (first.status, first.json["status"], first.json["chunks_deleted"]) == (200, "aborted", 1)
    again = server.call("DELETE", path)
    assert (again.status, again.json["status"], again.json["chunks_deleted"]) == (200, "aborted", 0)
    assert server.put(upload_id, 0, data[:SIZE]).status == 410
    assert server.complete(upload_id).status == 410
    assert server.call("GET", path).json["state"] == "aborted"
    assert not list((server.data / "partial").glob(f"{upload_id}*"))


def test_a_completed_upload_cannot_be_aborted_or_changed(server: ServerProcess, data: bytes) -> None:
    upload_id = begin(server, data)
    for number, piece in enumerate(cut(data, SIZE)):
        server.put(upload_id, number, piece)
    server.complete(upload_id)
    assert server.call("DELETE", f"/api/uploads/{upload_id}").status == 409
    assert server.put(upload_id, 0, data[:SIZE]).status == 409
    assert content(server, data) == data


def test_an_abort_while_a_chunk_is_on_its_way(server: ServerProcess, data: bytes) -> None:
    upload_id = begin(server, data)
    slow = Slow(server, upload_id, 0, SIZE)
    slow.send(data[:10])
    assert server.call("DELETE", f"/api/uploads/{upload_id}").status == 200
    slow.send(data[10:SIZE])
    assert slow.reply().status == 410
    assert not list((server.data / "partial").glob(f"{upload_id}*"))


def test_an_early_refusal_reaches_a_client_that_sends_first(server: ServerProcess) -> None:
    """The whole body goes out before the reply is read; nothing may be reset on the way."""
    reply = server.put("no-such-session", 0, bytes(8 << 20))
    assert (reply.status, reply.headers["connection"]) == (404, "close")
    assert server.put("no-such-session", 0, bytes(8 << 20), token=None).status == 401


def test_a_client_that_expects_100_is_answered_without_a_body(server: ServerProcess) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    with closing(connection):
        connection.putrequest("PUT", "/api/uploads/x/chunk/0")
        for name, value in (("Content-Length", "1000000"), ("Expect", "100-continue")):
            connection.putheader(name, value)
        connection.endheaders()
        assert connection.getresponse().status == 401


def test_a_long_list_of_chunks_has_no_urls(server: ServerProcess, tmp_path: Path) -> None:
    data = bytes(1001 * SIZE)
    assert len(server.initiate(data[SIZE:], SIZE).json["chunk_urls"]) == 1000
    assert "chunk_urls" not in server.initiate(data, SIZE).json


def test_one_connection_serves_many_requests(server: ServerProcess, data: bytes) -> None:
    upload_id = begin(server, data)
    connection = server.connect()
    with closing(connection):
        for number, piece in enumerate(cut(data, SIZE)):
            headers = {"Authorization": f"Bearer {server.token}"}
            connection.request("PUT", f"/api/uploads/{upload_id}/chunk/{number}", piece, headers)
            used = connection.sock
            response = connection.getresponse()
            assert response.status == 200
            response.read()
        assert connection.sock is used
