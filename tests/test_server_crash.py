"""SIGKILL at any moment: what was acknowledged is there, what was not is not counted, and a completed file is whole."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from server_kit import ServerProcess, cut, running_server, sha256

SIZE = 64 << 10


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_while_chunks_are_sent_loses_none_that_was_acknowledged(root: Path, seed: int) -> None:
    data = random.Random(seed).randbytes(SIZE * 400)
    pieces = cut(data, SIZE)
    with running_server(root) as server:
        upload_id = server.initiate(data, SIZE).json["upload_id"]
        left, acknowledged = list(range(len(pieces))), set[int]()
        random.Random(seed).shuffle(left)

        def send() -> None:
            while left:
                number = left.pop()
                try:
                    if server.put(upload_id, number, pieces[number]).status == 200:
                        acknowledged.add(number)
                except (OSError, http.client.HTTPException):
                    return

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 30
        while len(acknowledged) < 20 + 10 * seed and time.monotonic() < deadline:
            time.sleep(0.001)
        server.kill()
        for thread in threads:
            thread.join()
        assert acknowledged and len(acknowledged) < len(pieces)

        server.start()
        told = server.call("GET", f"/api/uploads/{upload_id}").json
        received = {chunk["chunk_num"]: chunk["etag"] for chunk in told["received"]}
        assert acknowledged <= received.keys()
        assert all(etag == sha256(pieces[number]) for number, etag in received.items())
        assert told["uploaded_chunks"] == len(received)
        for number in range(len(pieces)):
            if number not in received:
                assert server.put(upload_id, number, pieces[number]).json["received_bytes"] == SIZE
        assert server.complete(upload_id).status == 200
        assert server.call("GET", f"/api/files/{sha256(data)}/content").body == data


def test_a_kill_with_half_a_chunk_sent_counts_nothing(root: Path) -> None:
    data = random.Random(1).randbytes(4 << 20)
    with running_server(root) as server:
        upload_id = server.initiate(data, 4 << 20).json["upload_id"]
        connection = server.connect()
        connection.putrequest("PUT", f"/api/uploads/{upload_id}/chunk/0")
        connection.putheader("Authorization", f"Bearer {server.token}")
        connection.putheader("Content-Length", str(len(data)))
        connection.endheaders()
        connection.send(data[: 3 << 20])
        partial = server.data / "partial" / upload_id
        deadline = time.monotonic() + 20
        while partial.stat().st_size < 1 << 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert partial.stat().st_size >= 1 << 20, "it is written while it arrives"
        server.kill()
        connection.close()
        server.start()
        assert server.call("GET", f"/api/uploads/{upload_id}").json["received"] == []
        assert server.complete(upload_id).status == 400
        server.put(upload_id, 0, data)
        assert server.complete(upload_id).status == 200


def _set_state(server: ServerProcess, upload_id: str, state: str) -> None:
    with sqlite3.connect(server.data / "server.sqlite3") as connection:
        connection.execute("UPDATE sessions SET state = ? WHERE id = ?", (state, upload_id))
    connection.close()


@pytest.mark.parametrize("killed_at", ["completing", "assembled", "renamed"])
def test_a_kill_at_every_step_of_complete(root: Path, killed_at: str) -> None:
    """The states as the server writes them: each is durable before the next step begins."""
    data = random.Random(2).randbytes(5000)
    with running_server(root) as server:
        upload_id = server.initiate(data, 1024).json["upload_id"]
        for number, piece in enumerate(cut(data, 1024)):
            server.put(upload_id, number, piece)
        server.kill()
        _set_state(server, upload_id, "completing" if killed_at == "completing" else "assembled")
        if killed_at != "completing":
            with sqlite3.connect(server.data / "server.sqlite3") as connection:
                connection.execute("INSERT INTO contents VALUES (?, ?, NULL)", (sha256(data), len(data)))
            connection.close()
        if killed_at == "renamed":
            place = server.data / "content" / sha256(data)[:2] / sha256(data)
            place.parent.mkdir()
            (server.data / "partial" / upload_id).rename(place)
        server.start()
        state = server.call("GET", f"/api/uploads/{upload_id}").json["state"]
        assert state == ("uploading" if killed_at == "completing" else "completed")
        assert server.complete(upload_id).status == 200
        assert server.call("GET", f"/api/files/{sha256(data)}/content").body == data
        assert list((server.data / "partial").iterdir()) == []


def _complete_in_vain(server: ServerProcess, upload_id: str) -> None:
    """Ask for complete; the server ends before it can say that it is done."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        assert server.complete(upload_id).status == 503


