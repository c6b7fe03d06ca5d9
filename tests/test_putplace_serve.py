"""The command against `ppcli serve`: what its users do, from the login that is there by itself to a removed file."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_kit import Cli, until
from recording_proxy import Exchange, Proxy, Rule
from server_kit import ServerProcess, running_server, sha256

CHUNK = 64 << 10


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def box(root: Path, server: ServerProcess, request: pytest.FixtureRequest) -> Cli:
    """A machine of its own, which shares the config dir with the server: so it is logged in."""
    cli = Cli(root, f"{server.url}?hostname={request.node.name}")
    cli.env["PPCLI_CONFIG_DIR"] = str(server.config)
    return cli


def content(cli: Cli, name: str, size: int = 3 * CHUNK + 5) -> bytes:
    data = random.Random(cli.to + name).randbytes(size)
    (cli.root / name).parent.mkdir(parents=True, exist_ok=True)
    (cli.root / name).write_bytes(data)
    return data


def put(cli: Cli, *words: str) -> dict[str, object]:
    ran = cli.json("put", "--chunk-size", str(CHUNK), *words)
    assert ran.code == 0, ran.result
    return ran.result


def test_put_list_get_and_remove(box: Cli) -> None:
    data = content(box, "a b.bin")
    told = box("put", "a b.bin", "--chunk-size", str(CHUNK))
    assert told.stdout.decode() == f"{box.to}#a%20b.bin\n"
    (listed,) = box.json("ls").of("object")
    assert (listed["name"], listed["size"], listed["digest"]) == ("a b.bin", len(data), f"sha256:{sha256(data)}")
    assert box("get", "a b.bin", "copy").code == 0 == box("get", told.stdout.decode().strip(), "other").code
    assert (box.root / "copy").read_bytes() == data == (box.root / "other").read_bytes()
    assert box("rm", "a b.bin").code == 0
    assert box.json("ls").of("object") == []
    assert box("get", "a b.bin", "third").code == 9 == box("rm", "a b.bin").code


def test_what_is_there_is_not_sent_again_even_without_the_data_dir(box: Cli) -> None:
    content(box, "a.bin")
    assert put(box, "a.bin")["bytes_sent"] == 3 * CHUNK + 5
    for data_dir in ("data", "elsewhere"):
        box.env["PPCLI_DATA_DIR"] = str(box.root / data_dir)
        again = put(box, "a.bin")
        assert (again["bytes_sent"], again["files_unchanged"], again["state"]) == (0, 1, None)
    assert box.json("status", "--all").of("job") == [], "no job was made for it"


@pytest.mark.parametrize("size", [100, 3 * CHUNK])
def test_content_that_was_replaced_is_not_there_unchanged(box: Cli, size: int) -> None:
    old, new = b"a" * size, b"b" * size
    for data in (old, new, old):
        (box.root / "a.bin").write_bytes(data)
        put(box, "a.bin")
        assert box("get", "a.bin", "-").stdout == data
    assert put(box, "a.bin")["files_unchanged"] == 1


def test_removed_and_put_again_it_is_there_again(box: Cli) -> None:
    content(box, "a.bin")
    put(box, "a.bin")
    assert box("rm", "a.bin").code == 0
    put(box, "a.bin")
    assert [listed["name"] for listed in box.json("ls").of("object")] == ["a.bin"]


def test_content_that_comes_back_under_a_name_is_what_the_name_has(box: Cli) -> None:
    """A, then B, then A again: the server has A already, but the name has B."""
    first = content(box, "a.bin")
    put(box, "a.bin")
    other = content(box, "other.bin")
    put(box, "other.bin", "--name", "a.bin")
    box.holds("a.bin", other)
    assert put(box, "a.bin")["bytes_sent"] == 0
    box.holds("a.bin", first)


def test_a_fetch_goes_on_in_the_middle(box: Cli) -> None:
    data = content(box, "a.bin")
    put(box, "a.bin")
    assert box("get", "a.bin", "first").code == 0
    reader = box.start("get", "a.bin", "-")
    assert reader.stdout is not None and reader.stdout.read(10) == data[:10]
    reader.kill()
    reader.communicate()
    assert box("get", "a.bin", "-").stdout == data


def test_stdin_and_empty_files(box: Cli) -> None:
    assert box("put", "-", "--name", "from/stdin", stdin=b"piped").code == 0
    content(box, "empty", 0)
    put(box, "empty")
    assert box("get", "from/stdin", "-").stdout == b"piped"
    assert box("get", "empty", "-").stdout == b""


def test_a_dry_run_changes_nothing(box: Cli, server: ServerProcess) -> None:
    content(box, "a.bin")
    before = sorted((server.data / "partial").iterdir())
    ran = box.json("put", "a.bin", "--dry-run")
    assert [event["chunks"] for event in ran.of("file_planned")] == [1]
    assert box.json("ls").of("object") == [] and sorted((server.data / "partial").iterdir()) == before


def test_the_same_content_under_two_names_is_sent_once(box: Cli) -> None:
    data = content(box, "a.bin")
    (box.root / "b.bin").write_bytes(data)
    assert put(box, "a.bin")["bytes_sent"] == len(data)
    assert box.json("put", "b.bin", "--dry-run").code == 0
    assert [listed["name"] for listed in box.json("ls").of("object")] == ["a.bin"]
    assert put(box, "b.bin")["bytes_sent"] == 0
    assert [listed["name"] for listed in box.json("ls").of("object")] == ["a.bin", "b.bin"]


def test_immutable_never_replaces(box: Cli) -> None:
    old = content(box, "a.bin")
    put(box, "a.bin")
    (box.root / "a.bin").write_bytes(b"other")
    ran = box.json("put", "a.bin", "--immutable")
    assert (ran.code, ran.result["error"]["reason"]) == (5, "exists")
    assert box("get", "a.bin", "-").stdout == old
    put(box, "a.bin")
    assert box("get", "a.bin", "-").stdout == b"other"


def test_a_tree_comes_back(box: Cli) -> None:
    names = [f"tree/d{n % 3}/f{n}.txt" for n in range(12)]
    contents = {name: content(box, name, 100 * n) for n, name in enumerate(names)}
    assert put(box, "-r", "tree", "--name", "kept/")["files_completed"] == 12
    assert box("get", "-r", "kept", "back").code == 0
    for name, data in contents.items():
        assert (box.root / "back" / name.removeprefix("tree/")).read_bytes() == data
    assert box("rm", "-r", "kept").code == 0
    assert box.json("ls").of("object") == []


def test_cancel_frees_the_server(box: Cli, server: ServerProcess) -> None:
    before = set((server.data / "partial").iterdir())
    content(box, "slow.bin", 40 * CHUNK)
    process = box.start("put", "slow.bin", "--chunk-size", str(CHUNK), "--limit-rate", "256K", "--json")
    assert process.stdout is not None
    for line in process.stdout:
        if b'"chunk_confirmed"' in line:
            break
    process.kill()
    process.communicate()
    assert len(set((server.data / "partial").iterdir()) - before) == 1
    (job,) = box.json("status").of("job")
    assert job["state"] == "paused" and job["expires_at"] is not None
    assert box("cancel", job["job"], "--yes").code == 0
    until(lambda: set((server.data / "partial").iterdir()) == before)
    assert box.json("status").of("job") == []


def test_a_token_that_is_no_good_pauses_the_job_and_the_next_goes_on(box: Cli, server: ServerProcess) -> None:
    content(box, "a.bin")
    refused = box.process("put", "a.bin", "--json", "--chunk-size", str(CHUNK), env={**box.env, "PPCLI_TOKEN": "wrong"})
    assert (refused.code, refused.result["error"]["kind"], refused.result["state"]) == (3, "credentials", "paused")
    assert "wrong" not in refused.stdout.decode() + refused.err
    assert box.json("resume").result["state"] == "completed"


def begin(cli: Cli, name: str) -> str:
    """Begin an upload and kill it; gives its job."""
    content(cli, name, 40 * CHUNK)
    process = cli.start("put", name, "--chunk-size", str(CHUNK), "--limit-rate", "256K", "--json")
    assert process.stdout is not None
    for line in process.stdout:
        if b'"chunk_confirmed"' in line:
            break
    process.kill()
    process.communicate()
    return str(json.loads(line)["job"])


def test_unfinished_uploads_are_listed_and_freed(box: Cli, server: ServerProcess) -> None:
    job = begin(box, "ours.bin")
    unknown = server.initiate(b"x" * 5000, 1024, "lost", hostname=box.to.partition("hostname=")[2]).json["upload_id"]
    elsewhere = server.initiate(b"x" * 5000, 1024, "other").json["upload_id"]
    found = {one["name"]: one for one in box.json("ls", "--incomplete").of("incomplete")}
    assert {name: one["job"] for name, one in found.items()} == {"ours.bin": job, "lost": None}
    assert found["lost"]["id"] == unknown and found["lost"]["size"] == 5000
    assert box("cancel", "--incomplete", "--yes").code == 0
    assert box.json("ls", "--incomplete").of("incomplete") == []
    assert [one["state"] for one in box.json("status", "--all").of("job")] == ["cancelled"]
    told = server.call("GET", f"/api/uploads/{elsewhere}").json
    assert told["state"] == "initiated", "uploads of other hosts are left alone"


def test_small_files_take_one_request_each(box: Cli, server: ServerProcess) -> None:
    proxy = Proxy(server.port)
    cli = through(box, proxy, server)
    tree = {f"tree/f{number}": content(cli, f"tree/f{number}", 1000 * (number + 1)) for number in range(40)}
    try:
        ran = cli.json("put", "-r", "tree")
        assert (ran.code, ran.result["files_completed"]) == (0, 40)
        assert {event["evidence"] for event in ran.of("file_completed")} == {"content"}
        writes = [seen for seen in proxy.seen if seen.method == "PUT"]
        assert len(writes) == 40 and len(proxy.seen) < 2 * 40
        assert not proxy.calls("POST", "/initiate")
        proxy.fresh()
        assert cli.json("put", "-r", "tree").result["files_unchanged"] == 40
        assert all(seen.method == "GET" or seen.path.endswith("/known") for seen in proxy.seen)
    finally:
        proxy.close()
    for name, data in tree.items():
        assert box("get", name.removeprefix("tree/"), "-").stdout == data


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_small_file_whose_reply_is_lost(box: Cli, server: ServerProcess, cut: str) -> None:
    proxy = Proxy(server.port)
    cli = through(box, proxy, server)
    data = content(cli, "a.bin", 5000)

    def break_off(exchange: Exchange) -> None:
        exchange.limit = 100

    proxy.at(Rule(lambda seen: seen.method == "PUT", break_off if cut == "before" else None, cut=True))
    try:
        ran = cli.json("put", "a.bin")
    finally:
        proxy.close()
    assert ran.code == 0, ran.result
    assert len(box.json("ls").of("object")) == 1 and box("get", "a.bin", "-").stdout == data


def test_a_small_file_that_changes_after_it_was_hashed(box: Cli, server: ServerProcess) -> None:
    proxy = Proxy(server.port)
    cli = through(box, proxy, server)
    content(cli, "a.bin", 5000)
    change = (box.root / "a.bin").write_bytes
    asked: list[object] = []

    def after_hashing(exchange: Exchange) -> None:
        asked.append(change(b"y" * 5000))

    proxy.at(Rule(lambda seen: seen.path.endswith("/known"), after_hashing))
    try:
        ran = cli.json("put", "a.bin")
        stored = box.json("ls").of("object")
        assert asked
        assert ran.code == 0 or (ran.code, ran.result["error"]["reason"]) == (4, "changed"), ran.result
        assert cli.json("put", "a.bin").code == 0
    finally:
        proxy.close()
    assert len(stored) == (ran.code == 0), "never under a digest that is not its own"
    assert box("get", "a.bin", "-").stdout == b"y" * 5000


def through(box: Cli, proxy: Proxy, server: ServerProcess) -> Cli:
    """The same machine, whose way to the server leads through a proxy."""
    cli = Cli(box.root, f"http://{proxy.address}?{box.to.partition('?')[2]}")
    cli.env["PPCLI_TOKEN"] = server.token
    return cli


@pytest.fixture
def tight(root: Path) -> Iterator[ServerProcess]:
    with running_server(root, {"sessions_per_user": 2, "chunk_max": "1MiB", "max_file_size": "6MiB"}) as running:
        yield running


def test_a_server_that_takes_few_sessions_gets_few_at_once(root: Path, tight: ServerProcess) -> None:
    cli = Cli(root, tight.url)
    cli.env["PPCLI_CONFIG_DIR"] = str(tight.config)
    for number in range(12):
        content(cli, f"tree/f{number}", (1 << 20) + number + 1)
    ran = cli.json("put", "-r", "tree")
    assert (ran.code, ran.result["files_completed"]) == (0, 12), ran.result
    assert ran.of("retrying") == [], "nobody waited for a Retry-After"


def test_a_server_whose_sessions_others_have_is_asked_again(root: Path, tight: ServerProcess) -> None:
    cli = Cli(root, tight.url)
    cli.env["PPCLI_CONFIG_DIR"] = str(tight.config)
    theirs = [tight.initiate(b"x" * 5000, 1024, f"n{n}").json["upload_id"] for n in range(2)]
    content(cli, "a.bin", 3 << 20)
    process = cli.start("put", "a.bin", "--json", "--retries", "2")
    assert process.stdout is not None
    waits = next(event for line in process.stdout if (event := json.loads(line))["event"] == "retrying")
    assert "Too many unfinished uploads" in waits["cause"] and waits["delay"] <= 11
    process.kill()
    process.communicate()
    for upload_id in theirs:
        tight.call("DELETE", f"/api/uploads/{upload_id}")
    assert cli.json("resume").code == 0


def test_larger_chunks_than_usual_are_asked_about(root: Path) -> None:
    with running_server(root, {"chunk_max": "16MiB"}) as wide:
        cli = Cli(root, wide.url)
        cli.env["PPCLI_CONFIG_DIR"] = str(wide.config)
        content(cli, "a.bin", (12 << 20) + 1)
        ran = cli.json("put", "a.bin", "--chunk-size", "12MiB")
        assert (ran.code, ran.result["chunks_sent"]) == (0, 2), ran.result
        assert cli.json("put", "a.bin", "--chunk-size", "17MiB").code == 2


def test_the_limits_of_the_server_are_learnt(root: Path, tight: ServerProcess) -> None:
    """Chunks of 8 MiB are usual; this server takes 1 MiB, and files of 6 MiB."""
    cli = Cli(root, tight.url)
    cli.env["PPCLI_CONFIG_DIR"] = str(tight.config)
    data = content(cli, "a.bin", (5 << 20) + 1)
    ran = cli.json("put", "a.bin")
    assert (ran.code, ran.result["chunks_sent"]) == (0, 6)
    assert cli("get", "a.bin", "-").stdout == data
    refused = cli.json("put", "a.bin", "--chunk-size", "2MiB", "--checksum", "--name", "b.bin")
    assert (refused.code, refused.result["error"]["kind"]) == (2, "usage")
    content(cli, "large", (6 << 20) + 1)
    refused = cli.json("put", "large")
    assert (refused.code, refused.result["error"]["reason"]) == (5, "too_large")


def test_a_job_that_was_planned_without_the_server_learns_its_limits(root: Path, tight: ServerProcess) -> None:
    cli = Cli(root, tight.url)
    cli.env["PPCLI_CONFIG_DIR"] = str(tight.config)
    data = content(cli, "a.bin", 3 << 20)
    tight.stop()
    paused = cli.json("put", "a.bin", "--retries", "1")
    assert (paused.code, paused.result["state"]) == (75, "paused")
    tight.start()
    assert cli.json("resume").result["chunks_sent"] == 3
    assert cli("get", "a.bin", "-").stdout == data


def test_many_files_at_once_are_hashed_and_told(box: Cli) -> None:
    for number in range(30):
        content(box, f"many/{number}", 5000)
    ran = box.json("put", "-r", "many")
    hashed = ran.of("hashing_progress")
    assert hashed[-1]["bytes_hashed"] == hashed[-1]["bytes_total"] == 30 * 5000
    assert ran.result["files_completed"] == 30


def killed(cli: Cli, name: str) -> str:
    """A put that is killed after its first chunks; gives the job's id."""
    process = cli.start("put", name, "--chunk-size", str(CHUNK), "--limit-rate", "1M", "--json")
    assert process.stdout is not None
    for line in process.stdout:
        if b'"chunk_confirmed"' in line:
            break
    process.kill()
    process.communicate()
    (job,) = cli.json("status").of("job")
    return str(job["job"])


