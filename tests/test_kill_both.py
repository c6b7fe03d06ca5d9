"""Client and server are killed in turns, and everything arrives: once small by default, once as large as life with
`--sweep`. What a journal knew as confirmed is not sent again; that is read from the wire."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from cli_kit import Cli, finish
from recording_proxy import Exchange, Proxy
from server_kit import ServerProcess, running_server

from ppcli.jobs import JobStore
from ppcli.model import ChunkState

Known = set[tuple[str, int]]
"""Chunks (session, number) that a journal has as confirmed; small files, which have no session, as (name, 0)."""


@dataclass(frozen=True)
class Size:
    """`kills` of each side; the whole is cut into chunks of `chunk` bytes."""

    files: int
    large: int
    chunk: int
    kills: int


SMALL = Size(files=40, large=24 << 20, chunk=256 << 10, kills=3)
AS_LARGE_AS_LIFE = Size(files=500, large=(1 << 30) + 12345, chunk=8 << 20, kills=5)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with running_server(tmp_path) as running:
        yield running


@pytest.fixture
def wire(server: ServerProcess) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


def plant(root: Path, size: Size, rng: random.Random) -> dict[str, str]:
    """A tree; gives the digest of each name."""
    digests = {}
    for number in range(size.files):
        name = f"d{number % 7}/f{number:03}" if number else "large.bin"
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        digest, left = hashlib.sha256(), rng.choice([0, 1, 700, 5000, 3 * size.chunk // 2]) if number else size.large
        with path.open("wb") as file:
            while left:
                piece = rng.randbytes(min(left, 1 << 20))
                digest.update(piece)
                file.write(piece)
                left -= len(piece)
        digests[name] = digest.hexdigest()
    return digests


def confirm(process: subprocess.Popen[bytes], count: int) -> str | None:
    """Wait until so many more chunks are said to be confirmed; gives the exit state when the process ended before."""
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "result":
            return str(event["state"])
        count -= event["event"] == "chunk_confirmed"
        if count <= 0:
            return None
    raise AssertionError("the stream ended without a result")


def known(cli: Cli) -> Known:
    store = JobStore(cli.data)
    found: Known = set()
    for job in store.ids():
        for file in store.peek(job).files:
            if file.session is not None:
                whose = file.name if file.session.id == "whole" else file.session.id
                found |= {(whose, c.index) for c in file.chunks if c.state is ChunkState.CONFIRMED}
    return found


def sent(wire: Proxy) -> list[tuple[str, int]]:
    found = []
    for seen in uploads(wire):
        path, _, query = seen.path.partition("?")
        whole = parse_qs(query).get("filepath")
        found.append((whole[0], 0) if whole else (path.split("/")[-3], seen.chunk or 0))
    return found


def uploads(wire: Proxy) -> list[Exchange]:
    return [seen for seen in wire.seen if seen.method == "PUT"]


@pytest.mark.parametrize(
    "size", [SMALL, pytest.param(AS_LARGE_AS_LIFE, marks=[pytest.mark.sweep, pytest.mark.timeout(900)])]
)
@pytest.mark.parametrize("seed", [1])
def test_client_and_server_killed_in_turns(
    tmp_path: Path, server: ServerProcess, wire: Proxy, size: Size, seed: int
) -> None:
    rng = random.Random(seed)
    cli = Cli(tmp_path, f"putplace+http://{wire.address}?hostname=here")
    cli.env["PPCLI_TOKEN"] = server.token
    digests = plant(tmp_path / "tree", size, rng)
    total = sum(path.stat().st_size for path in (tmp_path / "tree").rglob("*") if path.is_file())
    words = ("put", "-r", "tree", "--chunk-size", str(size.chunk), "--jobs", "4", "--retries", "8", "--json")
    step = max(1, (total // size.chunk + size.files) // (2 * size.kills + 2))
    state, before = None, set[tuple[str, int]]()
    for _ in range(size.kills):
        start, process = len(sent(wire)), cli.start(*words)
        confirm(process, rng.randint(1, step))
        server.kill()
        server.start()
        state = confirm(process, rng.randint(1, step))
        process.kill()
        process.communicate()
        assert not before & set(sent(wire)[start:]), "a confirmed chunk was sent again"
        before = known(cli)
    assert state is None, "it ended before it was killed"
    start = len(sent(wire))
    ran = finish(cli.start(*words), timeout=600)
    assert (ran.code, ran.result["state"]) == (0, "completed"), ran.err or ran.result
    assert not before & set(sent(wire)[start:]), "a confirmed chunk was sent again"
    assert sum(seen.passed for seen in uploads(wire)) <= total + 2 * size.kills * 4 * size.chunk
    for name, digest in digests.items():
        (entry,) = server.call("GET", f"/api/my_files?limit=10&prefix={name}").json
        assert (entry["sha256"], entry["has_file_content"]) == (digest, True), name
        stored = hashlib.sha256((server.data / "content" / digest[:2] / digest).read_bytes()).hexdigest()
        assert stored == digest
    # A session whose reply was lost with the client is known to nobody; it expires.
    assert len(list((server.data / "partial").iterdir())) <= size.kills * 20
