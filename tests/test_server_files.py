"""Stored files: lists, lookups, registration, deletion notices, ranges of content, and what the clean-up removes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cli_kit import fast_directory, until
from server_kit import ServerProcess, running_server, sha256

from ppcli.server.ranges import Unsatisfiable, parse_range

DELETED_AT = "2026-01-05T12:00:00Z"
UNKNOWN = "0" * 64


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with fast_directory() as root, running_server(root) as running:
        yield running


@pytest.fixture
def data(request: pytest.FixtureRequest) -> bytes:
    return random.Random(request.node.name).randbytes(2500)


@pytest.fixture
def token(server: ServerProcess, request: pytest.FixtureRequest) -> str:
    """A user of their own, with nothing stored."""
    return server.add_user(f"{sha256(request.node.name.encode())[:20]}@example.org")


def notice(name: str = "a.bin") -> dict[str, str]:
    return {"filepath": name, "hostname": "here", "deleted_at": DELETED_AT}


def test_an_entry_tells_all_about_a_file(server: ServerProcess, data: bytes) -> None:
    begun = server.initiate(data, 4096, "dir/é.bin", file_mtime=1767225600.5, ip_address="192.0.2.1")
    server.put(begun.json["upload_id"], 0, data)
    done = server.complete(begun.json["upload_id"]).json
    entry = server.call("GET", f"/get_file/{sha256(data)}").json
    assert entry["_id"] == done["file_id"]
    assert (entry["filepath"], entry["hostname"], entry["sha256"]) == ("dir/é.bin", "here", sha256(data))
    assert (entry["file_size"], entry["file_mtime"], entry["ip_address"]) == (2500, 1767225600.5, "192.0.2.1")
    assert (entry["has_file_content"], entry["status"], entry["deleted_at"]) == (True, "active", None)
    assert entry["uploaded_at"] == entry["file_uploaded_at"]
    assert entry["uploaded_at"].endswith("Z") and entry["created_at"].endswith("Z")


@pytest.mark.parametrize("path", ["/get_file/{}", "/api/clones/{}", "/api/files/{}/content"])
def test_a_digest_must_be_one(server: ServerProcess, path: str) -> None:
    for text in ("abc", "0" * 63, "0" * 65, "A" * 64, "..%2F" + "0" * 59):
        assert server.call("GET", path.format(text)).status in (404 if "%2F" in text else 422, 422)


def test_what_is_not_there_is_404(server: ServerProcess) -> None:
    assert server.call("GET", f"/get_file/{UNKNOWN}").status == 404
    assert server.call("GET", f"/api/files/{UNKNOWN}/content").status == 404
    assert server.call("HEAD", f"/api/files/{UNKNOWN}/content").status == 404
    assert server.call("DELETE", f"/api/files/{UNKNOWN}", notice()).status == 404
    assert server.call("GET", f"/api/clones/{UNKNOWN}").json == []


def test_lists_are_newest_first_in_pages_and_filtered(server: ServerProcess, token: str) -> None:
    for number, name in enumerate(["a/1", "a/2", "b/1", "a%", "a_", "A/3"]):
        assert server.upload(b"%d" % number, name=name, token=token).status == 200

    def names(query: str = "") -> list[str]:
        return [entry["filepath"] for entry in server.call("GET", f"/api/my_files{query}", token=token).json]

    assert names() == ["A/3", "a_", "a%", "b/1", "a/2", "a/1"]
    assert names("?limit=2") == ["A/3", "a_"]
    assert names("?limit=2&skip=4") == ["a/2", "a/1"]
    assert names("?skip=6") == []
    assert names("?prefix=a/") == ["a/2", "a/1"]
    assert names("?prefix=a%25") == ["a%"], "no pattern, and case counts"
    assert names("?hostname=here&prefix=b") == ["b/1"]
    assert names("?hostname=elsewhere") == []
    server.upload(b"0", name="a/1", token=token)
    assert names()[0] == "a/1", "sent again, it is the newest"
    for query in ("limit=0", "limit=1001", "skip=-1", "limit=x", "skip=99999999999999999999"):
        assert server.call("GET", f"/api/my_files?{query}").status == 422


def test_clones_are_all_entries_with_one_content(server: ServerProcess, data: bytes) -> None:
    for name in ("one", "two"):
        server.upload(data, name=name)
    found = server.call("GET", f"/api/clones/{sha256(data)}").json
    assert [(entry["filepath"], entry["has_file_content"]) for entry in found] == [("one", True), ("two", True)]
    server.call("DELETE", f"/api/files/{sha256(data)}", notice("one"))
    assert [entry["filepath"] for entry in server.call("GET", f"/api/clones/{sha256(data)}").json] == ["two"]


def test_registering_what_one_has_needs_no_upload(server: ServerProcess, data: bytes) -> None:
    entry = {"filepath": "copy", "hostname": "h", "sha256": sha256(data), "file_size": len(data), "file_mtime": 5.0}
    first = server.call("POST", "/put_file", entry)
    assert (first.status, first.json["upload_required"], first.json["has_file_content"]) == (201, True, False)
    assert first.json["upload_url"]
    server.upload(data)
    second = server.call("POST", "/put_file", entry)
    assert (second.json["upload_required"], second.json["upload_url"]) == (False, None)
    assert (second.json["has_file_content"], second.json["file_mtime"]) == (True, 5.0)
    lie = server.call("POST", "/put_file", {**entry, "filepath": "lie", "file_size": 1})
    assert (lie.status, lie.json["detail"]) == (422, "The file with this digest has 2500 bytes")


def test_a_deletion_is_a_mark(server: ServerProcess, data: bytes) -> None:
    server.upload(data)
    path = f"/api/files/{sha256(data)}"
    wrong = server.call("DELETE", path, notice("another"))
    assert wrong.status == 404
    done = server.call("DELETE", path, notice())
    assert done.json == {"sha256": sha256(data), **notice(), "status": "deleted"}
    assert server.call("DELETE", path, notice()).status == 404, "it is not there any more"
    told = server.call("GET", f"/get_file/{sha256(data)}").json
    assert (told["status"], told["deleted_at"], told["has_file_content"]) == ("deleted", DELETED_AT, False)
    assert server.call("GET", f"{path}/content").status == 404
    assert sha256(data) not in server.call("GET", "/api/my_files").body.decode()
    server.upload(data)
    told = server.call("GET", f"/get_file/{sha256(data)}").json
    assert (told["status"], told["deleted_at"]) == ("active", None)
    assert server.call("GET", f"{path}/content").body == data


def test_a_deletion_without_a_body_needs_one_entry(server: ServerProcess, data: bytes) -> None:
    """PutPlace's own uploader sends none."""
    path = f"/api/files/{sha256(data)}"
    for name in ("one", "two"):
        server.upload(data, name=name)
    assert server.call("DELETE", path).status == 422
    server.call("DELETE", path, notice("one"))
    assert server.call("DELETE", path).json["filepath"] == "two"
    assert server.call("DELETE", path).status == 404