def test_a_registered_name_without_its_content_is_no_success(box: Cli, server: ServerProcess) -> None:
    data = content(box, "a.bin")
    named = {"filepath": "a.bin", "hostname": box.to.partition("=")[2], "ip_address": "", "sha256": sha256(data)}
    numbers = dict.fromkeys(("file_mode", "file_uid", "file_gid", "file_mtime", "file_atime", "file_ctime"), 0)
    assert server.call("POST", "/put_file", named | numbers | {"file_size": len(data)}).status == 201
    assert put(box, "a.bin", "--immutable")["bytes_sent"] == len(data)
    assert box("get", "a.bin", "-").stdout == data


def test_after_a_refusal_what_is_there_is_still_not_sent_again(box: Cli) -> None:
    content(box, "a.bin")
    put(box, "a.bin")
    box.env["PPCLI_DATA_DIR"] = str(box.root / "elsewhere")
    words = ("put", "a.bin", "--json", "--chunk-size", str(CHUNK))
    assert box.process(*words, env={**box.env, "PPCLI_TOKEN": "wrong"}).code == 3
    again = box.json("put", "a.bin")
    assert (again.code, again.result["bytes_sent"], again.result["files_unchanged"]) == (0, 0, 1)
    assert [told["action"] for told in again.of("file_completed")] == ["unchanged"]


