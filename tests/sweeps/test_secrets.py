"""No token, password or secret key is in anything that is shown, kept or listed; everything kept is private; and the
log of a job says what support needs, and no more."""

from __future__ import annotations

import json
import os
import random
import re
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_kit import CHUNK, Cli, finish, make_cli, until
from http_kit import Exchange, message, serving
from s3_kit import KEYS

from ppcli.app import log
from ppcli.app.log import JobLog
from ppcli.events import WarningRaised
from ppcli.pads import key

TOKEN, SECRET = "t0ken-of-somebody-7f3a", "wJalrXUtnFEMI+K7MDENG/bPxRfiCYEXAMPLEKEY"


def parrot(status: int) -> Callable[[Exchange], None]:
    """A server that fails, and repeats whatever it was told."""

    def act(exchange: Exchange) -> None:
        body = exchange.read()
        heard = exchange.headers.get("authorization", "")
        said = f'{{"detail": "{heard}"}}'.encode() if b"{" not in body[:1] else b'{"detail": ' + body + b"}"
        exchange.send(message(status, said, content_type="application/json", location=f"/x?token={heard[7:]}"))

    return act


def everything(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
@pytest.mark.parametrize(
    "to", ["http://{}", "tus+http://{}/files/", "rufh+http://{}/files", "s3://box?endpoint=http://{}&region=x"]
)
def test_a_failing_server_that_repeats_everything(root: Path, to: str, status: int) -> None:
    with serving(parrot(status)) as server:
        cli = Cli(root, to.format(f"127.0.0.1:{server.port}"))
        cli.env |= {**KEYS, "AWS_SECRET_ACCESS_KEY": SECRET, "PPCLI_TOKEN": TOKEN}
        cli.source("a.bin")
        told = b""
        for words in (
            ("put", "a.bin", "--retries", "1"),
            ("resume",),
            ("status", "--all"),
            ("ls",),
            ("get", "a.bin", "b"),
        ):
            if status >= 500 and words[0] in ("ls", "get"):
                continue  # they ask again and again, for half a minute
            for mode in (("-v", "--json"), ("-v",)):
                ran = cli(*words, *mode)
                assert ran.code in (0, 2, 3, 5, 9, 75), ran.err
                told += ran.stdout + ran.err.encode()
    for place, data in {**everything(root), "the output": told}.items():
        assert TOKEN.encode() not in data and SECRET.encode() not in data, place


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_the_process_list_tells_no_secret(root: Path) -> None:
    """A token from a file and one from a command; neither is an argument of any process."""

    def slow(exchange: Exchange) -> None:
        exchange.read()
        exchange.left()

    with serving(slow) as server:
        cli = Cli(root, f"http://127.0.0.1:{server.port}")
        (root / "token").write_text(TOKEN)
        cli.env["PPCLI_TOKEN_FILE"] = str(root / "token")
        cli.source("a.bin")
        process = cli.start("put", "a.bin")
        until(lambda: server.heard)
        assert server.heard[0].headers["authorization"] == f"Bearer {TOKEN}"
        listed = b"".join(_arguments(path) for path in Path("/proc").glob("[0-9]*/cmdline"))
        process.terminate()
        assert finish(process).code == 143
    assert b"put\0a.bin" in listed and TOKEN.encode() not in listed


def _arguments(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_the_user_key_is_in_its_one_file(root: Path) -> None:
    """Nor is a pad's secret, which is made from it, anywhere."""
    cli, told = Cli(root, "pads:"), b""
    cli.source("a.bin")
    for words in (("put", "a.bin", "--chunk-size", str(CHUNK)), ("status", "--all"), ("ls",), ("pads", "recover")):
        for mode in (("-v", "--json"), ("-v",)):
            ran = cli(*words, *mode)
            assert ran.code == 0, ran.err
            told += ran.stdout + ran.err.encode()
    known = key.load(cli.config)
    store = bytes.fromhex(json.loads((cli.data / "pads" / "store.json").read_text())["id"])
    assert known is not None
    secrets = [known.value, *(known.pad(store, number).secret for number in range(10))]
    for place, data in {**everything(root), "the output": told}.items():
        found = [secret for secret in secrets if secret in data or secret.hex().encode() in data.lower()]
        assert found == ([known.value] if place == str(cli.config / key.KEY_FILE) else []), place


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_whatever_the_umask_what_is_kept_is_private(root: Path, umask: int) -> None:
    cli = make_cli(root, "file")
    cli.source("a.bin")
    before = os.umask(umask)
    try:
        assert cli("put", "a.bin", "missing").code == 10
        assert cli("put", "a.bin", "--to", "pads:", "--chunk-size", str(CHUNK)).code == 0
        assert cli("put", "-", "--name", "x", stdin=b"spooled").code == 0
    finally:
        os.umask(before)
    for path in (cli.data, cli.config, *cli.data.rglob("*"), *cli.config.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), (path, oct(mode))


# The log of a job


def log_of(cli: Cli) -> str:
    (path,) = cli.data.glob("jobs/*/log")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return path.read_text()


def test_the_log_says_what_support_needs(root: Path) -> None:
    """Which program and system, what was asked for, every retry with its cause, how it ended; then the next run."""
    with serving(parrot(503)) as server:
        cli = Cli(root, f"tus+http://127.0.0.1:{server.port}/files/")
        cli.env["PPCLI_TOKEN"] = TOKEN
        cli.source("a.bin")
        assert cli("put", "a.bin", "--retries", "1").code == 75
        job = cli.json("status").of("job")[0]["job"]
        assert cli("resume", job).code == 75
    written = log_of(cli)
    runs = re.findall(r"ppcli \d+\.\d+\S*, Python \d+\.\d+\S*, \S+", written)
    assert len(runs) == 2
    for words in (
        f'job_started {{"target":"{cli.to}","files":1',
        'stopped {"kind":"temporary","reason":"retries"',
        "503",
    ):
        assert words in written, words
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \d+ ", line) for line in written.splitlines()), written
    assert TOKEN not in written


def test_the_log_tells_of_retries_and_signals(root: Path) -> None:
    """A run that is stopped while it waits for its next attempt."""

    def busy(exchange: Exchange) -> None:
        exchange.read()
        known = exchange.method == "OPTIONS"
        exchange.send(message(204 if known else 503, b"" if known else b"so tired", retry_after="30"))

    with serving(busy) as server:
        cli = Cli(root, f"rufh+http://127.0.0.1:{server.port}/files")
        cli.source("a.bin")
        process = cli.start("put", "a.bin")
        until(lambda: any(one.method == "POST" for one in server.heard) and "retrying" in log_of(cli))
        process.terminate()
        assert finish(process).code == 143
    written = log_of(cli)
    assert re.search(
        r'retrying {"name":"a.bin","chunk":null,"step":"open","attempt":1,"delay":\S+,"cause":"[^"]*503[^"]*so tired',
        written,
    )
    assert 'stopped {"kind":"interrupted"' in written and '"exit_code":143' in written


def test_the_log_rotates_and_stays_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf:
        def hear(self, event: object) -> None: ...
        def tick(self) -> None: ...

    monkeypatch.setattr(log, "_SIZE", 2000)
    written = JobLog(tmp_path, Deaf())
    before = os.umask(0)
    for number in range(200):
        written.hear(WarningRaised("j", "code", f"{number} {random.Random(number).randbytes(20).hex()}"))
    os.umask(before)
    written.close()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["log", "log.1"]
    assert all(
        path.stat().st_size <= 2000 and stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir()
    )
    assert "199 " in (tmp_path / "log").read_text()