def test_a_kill_during_complete(root: Path) -> None:
    """After a restart the whole file is hashed from the disk; the kill comes while that goes on."""
    data = random.Random(3).randbytes(1 << 20) * 96
    size = 8 << 20
    with running_server(root) as server:
        upload_id = server.initiate(data, size).json["upload_id"]
        for number, piece in enumerate(cut(data, size)):
            server.put(upload_id, number, piece)
        server.kill()
        server.start()
        asked = threading.Thread(target=_complete_in_vain, args=(server, upload_id))
        asked.start()
        path = f"/api/uploads/{upload_id}"
        while (state := server.call("GET", path).json["state"]) == "uploading":
            pass
        server.kill()
        asked.join()
        assert state in ("completing", "assembled", "completed")
        server.start()
        assert server.complete(upload_id).status == 200
        reply = server.call("GET", f"/api/files/{sha256(data)}/content", headers={"Range": "bytes=-1000"})
        assert reply.body == data[-1000:]


def test_files_that_nothing_names_are_removed_at_the_start(root: Path) -> None:
    data = random.Random(4).randbytes(3000)
    with running_server(root) as server:
        server.upload(data)
        begun = server.initiate(data[:2000], 1024).json["upload_id"]
        server.kill()
        strays = [
            server.data / "partial" / "no-such-session",
            server.data / "partial" / f"{begun}.0123.spool",
            server.data / "content" / "00" / ("0" * 64),
        ]
        for stray in strays:
            stray.parent.mkdir(exist_ok=True)
            stray.write_bytes(b"stray")
        server.start()
        assert not any(stray.exists() for stray in strays)
        assert (server.data / "partial" / begun).exists()
        assert server.call("GET", f"/api/files/{sha256(data)}/content").body == data


def _sparse_session(server: ServerProcess, size: int) -> str:
    """A session that holds all its chunks, as if they had been sent: zeros that take no space and long to hash."""
    chunk = 10 << 20
    total = -(-size // chunk)
    upload_id = str(server.initiate(b"", 1024).json["upload_id"])
    server.kill()
    os.truncate(server.data / "partial" / upload_id, size)
    with sqlite3.connect(server.data / "server.sqlite3") as connection:
        rows = [(upload_id, number, "0" * 64, chunk) for number in range(total)]
        connection.executemany("INSERT INTO chunks VALUES (?, ?, ?, ?)", rows)
        connection.execute(
            "UPDATE sessions SET uploaded = ?, total_chunks = ?, file_size = ?, chunk_size = ? WHERE id = ?",
            (total, total, size, chunk, upload_id),
        )
    connection.close()
    server.start()
    return upload_id


def test_a_long_complete_neither_blocks_others_nor_the_end(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        upload_id = _sparse_session(server, 64 << 30)  # a minute and more of hashing
        asked = threading.Thread(target=_complete_in_vain, args=(server, upload_id))
        asked.start()
        path = f"/api/uploads/{upload_id}"
        while server.call("GET", path).json["state"] != "completing":
            pass
        slowest = 0.0
        for _ in range(5):
            started = time.monotonic()
            assert server.call("GET", "/health").status == 200
            assert server.put(upload_id, 0, bytes(10 << 20)).status == 503, "no chunk changes any more"
            slowest = max(slowest, time.monotonic() - started)
        assert slowest < 5
        assert server.call("DELETE", path).status == 503
        result = server.stop()
        assert result["elapsed"] < 60
        asked.join()
        server.start()
        assert server.call("GET", path).json["state"] == "uploading"
        assert server.call("DELETE", path).status == 200


def test_sessions_whose_bytes_were_removed_are_over(root: Path) -> None:
    """Somebody emptied the directory; the server starts all the same."""
    with running_server(root) as server:
        data = bytes(3000)
        ids = [server.initiate(data, 1024, name).json["upload_id"] for name in ("a", "b")]
        server.put(ids[0], 0, data[:1024])
        server.kill()
        _set_state(server, ids[1], "assembled")
        for path in (server.data / "partial").iterdir():
            path.unlink()
        server.start()
        for upload_id in ids:
            assert server.put(upload_id, 0, data[:1024]).status == 410
        assert server.upload(data).status == 200