def test_a_damaged_manifest_is_rebuilt(box: Cli) -> None:
    data = content(box, "a.bin", 40 * CHUNK)
    job = killed(box, "a.bin")
    (box.data / "jobs" / job / "manifest.json").write_bytes(b"garbage")
    ran = box.json("resume")
    assert (ran.code, ran.result["state"]) == (0, "completed")
    assert "corrupt" in {warning["code"] for warning in ran.of("warning")} | {"corrupt"}
    assert box("get", "a.bin", "-").stdout == data


def test_another_account_starts_over_and_can_cancel(box: Cli, server: ServerProcess) -> None:
    data = content(box, "a.bin", 40 * CHUNK)
    job = killed(box, "a.bin")
    other = server.add_user(f"{job}@example.org")
    ran = box.process("resume", "--json", env={**box.env, "PPCLI_TOKEN": other})
    assert (ran.code, ran.result["state"]) == (0, "completed")
    assert [warning["code"] for warning in ran.of("warning")] == ["session_lost"]
    assert box.process("get", "a.bin", "-", env={**box.env, "PPCLI_TOKEN": other}).stdout == data
    content(box, "b.bin", 40 * CHUNK)
    second = killed(box, "b.bin")
    assert box.process("cancel", second, "--yes", env={**box.env, "PPCLI_TOKEN": other}).code == 0


