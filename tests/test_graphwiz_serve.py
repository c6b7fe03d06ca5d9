"""GraphWiz sessions between the real command and `ppcli serve`, both of which are killed in the middle."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_kit import Cli, fast_directory, until
from graphwiz_kit import GraphWizServer, running_graphwiz
from server_kit import ServerProcess, running_server

MIB = 1 << 20
LIMITS = {"max_model": "1GiB", "uploads_per_hour": 100_000}


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    with fast_directory() as root, running_server(root, LIMITS) as running:
        yield running


@pytest.fixture
def upstream() -> Iterator[GraphWizServer]:
    with running_graphwiz() as running:
        running.max_size = 1 << 30
        yield running


@pytest.fixture
def box(root: Path, server: ServerProcess) -> Cli:
    cli = Cli(root, f"graphwiz+http://127.0.0.1:{server.port}")
    cli.env["PPCLI_CONFIG_DIR"] = str(server.config)
    return cli


def content(cli: Cli, name: str, size: int) -> bytes:
    piece = random.Random(name).randbytes(MIB)
    data = (b"".join(piece[n % MIB :] + piece[: n % MIB] for n in range(-(-size // MIB))))[:size]
    (cli.root / name).write_bytes(data)
    return data


def killed(cli: Cli, *words: str, chunks: int = 1) -> None:
    """A put that is killed after so many chunks were confirmed."""
    process = cli.start("put", "a.glb", "--chunk-size", "5MiB", "--json", *words)
    assert process.stdout is not None
    for line in process.stdout:
        chunks -= b'"chunk_confirmed"' in line
        if not chunks:
            break
    process.kill()
    process.communicate()


def test_killed_and_resumed(box: Cli, server: ServerProcess) -> None:
    data = content(box, "a.glb", 23 * MIB)
    killed(box, "--limit-rate", "40M", "--jobs", "1")
    (job,) = box.json("status").of("job")
    assert (job["state"], job["evidence"]) == ("paused", "content") and job["expires_at"] is not None
    ran = box.json("resume")
    assert (ran.code, ran.of("file_completed")[0]["evidence"]) == (0, "content")
    assert ran.result["bytes_skipped"] >= 5 * MIB
    box.holds("a.glb", data)
    assert list((server.data / "partial").iterdir()) == []


def test_killed_and_resumed_at_a_server_that_only_marks(root: Path, upstream: GraphWizServer) -> None:
    box = Cli(root, upstream.url)
    data = content(box, "a.glb", 23 * MIB)
    killed(box, "--limit-rate", "40M")
    ran = box.json("resume")
    assert (ran.code, ran.of("file_completed")[0]["evidence"]) == (0, "mark")
    assert ran.result["bytes_skipped"] >= 5 * MIB
    assert [asset.data == data for asset in upstream.assets] == [True]


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("peer", ["server", "upstream"])
def test_300_mib_killed_and_resumed(root: Path, request: pytest.FixtureRequest, peer: str, seed: int) -> None:
    server = request.getfixturevalue(peer)
    box = Cli(root, f"graphwiz+{server.url}" if peer == "server" else server.url)
    if peer == "server":
        box.env["PPCLI_CONFIG_DIR"] = str(server.config)
    data, chunk = content(box, "a.glb", 300 * MIB + seed), 5 * MIB
    sent = 0
    for chunks in random.Random(seed).sample(range(1, 20), 3):
        killed(box, chunks=chunks)
    ran = box.json("put", "a.glb", "--chunk-size", "5MiB")
    assert ran.code == 0
    sent = ran.result["bytes_sent"] + ran.result["bytes_skipped"]
    assert sent <= len(data) + 20 * chunk
    box.holds("a.glb", data)


def test_a_server_that_restarts_in_the_middle(box: Cli, server: ServerProcess) -> None:
    data = content(box, "a.glb", 33 * MIB)
    process = box.start("put", "a.glb", "--chunk-size", "5MiB", "--json", "--limit-rate", "30M", "--jobs", "2")
    assert process.stdout is not None
    for line in process.stdout:
        if b'"chunk_confirmed"' in line:
            break
    server.kill()
    server.start()
    assert process.stdout.read() is not None and process.wait(60) == 0
    process.communicate()
    box.holds("a.glb", data)


def test_twenty_uploads_side_by_side(box: Cli) -> None:
    names = [f"m{n}.glb" for n in range(20)]
    contents = {name: content(box, name, 11 * MIB + n) for n, name in enumerate(names)}
    ran = box.json("put", *names, "--chunk-size", "5MiB", "--jobs", "20")
    assert (ran.code, ran.result["files_completed"]) == (0, 20)
    for name, data in contents.items():
        box.holds(name, data)


def test_cancel_frees_the_server(box: Cli, server: ServerProcess) -> None:
    content(box, "a.glb", 23 * MIB)
    killed(box, "--limit-rate", "40M", "--jobs", "1")
    assert len(list((server.data / "partial").iterdir())) == 1
    (job,) = box.json("status").of("job")
    assert box("cancel", job["job"], "--yes").code == 0
    until(lambda: list((server.data / "partial").iterdir()) == [])


def test_unchanged_is_known_by_the_digest_that_the_server_tells(box: Cli) -> None:
    content(box, "a.glb", 100)
    assert box.json("put", "a.glb").result["bytes_sent"] == 100
    box.env["PPCLI_DATA_DIR"] = str(box.root / "elsewhere")
    again = box.json("put", "a.glb").result
    assert (again["bytes_sent"], again["files_unchanged"]) == (0, 1)


def test_too_large_for_its_type(box: Cli) -> None:
    content(box, "a.png", 11 * MIB)
    for words in (("put", "a.png"), ("put", "a.png", "--chunk-size", "5MiB", "--name", "b.png")):
        told = box.refuses(5, "rejected", "too_large", *words)
        assert "texture" in told
    assert box("put", "a.png", "--to", f"{box.to}?asset_type=model").code == 0


def test_of_another_account_the_upload_starts_over(box: Cli, server: ServerProcess) -> None:
    data = content(box, "a.glb", 23 * MIB)
    killed(box, "--limit-rate", "40M", "--jobs", "1")
    other = server.add_user("other@example.org")
    ran = box.process("resume", "--json", env={**box.env, "PPCLI_TOKEN": other})
    assert (ran.code, [warning["code"] for warning in ran.of("warning")][:1]) == (0, ["session_lost"])
    assert box.process("get", "a.glb", "-", env={**box.env, "PPCLI_TOKEN": other}).stdout == data