def test_a_batch_of_deletions_tells_about_each(server: ServerProcess, data: bytes) -> None:
    server.upload(data)
    batch = [
        {"sha256": UNKNOWN, **notice()},
        {"sha256": sha256(data), **notice()},
        {"sha256": sha256(data), **notice()},
    ]
    reply = server.call("POST", "/api/files/deletions", {"files": batch})
    assert [file["status"] for file in reply.json["files"]] == ["not_found", "deleted", "not_found"]
    for bad in ({**notice("../x"), "sha256": UNKNOWN}, {**notice(), "sha256": "x"}, {**notice(), "deleted_at": "now"}):
        assert server.call("POST", "/api/files/deletions", {"files": [bad]}).status == 422


def test_ranges(server: ServerProcess, data: bytes) -> None:
    server.upload(data)
    path = f"/api/files/{sha256(data)}/content"
    for text, start, end in (
        ("0-0", 0, 1),
        ("5-9", 5, 10),
        ("2400-", 2400, 2500),
        ("-7", 2493, 2500),
        ("9-9999", 9, 2500),
    ):
        reply = server.call("GET", path, headers={"Range": f"bytes={text}"})
        assert (reply.status, reply.body) == (206, data[start:end])
        assert reply.headers["content-range"] == f"bytes {start}-{end - 1}/2500"
        assert reply.headers["etag"] == f'"{sha256(data)}"'
    beyond = server.call("GET", path, headers={"Range": "bytes=2500-"})
    assert (beyond.status, beyond.headers["content-range"]) == (416, "bytes */2500")
    whole = server.call("GET", path, headers={"Range": "bytes=5-9", "If-Range": '"other"'})
    assert (whole.status, whole.body) == (200, data)
    same = server.call("GET", path, headers={"If-None-Match": f'"{sha256(data)}"'})
    assert (same.status, same.body) == (304, b"")