def test_a_wrong_digest_in_the_cache_is_found_out(box: Cli) -> None:
    """Somebody restored a backup of the data dir; the file has the same size, times and inode by chance."""
    data = content(box, "a.bin")
    put(box, "a.bin")
    assert box("rm", "a.bin").code == 0
    with contextlib.closing(sqlite3.connect(box.data / "digests.sqlite")) as cache, cache:
        assert cache.execute("UPDATE digest SET digest = ?", ("sha256:" + "0" * 64,)).rowcount == 1
    ran = box.json("put", "a.bin", "--chunk-size", str(CHUNK))
    assert ran.code == 0, ran.result
    assert box("get", "a.bin", "-").stdout == data


def test_a_token_from_stdin_is_tried(root: Path, server: ServerProcess) -> None:
    cli = Cli(root, server.url)
    ran = cli("login", "--token-stdin", stdin=b"not-a-token")
    assert ran.code == 3 and "does not accept this token" in ran.err
    assert not (cli.config / "logins.json").exists()
    assert cli("login", "--token-stdin", stdin=server.token.encode()).code == 0
    assert cli.json("ls").code == 0
    away = cli("login", "http://127.0.0.1:9", "--token-stdin", stdin=b"kept-all-the-same")
    assert away.code == 0 and "could not be tried" in away.err
