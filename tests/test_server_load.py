"""Twenty connections with the largest chunks: memory stays flat. And TLS, which is only a socket more."""

from __future__ import annotations

import http.client
import random
import shutil
import ssl
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from cli_kit import fast_directory
from server_kit import ServerProcess, running_server, sha256

CHUNK = 10 << 20
MOST = 200
"""MiB that the server may have taken at its peak."""


def peak(server: ServerProcess) -> int:
    """Peak memory of the server in MiB."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat_with_twenty_chunks_in_flight() -> None:
    piece = random.Random(0).randbytes(1 << 20)
    data = b"".join(piece[n:] + piece[:n] for n in range(200))
    with fast_directory() as root, running_server(root) as server:
        upload_id = server.initiate(data, CHUNK).json["upload_id"]
        statuses: list[int] = []

        def send(number: int) -> None:
            body = memoryview(data)[number * CHUNK : (number + 1) * CHUNK]
            statuses.append(server.put(upload_id, number, body).status)  # type: ignore[arg-type]

        threads = [threading.Thread(target=send, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 20
        assert server.complete(upload_id).status == 200
        headers = {"Range": f"bytes={5 * CHUNK}-"}
        assert sha256(server.call("GET", f"/api/files/{sha256(data)}/content", headers=headers).body) == sha256(
            data[5 * CHUNK :]
        )
        assert peak(server) < MOST


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat_with_large_forms() -> None:
    data = random.Random(0).randbytes(20 << 20)
    with fast_directory() as root, running_server(root, {"max_video": "1GiB"}) as server:
        session = server.begin(10 * len(data), len(data), asset_type="video").json["session_id"]
        statuses: list[int] = []
        threads = [
            threading.Thread(target=lambda n=n: statuses.append(server.send(session, n, data).status))  # type: ignore[misc]
            for n in range(1, 11)
        ]
        threads.append(threading.Thread(target=lambda: statuses.append(server.upload_asset(data).status - 1)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 11
        assert server.session(session, "complete").status == 200
        assert peak(server) < MOST


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_tls(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    command = [*make.split(), "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    with running_server(tmp_path, {}, "--certfile", str(cert), "--keyfile", str(key)) as server:
        assert server.url == f"https://127.0.0.1:{server.port}"
        context = ssl.create_default_context(cafile=str(cert))
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context, timeout=20)
        with closing(connection):
            connection.request("GET", "/api/my_files", headers={"Authorization": f"Bearer {server.token}"})
            assert connection.getresponse().status == 200
