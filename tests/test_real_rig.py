"""What the real PutPlace server does, asked without our client: the ground that the client and our own server stand on.

These tests fail when a new release of the server behaves in another way, or when our database shim is not honest.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cli_kit import until
from guarded import GUARD
from putplace_kit import EMAIL, HOST, PutPlace
from pymongo.errors import OperationFailure
from recording_proxy import Proxy, Rule

CHUNK = 1024
PIECES = (b"a" * CHUNK, b"b" * CHUNK, b"c" * 7)
DATA = b"".join(PIECES)


@pytest.fixture(autouse=True)
def _the_shim_could_do_all(putplace: PutPlace) -> Iterator[None]:
    yield
    assert putplace.shim.complaints == []


def opened(putplace: PutPlace, data: bytes = DATA, **more: Any) -> str:
    answer = putplace.initiate(data, CHUNK, **more)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["upload_id"])


def filled(putplace: PutPlace, *chunks: int) -> str:
    upload = opened(putplace)
    for chunk in chunks:
        assert putplace.put(upload, chunk, PIECES[chunk]).json()["received_bytes"] == len(PIECES[chunk])
    return upload


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_chunks_come_in_any_order_and_the_file_is_whole(putplace: PutPlace) -> None:
    upload = filled(putplace, 2, 0, 1)
    answer = putplace.complete(upload)
    assert (answer.status_code, answer.json()["sha256"]) == (200, sha256(DATA))
    assert putplace.content(sha256(DATA)) == DATA


def test_a_session_cannot_be_asked_anything(putplace: PutPlace) -> None:
    upload = filled(putplace, 0)
    for path in (f"/api/uploads/{upload}", f"/api/uploads/{upload}/chunk/0"):
        assert [putplace.call(method, path).status_code for method in ("GET", "HEAD")] == [405, 405]


def test_the_first_bytes_of_a_chunk_stay(putplace: PutPlace) -> None:
    upload = opened(putplace)
    first = putplace.put(upload, 0, b"wrong").json()
    again = putplace.put(upload, 0, PIECES[0])
    assert again.status_code == 200
    assert (again.json()["received_bytes"], again.json()["etag"], first["etag"]) == (
        0,
        sha256(b"wrong"),
        sha256(b"wrong"),
    )


def test_complete_happens_once(putplace: PutPlace) -> None:
    before = len(putplace.entries())
    upload = filled(putplace, 0, 1, 2)
    assert putplace.complete(upload).status_code == 200
    again = putplace.complete(upload)
    assert again.status_code == 500
    assert "[Errno 2]" in again.json()["detail"] and "assembled_file" in again.json()["detail"]
    assert len(putplace.entries()) == before + 1


def test_complete_with_wrong_etags_commits_nothing_and_counts(putplace: PutPlace) -> None:
    upload, wrong = filled(putplace, 0, 1), [{"chunk_num": 0, "etag": "-"}]
    assert putplace.complete(upload, wrong).json()["detail"] == "Not all chunks uploaded: 2/3"
    putplace.put(upload, 2, PIECES[2])
    answer = putplace.complete(upload, wrong)
    assert (answer.status_code, answer.json()["detail"]) == (400, "ETag mismatch for chunk 0")
    assert putplace.complete(upload).status_code == 200


def test_a_200_does_not_prove_that_the_session_lives(putplace: PutPlace) -> None:
    upload = filled(putplace, 0)
    assert putplace.call("DELETE", f"/api/uploads/{upload}").json()["chunks_deleted"] == 1
    assert [putplace.put(upload, chunk, PIECES[chunk]).status_code for chunk in (0, 1)] == [200, 500]
    upload = filled(putplace, 0, 1, 2)
    assert putplace.complete(upload).status_code == 200
    assert putplace.put(upload, 0, PIECES[0]).status_code == 200
    assert putplace.call("DELETE", f"/api/uploads/{upload}").status_code == 200


def test_a_chunk_twice_in_flight_poisons_its_session(putplace: PutPlace) -> None:
    upload, barrier = filled(putplace, 0, 1), threading.Barrier(2)

    def meet(command: dict[str, Any]) -> None:
        """No chunk is entered in its session before two are about to be."""
        if command.get("update") == "upload_sessions":
            barrier.wait(10)

    with putplace.commands(before=meet), ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: putplace.put(upload, 2, PIECES[2]).status_code, range(2)))
    assert answers == [200, 200]
    answer = putplace.complete(upload)
    assert (answer.status_code, answer.json()["detail"]) == (400, "Not all chunks uploaded: 4/3")


def test_a_session_lives_an_hour_by_utc(putplace: PutPlace) -> None:
    told = datetime.fromisoformat(putplace.initiate(DATA, CHUNK).json()["expires_at"])
    assert told.tzinfo is None
    left = told.replace(tzinfo=UTC) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)


def test_an_expired_session_takes_no_chunk_but_can_be_ended(putplace: PutPlace) -> None:
    upload = filled(putplace, 0)
    putplace.expire(upload)
    assert [putplace.put(upload, chunk, PIECES[chunk]).status_code for chunk in (0, 1)] == [410, 410]
    assert putplace.call("DELETE", f"/api/uploads/{upload}").status_code == 200
    upload = filled(putplace, 0, 1, 2)
    putplace.expire(upload)
    assert putplace.complete(upload).status_code == 200


def test_a_file_that_differs_from_its_digest_cannot_be_mended(putplace: PutPlace) -> None:
    upload = opened(putplace)
    for chunk, data in enumerate((PIECES[0], b"other", PIECES[2])):
        putplace.put(upload, chunk, data)
    for _ in range(2):
        answer = putplace.complete(upload)
        assert answer.status_code == 400
        assert answer.json()["detail"].startswith("SHA256 mismatch: expected ")
        assert putplace.put(upload, 1, PIECES[1]).json()["etag"] == sha256(b"other")


@pytest.mark.parametrize(
    "wrong", [{"chunk_size": 1023}, {"chunk_size": 10485761}, {"total_chunks": 0}, {"sha256": "AB" * 32}]
)
def test_what_initiate_refuses(putplace: PutPlace, wrong: dict[str, Any]) -> None:
    answer = putplace.initiate(DATA, CHUNK, **wrong)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", *wrong]


def test_sizes_are_not_compared_with_the_content(putplace: PutPlace) -> None:
    upload = opened(putplace, file_size=1, chunk_size=4096)
    for chunk, data in enumerate(PIECES):
        putplace.put(upload, chunk, data)
    assert putplace.complete(upload).json()["file_size"] == 1


def test_an_empty_file_is_one_empty_chunk(putplace: PutPlace) -> None:
    upload = opened(putplace, b"")
    assert "Not all chunks" in putplace.complete(upload).json()["detail"]
    assert putplace.put(upload, 0, b"").json()["received_bytes"] == 0
    assert putplace.complete(upload).json()["sha256"] == sha256(b"")
    assert putplace.content(sha256(b"")) == b""


def test_who_may(putplace: PutPlace) -> None:
    upload = filled(putplace, 0)
    for token in (putplace.aged(-60), "nonsense"):
        assert putplace.put(upload, 1, PIECES[1], token=token).status_code == 401
    assert putplace.put(upload, 1, PIECES[1], token=putplace.aged(60)).status_code == 200
    revoked = putplace.login()
    putplace.revoke(revoked)
    assert putplace.put(upload, 1, PIECES[1], token=revoked).status_code == 401
    putplace.add_user("other@example.com")
    other = putplace.login("other@example.com")
    assert putplace.put(upload, 1, PIECES[1], token=other).status_code == 403
    assert putplace.call("DELETE", f"/api/uploads/{upload}", token=other).status_code == 403


def test_a_complete_that_loses_its_database_loses_the_chunks_too(putplace: PutPlace) -> None:
    """It removes them before it enters the file: from then on it answers as after a success, and there is no file."""
    data = b"stored and never entered"

    def fail(command: dict[str, Any]) -> None:
        if command.get("insert") == "file_metadata":
            raise OperationFailure("not now")

    upload = opened(putplace, data)
    putplace.put(upload, 0, data)
    with putplace.commands(before=fail):
        assert putplace.complete(upload).status_code == 500
    again = putplace.complete(upload)
    assert (again.status_code, "[Errno 2]" in again.json()["detail"]) == (500, True)
    assert putplace.put(upload, 0, data).status_code == 200
    assert putplace.call("GET", f"/get_file/{sha256(data)}").status_code == 404


def test_what_another_user_stored_is_found_too(putplace: PutPlace) -> None:
    data = b"only here"
    upload = opened(putplace, data)
    putplace.put(upload, 0, data)
    assert putplace.complete(upload).status_code == 200
    putplace.add_user("third@example.com")
    other = putplace.login("third@example.com")
    found = putplace.call("GET", f"/get_file/{sha256(data)}", token=other).json()
    assert (found["hostname"], found["filepath"], found["has_file_content"]) == (HOST, "raw.bin", True)
    assert putplace.call("GET", "/api/my_files", token=other).json() == []


def test_a_deletion_notice_is_soft_and_nothing_that_can_be_read_shows_it(putplace: PutPlace) -> None:
    data = b"to be deleted"
    upload, path = opened(putplace, data, name="gone"), f"/api/files/{sha256(data)}"
    putplace.put(upload, 0, data)
    assert putplace.complete(upload).status_code == 200
    notice = {"filepath": "gone", "hostname": HOST, "deleted_at": "2026-01-05T12:00:00Z"}
    codes = [putplace.call("DELETE", path, json=body).status_code for body in (None, notice, notice)]
    assert codes == [422, 200, 404]
    assert putplace.content(sha256(data)) == data
    (entry,) = putplace.entries(sha256=sha256(data))
    assert entry["status"] == "deleted"
    for shown in (putplace.call("GET", f"/get_file/{sha256(data)}"), putplace.call("GET", "/api/my_files")):
        assert "deleted" not in shown.text


def test_a_deletion_notice_finds_only_the_first_of_equal_entries(putplace: PutPlace) -> None:
    """What was deleted and stored again can never be deleted: each notice marks the old entry once more."""
    data = b"twice"
    for minute in range(2):
        upload = opened(putplace, data, name="twice")
        putplace.put(upload, 0, data)
        assert putplace.complete(upload).status_code == 200
        notice = {"filepath": "twice", "hostname": HOST, "deleted_at": f"2026-01-05T12:0{minute}:00Z"}
        assert putplace.call("DELETE", f"/api/files/{sha256(data)}", json=notice).status_code == 200
    assert [entry.get("status") for entry in putplace.entries(sha256=sha256(data))] == ["deleted", None]


def test_only_put_file_says_that_the_content_is_there(putplace: PutPlace) -> None:
    data = b"known content"
    meta = {
        "filepath": "again", "hostname": HOST, "ip_address": "", "sha256": sha256(data), "file_size": len(data),
        "file_mode": 0, "file_uid": 0, "file_gid": 0, "file_mtime": 0, "file_atime": 0, "file_ctime": 0,
    }  # fmt: skip
    assert putplace.call("POST", "/put_file", json=meta).json()["upload_required"] is True
    upload = opened(putplace, data)
    putplace.put(upload, 0, data)
    assert putplace.complete(upload).status_code == 200
    assert putplace.call("POST", "/put_file", json=meta).json()["upload_required"] is False
    assert putplace.initiate(data, CHUNK).status_code == 201


def test_sessions_and_chunks_outlive_a_killed_server(putplace: PutPlace) -> None:
    upload = filled(putplace, 0, 1)
    putplace.kill()
    putplace.start()
    assert putplace.put(upload, 0, PIECES[0]).json()["received_bytes"] == 0
    assert putplace.put(upload, 2, PIECES[2]).status_code == 200
    assert putplace.complete(upload).status_code == 200


def test_the_proxy_keeps_what_passed_and_can_eat_an_answer(putplace: PutPlace) -> None:
    import httpx

    proxy = Proxy(putplace.port)
    try:
        proxy.at(Rule(lambda seen: seen.path == "/health", cut=True))
        with httpx.Client(base_url=f"http://{proxy.address}", trust_env=False) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                client.get("/health")
            token = {"Authorization": f"Bearer {putplace.token}"}
            upload = opened(putplace)
            client.put(f"/api/uploads/{upload}/chunk/1", content=PIECES[1], headers=token)
        until(lambda: proxy.open == 0)
        assert [(s.method, s.status, s.delivered) for s in proxy.seen] == [("GET", 200, False), ("PUT", 200, True)]
        assert (proxy.stored(), proxy.seen[1].size) == ([1], CHUNK)
    finally:
        proxy.close()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_is_guarded_ends_with_the_tests_that_were_killed() -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(100)"]
    tests = "import subprocess, sys; subprocess.Popen(sys.argv[1:], stdin=-1); sys.stdin.read()"
    command = [sys.executable, "-c", tests, sys.executable, GUARD, *sleeper]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    until(lambda: not alive(pid))


def test_the_user_is_the_one_of_the_environment(putplace: PutPlace) -> None:
    assert putplace.call("GET", "/api/v2/auth/me").json()["email"] == EMAIL
