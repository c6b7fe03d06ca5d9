"""GraphWiz sessions between the real command and `ppcli serve`, both of which are killed in the middle."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cli_kit import Cli, fast_directory, until
from graphwiz_kit import GraphWizServer, running_graphwiz
from server_kit import ServerProcess, running_server

from ppcli.credentials import Tokens
from ppcli.errors import Crowded
from ppcli.model import FilePlan, Session
from ppcli.origin import Origin
from ppcli.targets import Settings, graphwiz
from ppcli.transport import Transport

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


@contextlib.contextmanager
def connected(root: Path, server: ServerProcess) -> Iterator[graphwiz.GraphWizTarget]:
    with contextlib.closing(Transport(server.url, Tokens(Origin.parse(server.url), lambda: server.token))) as transport:
        settings = Settings(root / "data", root / "config", lambda path, fresh: "", http=lambda base: transport)
        yield graphwiz.connect(f"graphwiz+{server.url}", settings)


def test_a_server_that_takes_no_more_sessions_is_crowded(root: Path) -> None:
    plan = FilePlan("job", 0, "a.glb", 60 * MIB, 0.0, 10 * MIB, 6)
    with running_server(root, LIMITS | {"sessions_per_user": 1}) as tight, connected(root, tight) as target:
        target.open(plan, None, None)
        with pytest.raises(Crowded):
            target.open(replace(plan, key=1), None, None)


def test_giving_up_leaves_what_was_there_before(root: Path, server: ServerProcess) -> None:
    """The server has one asset for all that has the same name and content."""
    data = random.Random(1).randbytes(6 * MIB)
    first, second = (str(server.begin(len(data), 5 * MIB).json["session_id"]) for _ in range(2))
    for session in (first, second):
        for number, chunk in enumerate((data[: 5 * MIB], data[5 * MIB :]), 1):
            assert server.send(session, number, chunk).status == 200
    asset = server.session(first, "complete").json["asset_id"]
    plan = FilePlan("job", 0, "a.glb", len(data), 0.0, 5 * MIB, 2)
    with connected(root, server) as target:
        target.abort(Session(second), plan)
    assert [one["asset_id"] for one in server.call("GET", "/storage/assets").json["assets"]] == [asset]
    assert server.session(second).json["asset_id"] == asset, "nothing of it is held any more"


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
