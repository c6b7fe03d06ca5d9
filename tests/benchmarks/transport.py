"""The transport beside httpx, http.client and curl, against the loopback sink: large bodies and small ones.

    python tests/benchmarks/transport.py [ROUNDS] [MIB]

In turn within one run, since machines are noisy: what counts are the ratios, and the CPU time of the sender.
"""

from __future__ import annotations

import http.client
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from ppcli.origin import Origin
from ppcli.pieces import pieces
from ppcli.transport import Request, Transport, tls
from ppcli.transport.proxied import Proxied

SMALL, REQUESTS = 4096, 2000
CHUNK = 8 << 20


class FileBody:
    """A range of an open file, as a `target.Body`."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd, self._offset, self.size = fd, offset, size

    def __iter__(self) -> Iterator[memoryview]:
        return pieces(self._fd, self._offset, self.size)

    @property
    def checksum(self) -> str:
        return ""


def cpu() -> float:
    """Seconds of user and system time, of this process and of those that it waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def spread(threads: int, count: int, work: Callable[[int], None]) -> None:
    def share(first: int) -> None:
        for number in range(first, count, threads):
            work(number)

    workers = [threading.Thread(target=share, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def by_transport(base: str, fd: int, size: int, chunk: int, threads: int, *, httpx: bool) -> None:
    transport = Transport(base)
    if httpx:
        transport._engine = Proxied(Origin.parse(base), None, tls.context(), 64)

    def put(number: int) -> None:
        offset = number * chunk
        transport.send(Request("PUT", f"/b/{number}"), FileBody(fd, offset, min(chunk, size - offset)))

    spread(threads, -(-size // chunk), put)
    transport.close()


def by_http_client(base: str, fd: int, size: int, chunk: int, threads: int) -> None:
    local = threading.local()
    opened = []

    def put(number: int) -> None:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection(base.removeprefix("http://"))
            opened.append(local.connection)
        offset = number * chunk
        count = min(chunk, size - offset)
        body = pieces(fd, offset, count)
        local.connection.request("PUT", f"/b/{number}", body, {"Content-Length": str(count)})
        local.connection.getresponse().read()

    spread(threads, -(-size // chunk), put)
    for connection in opened:
        connection.close()


def by_curl(base: str, path: Path) -> None:
    command = ["curl", "-s", "-o", os.devnull, "-H", "Expect:", "-T", str(path), f"{base}/b/whole"]
    subprocess.run(command, check=True)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    size = (int(sys.argv[2]) if len(sys.argv) > 2 else 1024) << 20
    sink = subprocess.Popen([sys.executable, str(Path(__file__).with_name("sink.py"))], stdin=-1, stdout=-1, text=True)
    assert sink.stdin and sink.stdout
    base = sink.stdout.readline().strip()
    with tempfile.TemporaryDirectory() as where:
        path = Path(where) / "big.bin"
        path.write_bytes(b"")
        os.truncate(path, size)
        fd = os.open(path, os.O_RDONLY)
        small = SMALL * REQUESTS
        large: dict[str, Callable[[], None]] = {
            "curl -T": lambda: by_curl(base, path),
            "ours, 1 request": lambda: by_transport(base, fd, size, size, 1, httpx=False),
            "ours, 8 MiB, 1 thread": lambda: by_transport(base, fd, size, CHUNK, 1, httpx=False),
            "ours, 8 MiB, 4 threads": lambda: by_transport(base, fd, size, CHUNK, 4, httpx=False),
            "httpx, 8 MiB, 1 thread": lambda: by_transport(base, fd, size, CHUNK, 1, httpx=True),
            "httpx, 8 MiB, 4 threads": lambda: by_transport(base, fd, size, CHUNK, 4, httpx=True),
        }
        few: dict[str, Callable[[], None]] = {
            "http.client, 1 thread": lambda: by_http_client(base, fd, small, SMALL, 1),
            "http.client, 16 threads": lambda: by_http_client(base, fd, small, SMALL, 16),
            "ours, 1 thread": lambda: by_transport(base, fd, small, SMALL, 1, httpx=False),
            "ours, 16 threads": lambda: by_transport(base, fd, small, SMALL, 16, httpx=False),
            "httpx, 1 thread": lambda: by_transport(base, fd, small, SMALL, 1, httpx=True),
            "httpx, 16 threads": lambda: by_transport(base, fd, small, SMALL, 16, httpx=True),
        }
        report(f"{size >> 20} MiB", large, rounds, lambda took: f"{size / took / 2**30:5.2f} GiB/s")
        report(f"{REQUESTS} x {SMALL} bytes", few, rounds, lambda took: f"{REQUESTS / took:6.0f} requests/s")
        os.close(fd)
    sink.stdin.close()
    sink.wait()


def report(what: str, senders: dict[str, Callable[[], None]], rounds: int, rate: Callable[[float], str]) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in senders}
    used: dict[str, list[float]] = {name: [] for name in senders}
    for _ in range(rounds):
        for name, send in senders.items():
            before, start = cpu(), time.perf_counter()
            send()
            seconds[name].append(time.perf_counter() - start)
            used[name].append(cpu() - before)
    sys.stdout.write(f"{what}\n")
    first = next(iter(senders))
    for name in senders:
        ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds[first], strict=True))
        middle = statistics.median(seconds[name])
        processor = statistics.median(used[name])
        sys.stdout.write(
            f"  {name:24} {middle:6.2f} s  {rate(middle)}  {ratio:5.2f} of the first, CPU {processor:5.2f} s\n"
        )


if __name__ == "__main__":
    main()
