"""One file to `ppcli serve` over many connections, beside `dd conv=fsync` and one SHA-256 of the same bytes.

    python tests/benchmarks/server.py [DIRECTORY] [GIB] [CONNECTIONS] [CHUNK_MIB]

In turn within one run, since machines are noisy: what counts are the ratios. The server hashes every byte twice (the
chunk's etag, the whole file), so with two cores the floor is near one SHA-256 of the file beside the sender's own work.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import mmap
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
from server_kit import ServerProcess, running_server


def send(server: ServerProcess, upload_id: str, source: mmap.mmap, chunk: int, numbers: queue.SimpleQueue[int]) -> None:
    """One connection: take chunk numbers until there are none."""
    connection = server.connect(120)
    headers = {"Authorization": f"Bearer {server.token}"}
    view = memoryview(source)
    while True:
        try:
            number = numbers.get_nowait()
        except queue.Empty:
            break
        body = view[number * chunk : (number + 1) * chunk]
        path = f"/api/uploads/{upload_id}/chunk/{number}"
        connection.request("PUT", path, body, {**headers, "Content-Length": str(len(body))})
        reply = connection.getresponse()
        text = reply.read()
        assert reply.status == 200, text
    view.release()
    connection.close()


def peak(pid: int) -> float:
    """Peak memory of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def processor(pid: int) -> float:
    """Seconds of processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def upload(server: ServerProcess, path: Path, digest: str, connections: int, chunk: int) -> tuple[float, float]:
    """Seconds for the chunks, and for complete."""
    size = path.stat().st_size
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
    total = -(-size // chunk)
    for number in range(total):
        numbers.put(number)
    plan = {"filepath": "big", "hostname": "h", "sha256": digest, "file_size": size, "chunk_size": chunk}
    started = time.perf_counter()
    begun = server.call("POST", "/api/uploads/initiate", {**plan, "total_chunks": total})
    assert begun.status == 201, begun.body
    upload_id = begun.json["upload_id"]
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as source:
        threads = [
            threading.Thread(target=send, args=(server, upload_id, source, chunk, numbers)) for _ in range(connections)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    sent = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=600)
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
    connection.request("POST", f"/api/uploads/{upload_id}/complete", json.dumps({"parts": []}), headers)
    reply = connection.getresponse()
    assert reply.status == 200, reply.read()
    connection.close()
    return sent - started, time.perf_counter() - sent


def main() -> None:
    given = [*sys.argv[1:], *(tempfile.gettempdir(), "1", "20", "8")[len(sys.argv) - 1 :]]
    where, size, connections, chunk = given[0], int(float(given[1]) * (1 << 30)), int(given[2]), int(given[3]) << 20
    with tempfile.TemporaryDirectory(dir=where) as name:
        root = Path(name)
        digest = hashlib.sha256()
        with (root / "big").open("wb") as file:
            for _ in range(size >> 20):
                piece = os.urandom(1 << 20)
                digest.update(piece)
                file.write(piece)
        os.sync()
        started = time.perf_counter()
        command = ["dd", f"if={root / 'big'}", f"of={root / 'copy'}", "bs=8M", "conv=fsync", "status=none"]
        subprocess.run(command, check=True)
        copied = time.perf_counter() - started
        (root / "copy").unlink()
        started, before = time.perf_counter(), time.process_time()
        with (root / "big").open("rb") as file:
            hashlib.file_digest(file, "sha256")
        hashed, hashing = time.perf_counter() - started, time.process_time() - before
        with running_server(root, fresh=True) as server:
            sent, completed = upload(server, root / "big", digest.hexdigest(), connections, chunk)
            memory, busy = peak(server.pid), processor(server.pid)
        took = sent + completed
        print(f"dd conv=fsync {copied:6.2f} s   one sha256 {hashed:6.2f} s")  # noqa: T201
        print(  # noqa: T201
            f"chunks {sent:6.2f} s   complete {completed:5.2f} s  {size / took / 1e6:.0f} MB/s {took / copied:.2f} x dd"
            f"   {took / (copied + hashed):.2f} x (dd + sha256)   peak {memory:.0f} MiB"
            f"   processor {busy:.1f} s, {busy / hashing:.2f} x sha256"
        )


if __name__ == "__main__":
    main()
