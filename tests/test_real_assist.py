"""A PutPlace client that is not ours against our server: the chunked uploader of putplace-assist, as it is published.

Its release leaves `chunk_size` out of `initiate`, which the real server refuses, sends no chunk for an empty file, and
no body with a deletion notice. Our server takes it as it is.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cli_kit import Cli, fast_directory
from putplace_kit import EMAIL, PASSWORD, PutPlace
from recording_proxy import Proxy
from server_kit import ServerProcess, running_server, sha256

DRIVER = str(Path(__file__).parent / "assist_driver.py")
MIB = 1 << 20
HOST = socket.gethostname()


class Assist:
    """putplace-assist with a home of its own, its server behind a proxy that keeps what passed."""

    def __init__(self, root: Path, port: int) -> None:
        self.root, self.wire = root, Proxy(port)
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(("PPASSIST_", "PPCLI_"))}
        self.env |= {
            "HOME": str(root),
            "PPASSIST_DB_PATH": str(root / "assist" / "assist.db"),
            "PPASSIST_UPLOADER_CHUNK_SIZE_MB": "1",
            "ASSIST_SERVER": f"http://{self.wire.address}",
            "ASSIST_EMAIL": EMAIL,
            "ASSIST_PASSWORD": PASSWORD,
            "NO_PROXY": "127.0.0.1",
        }

    def __call__(self, what: str, *files: Path, **env: str) -> dict[str, Any]:
        command = [sys.executable, DRIVER, what, *map(str, files)]
        ran = subprocess.run(command, check=False, env=self.env | env, cwd=self.root, capture_output=True, timeout=60)
        assert ran.returncode == 0, ran.stderr.decode()
        answer: dict[str, Any] = json.loads(ran.stdout)
        return answer

    def source(self, name: str, size: int) -> Path:
        path = self.root / name
        path.write_bytes(random.Random(str(self.root) + name).randbytes(size))
        return path

    def statuses(self, method: str, end: str) -> list[int | None]:
        return [seen.status for seen in self.wire.calls(method, end)]


@pytest.fixture(scope="module")
def serve() -> Iterator[ServerProcess]:
    with fast_directory() as root, running_server(root) as server:
        server.token = server.add_user(EMAIL, PASSWORD)
        yield server


@pytest.fixture
def assist(root: Path, serve: ServerProcess) -> Iterator[Assist]:
    assist = Assist(root, serve.port)
    yield assist
    assist.wire.close()


def entries(server: ServerProcess, path: Path) -> list[dict[str, Any]]:
    shown = server.call("GET", f"/api/my_files?hostname={HOST}&prefix={quote(str(path))}").json
    return [entry for entry in shown if (entry["filepath"], entry["hostname"]) == (str(path), HOST)]


def holds(server: ServerProcess, path: Path) -> None:
    data = path.read_bytes()
    (entry,) = entries(server, path)
    assert (entry["sha256"], entry["file_size"], entry["has_file_content"]) == (sha256(data), len(data), True)
    assert server.call("GET", f"/api/files/{sha256(data)}/content").body == data


def test_what_it_uploads_is_stored(assist: Assist, serve: ServerProcess) -> None:
    """Four at once, as its worker does."""
    sizes = {"one": 1, "exact": MIB, "several": 2 * MIB + 77, "more": 3 * MIB}
    files = [assist.source(name, size) for name, size in sizes.items()]
    answer = assist("upload", *files)
    assert (answer["said"], answer["queued"]["pending_upload"]) == ([True] * 4, 0)
    assert sorted(assist.wire.stored()) == [0, 0, 0, 0, 1, 1, 2, 2]
    for path in files:
        holds(serve, path)


def test_an_empty_file(assist: Assist, serve: ServerProcess) -> None:
    path = assist.source("empty", 0)
    assert assist("upload", path)["said"] == [True]
    assert assist.wire.attempted() == []
    holds(serve, path)


def test_the_same_file_again_is_no_second_entry(assist: Assist, serve: ServerProcess) -> None:
    path = assist.source("again", MIB + 1)
    assert [assist("upload", path)["said"] for _ in range(2)] == [[True], [True]]
    holds(serve, path)


def test_new_content_of_a_file(assist: Assist, serve: ServerProcess) -> None:
    path = assist.source("changing", MIB + 1)
    assert assist("upload", path)["said"] == [True]
    path.write_bytes(b"new content")
    assert assist("upload", path)["said"] == [True]
    assert sha256(b"new content") in [entry["sha256"] for entry in entries(serve, path)]
    assert serve.call("GET", f"/api/files/{sha256(b'new content')}/content").body == b"new content"


def test_its_deletion_notice(assist: Assist, serve: ServerProcess) -> None:
    path = assist.source("gone", 10)
    assert assist("upload", path)["said"] == [True]
    answer = assist("delete", path)
    assert (answer["said"], answer["queued"]["pending_deletion"]) == ([True], 0)
    assert assist.statuses("DELETE", sha256(path.read_bytes())) == [200]
    assert [entry for entry in entries(serve, path) if entry["status"] != "deleted"] == []


def test_a_wrong_password_keeps_the_file_in_its_queue(assist: Assist) -> None:
    answer = assist("upload", assist.source("locked out", 10), ASSIST_PASSWORD="wrong")
    assert (answer["said"], answer["queued"]["pending_upload"]) == ([False], 1)
    assert assist.statuses("POST", "/login") == [401]


def test_our_client_fetches_what_it_has_uploaded(assist: Assist, serve: ServerProcess) -> None:
    path = assist.source("shared", 2 * MIB + 5)
    assert assist("upload", path)["said"] == [True]
    cli = Cli(assist.root, f"putplace+http://127.0.0.1:{serve.port}?hostname={HOST}")
    cli.env["PPCLI_TOKEN"] = serve.token
    assert str(path) in [shown["name"] for shown in cli.json("ls").of("object")]
    cli.holds(str(path), path.read_bytes())


def test_with_a_destination_any_name_can_be_fetched(assist: Assist, serve: ServerProcess) -> None:
    path = assist.source("named by its path", 5)
    assert assist("upload", path)["said"] == [True]
    cli = Cli(assist.root, f"putplace+http://127.0.0.1:{serve.port}?hostname={HOST}")
    cli.env["PPCLI_TOKEN"] = serve.token
    assert cli("get", str(path), "copy").code == 0
    assert (assist.root / "copy").read_bytes() == path.read_bytes()


def test_the_real_server_does_not_take_its_sessions(root: Path, putplace: PutPlace) -> None:
    """When this fails, one of the two has a new release: look again at what our server forgives."""
    assist = Assist(root, putplace.port)
    try:
        assert assist("upload", assist.source("big", MIB + 1))["said"] == [False]
        assert assist.statuses("POST", "/login") == [200]
        assert assist.statuses("POST", "/initiate") == [422]
    finally:
        assist.wire.close()