def test_head_tells_what_get_would(server: ServerProcess, data: bytes) -> None:
    server.upload(data)
    reply = server.call("HEAD", f"/api/files/{sha256(data)}/content")
    assert (reply.status, reply.body) == (200, b"")
    assert (reply.headers["content-length"], reply.headers["accept-ranges"]) == ("2500", "bytes")
    part = server.call("HEAD", f"/api/files/{sha256(data)}/content", headers={"Range": "bytes=-5"})
    assert (part.status, part.headers["content-length"]) == (206, "5")


def test_a_large_file_is_read_back_whole_by_a_reader_that_pauses(server: ServerProcess) -> None:
    data = random.Random(5).randbytes(9 << 20)
    server.upload(data, 1 << 20, "large")
    connection = server.connect()
    with closing(connection):
        headers = {"Authorization": f"Bearer {server.token}"}
        connection.request("GET", f"/api/files/{sha256(data)}/content", headers=headers)
        response = connection.getresponse()
        first = response.read(100)
        assert server.call("GET", "/health").status == 200, "others are served meanwhile"
        assert first + response.read() == data


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (None, None),
        ("bytes=0-", (0, 10)),
        ("bytes=3-5", (3, 6)),
        ("Bytes=-3", (7, 10)),
        ("bytes=-30", (0, 10)),
        ("bytes=5-3", None),
        ("bytes=1-2,4-5", None),
        ("bytes=", None),
        ("lines=1-2", None),
        ("bytes=٣-٤", None),
    ],
)
def test_the_range_header(header: str | None, found: tuple[int, int] | None) -> None:
    assert parse_range(header, 10) == found


@pytest.mark.parametrize(("header", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0), ("bytes=-1", 0)])
def test_a_range_that_cannot_be_given(header: str, size: int) -> None:
    with pytest.raises(Unsatisfiable):
        parse_range(header, size)


def test_content_goes_when_nobody_names_it_any_more(root: Path) -> None:
    data = b"x" * 2000
    with running_server(root, {"content_grace": 0}) as server:
        other = server.add_user("other@example.org")
        place = server.data / "content" / sha256(data)[:2] / sha256(data)
        server.upload(data)
        server.upload(data, token=other)
        server.call("DELETE", f"/api/files/{sha256(data)}", notice())
        assert place.exists(), "the other user still has it"
        assert server.call("GET", f"/api/files/{sha256(data)}/content", token=other).body == data
        server.call("POST", "/api/files/deletions", {"files": [{"sha256": sha256(data), **notice()}]}, token=other)
        assert not place.exists()
        assert server.upload(data).status == 200
        assert server.call("GET", f"/api/files/{sha256(data)}/content").body == data


def test_content_is_kept_for_the_grace_time(root: Path) -> None:
    data = b"y" * 2000
    with running_server(root, {"content_grace": 3600, "cleanup_interval": 0.05}) as server:
        place = server.data / "content" / sha256(data)[:2] / sha256(data)
        server.upload(data)
        server.call("DELETE", f"/api/files/{sha256(data)}", notice())
        stale = server.initiate(b"", 1024).json["upload_id"]
        server.call("DELETE", f"/api/uploads/{stale}")
        server.restart()
        assert place.exists()
        server.stop()
        server.limit(content_grace=0.01, cleanup_interval=0.05)
        server.start()
        until(lambda: not place.exists())
