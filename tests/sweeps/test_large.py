"""A file of 300 MiB to every target: the command is killed three times, the server goes away and comes back three
times, and what was confirmed does not go again.

`pytest --sweep tests/sweeps/test_large.py` ends with a table of what was sent."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_kit import Cli
from peers import Networked, Padded, Peer, Served, Storage, Tus, Upstream
from sweeps.network_kit import Route

MIB = 1 << 20
SIZE, CHUNK, JOBS = 300 * MIB + 123456, 5 * MIB, 4
RATE = 100 * MIB
CHUNKS = -(-SIZE // CHUNK)
KILLS = 3
AWAY = 1.0
"""Seconds for which a server is away that keeps everything in its memory."""
BODY = 64 << 10
"""Requests with larger bodies carry chunks."""


class Bench:
    """A command line, and the way to its server if it has one. `told` are the chunks that were said to be confirmed."""

    def __init__(self, root: Path, peer: Peer) -> None:
        self.peer = peer
        self.route = Route(root, peer) if isinstance(peer, Networked) else None
        self.cli = self.route.cli if self.route else Cli(root, peer.url)
        self.told: list[int] = []
        self.restarts = 0

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        shape = ("--chunk-size", str(CHUNK), "--jobs", str(JOBS), "--limit-rate", str(RATE), "--json")
        return self.cli.start("put", "a.glb", *shape, *words)

    def confirm(self, process: subprocess.Popen[bytes], count: int) -> None:
        """Wait until so many more chunks are confirmed."""
        assert process.stdout is not None
        while count:
            line = process.stdout.readline()
            assert line and b'"result"' not in line, (line, "it ended before it was killed")
            count -= self._hear(line)

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        self.hear_out(process)

    def hear_out(self, process: subprocess.Popen[bytes]) -> int:
        out, err = process.communicate(timeout=300)
        for line in out.splitlines(keepends=True):
            if line.endswith(b"\n"):
                self._hear(line)
        assert err == b""
        return process.returncode

    def restart(self) -> None:
        """The server is killed and started again, where it keeps what it has."""
        if self.route is None:
            return
        self.restarts += 1
        if isinstance(self.peer, Served | Padded | Storage | Tus):
            self.peer.server.kill()
            self.peer.server.start()
        else:
            self.route.proxy.outage(AWAY)

    @property
    def sent(self) -> int | None:
        """Bytes that went over the wire; None where there is none."""
        return self.route and sum(seen.passed for seen in self.route.proxy.seen if seen.size > BODY)

    def stored(self) -> bytes | None:
        return self.route.stored("a.glb") if self.route else self.cli("get", "a.glb", "-").stdout

    def unfinished(self) -> int:
        if self.route and not isinstance(self.peer, Padded):
            with contextlib.closing(self.route.direct()) as target:
                return self.peer.unfinished(target)
        return len(self.cli.json("ls", "--incomplete").of("incomplete"))

    def _hear(self, line: bytes) -> bool:
        event = json.loads(line)
        if event["event"] == "chunk_confirmed":
            self.told.append(event["chunk"])
        assert event["event"] != "warning", event
        return bool(event["event"] == "chunk_confirmed")


@pytest.fixture
def bench(root: Path, peer: Peer) -> Iterator[Bench]:
    if isinstance(peer, Upstream):
        peer.server.max_size = 2 * SIZE
    made = Bench(root, peer)
    yield made
    if made.route:
        made.route.proxy.close()


@pytest.mark.sweep
@pytest.mark.timeout(600)
def test_killed_and_resumed(
    bench: Bench, seed: int, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    rng = random.Random(f"{seed} {request.node.callspec.id}")
    data = b"".join(rng.randbytes(MIB) for _ in range(SIZE // MIB)) + rng.randbytes(SIZE % MIB)
    (bench.cli.root / "a.glb").write_bytes(data)
    started, step = time.monotonic(), CHUNKS // (2 * KILLS + 2)
    for _ in range(KILLS):
        process = bench.start()
        bench.confirm(process, rng.randint(1, step))
        bench.restart()
        bench.confirm(process, rng.randint(1, step))
        bench.kill(process)
    process = bench.start()
    bench.confirm(process, 1)
    bench.restart()
    assert bench.hear_out(process) == 0
    again, seconds = bench.sent and bench.sent - SIZE, time.monotonic() - started
    figures = f"{seconds:5.1f} s, {KILLS} kills, {bench.restarts} restarts, {again} of {SIZE} bytes again"
    record_property("figures", f"large    {request.node.callspec.id:32} {figures}")
    assert len(bench.told) == len(set(bench.told)), "a confirmed chunk was sent again"
    assert again is None or again <= (KILLS + bench.restarts) * JOBS * CHUNK, "more went again than was on its way"
    assert bench.stored() == data
    assert bench.unfinished() == 0
