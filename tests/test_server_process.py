"""The command `ppcli serve` as a process: what it prints, how it ends, and what it refuses to do."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from cli_kit import Cli, Ran, finish, until
from server_kit import running_server, sha256


@pytest.fixture
def cli(root: Path) -> Cli:
    return Cli(root, "pads:")


def started(cli: Cli, *words: str) -> tuple[subprocess.Popen[bytes], str]:
    """A server that listens, and the first line of its stdout."""
    process = cli.start("serve", "--port", "0", *words)
    assert process.stdout is not None
    return process, process.stdout.readline().decode().strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_the_normal_end(root: Path, number: signal.Signals) -> None:
    with running_server(root, fresh=True) as server:
        result = server.stop(number)
        assert (result["event"], result["ok"], result["exit_code"]) == ("result", True, 0)
        assert [event["event"] for event in server.events] == ["token", "serving"]
        serving = server.events[1]
        assert serving["url"] == f"http://127.0.0.1:{serving['port']}"
        assert (serving["data"], serving["host"]) == (str(server.data), "127.0.0.1")
        assert server.stderr == ""


def test_plain_output_is_the_url_and_the_token_is_told_once(cli: Cli) -> None:
    for first in (True, False):
        process, url = started(cli, *([] if first else ["--quiet"]))
        assert url.startswith("http://127.0.0.1:")
        process.terminate()
        ran = finish(process)
        assert (ran.code, ran.stdout) == (0, b"")
        token = [line for line in ran.err.splitlines() if "the token of owner@localhost" in line]
        assert len(token) == first
        assert (f"serving {cli.data / 'server'} at {url}" in ran.err) == first
    assert stat_of(cli.config / "logins.json") == 0o600


def stat_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_requests_in_flight_are_finished_before_the_end(root: Path) -> None:
    data = bytes(2000)
    with running_server(root) as server:
        upload_id = server.initiate(data, 2000).json["upload_id"]
        connection = server.connect()
        with closing(connection):
            connection.putrequest("PUT", f"/api/uploads/{upload_id}/chunk/0")
            connection.putheader("Authorization", f"Bearer {server.token}")
            connection.putheader("Content-Length", "2000")
            connection.endheaders()
            connection.send(data[:1000])
            assert server.call("GET", "/health").status == 200  # so the request above is being served
            os.kill(server.pid, signal.SIGTERM)
            until(lambda: _refused(server.port))
            connection.send(data[1000:])
            response = connection.getresponse()
            assert (response.status, json.loads(response.read())["etag"]) == (200, sha256(data))
        server.stop()
        server.start()
        assert len(server.call("GET", f"/api/uploads/{upload_id}").json["received"]) == 1


def _refused(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return False
    except OSError:
        return True


@pytest.mark.parametrize("path", ["/api/uploads/{session}/chunk/0", "/storage/upload"])
def test_a_client_that_leaves_in_the_middle_is_no_bug(root: Path, path: str) -> None:
    with running_server(root) as server:
        session = server.initiate(bytes(2000), 2000).json["upload_id"]
        with closing(server.connect()) as connection:
            connection.putrequest("POST" if "storage" in path else "PUT", path.format(session=session))
            connection.putheader("Authorization", f"Bearer {server.token}")
            connection.putheader("Content-Type", "multipart/form-data; boundary=b")
            connection.putheader("Content-Length", "2000")
            connection.endheaders()
            connection.send(b"x")
            assert server.call("GET", "/health").status == 200
        server.stop()
        assert "Traceback" not in server.stderr + (server.data / "server.log").read_text()


def test_a_client_that_hangs_does_not_hold_the_end_up(root: Path) -> None:
    with running_server(root) as server:
        upload_id = server.initiate(bytes(2000), 2000).json["upload_id"]
        connection = server.connect()
        with closing(connection):
            connection.putrequest("PUT", f"/api/uploads/{upload_id}/chunk/0")
            connection.putheader("Authorization", f"Bearer {server.token}")
            connection.putheader("Content-Length", "2000")
            connection.endheaders()
            connection.send(b"x")
            assert server.call("GET", "/health").status == 200
            result = server.stop()  # waits for less than ENDING
            assert result["elapsed"] > 4


def test_a_second_signal_ends_it_at_once(root: Path) -> None:
    with running_server(root, fresh=True) as server:
        connection = socket.create_connection(("127.0.0.1", server.port))
        with closing(connection):
            connection.sendall(
                b"POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
            )
            assert server.call("GET", "/health").status == 200
            stopping = threading.Timer(1.0, os.kill, (server.pid, signal.SIGINT))
            stopping.start()
            result = server.stop()
            stopping.join()
        assert result["exit_code"] == 0


def test_one_data_dir_has_one_server(root: Path) -> None:
    with running_server(root) as server:
        ran = server.run("serve", "--json", "--port", "0", "--data", str(server.data))
        result = json.loads(ran.stdout.splitlines()[-1])
        assert (ran.returncode, result["error"]["kind"], result["error"]["reason"]) == (7, "busy", "locked")
        assert f"process {server.pid}" in result["error"]["message"]
        assert server.call("GET", "/health").status == 200


def test_a_port_that_is_taken(cli: Cli, root: Path) -> None:
    with running_server(root) as server:
        told = cli.refuses(11, "local", "address", "serve", "--port", str(server.port))
    assert "--port" in told


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_no_listening_beyond_this_computer_without_tls(cli: Cli, host: str) -> None:
    told = cli.refuses(2, "usage", "tls", "serve", "--host", host)
    assert "--insecure" in told
    assert not (cli.data / "server").exists()


def test_insecure_has_to_be_said(cli: Cli) -> None:
    process, url = started(cli, "--host", "0.0.0.0", "--insecure")
    port = int(url.rpartition(":")[2])
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    process.terminate()
    assert finish(process).code == 0


def test_bad_certificates_are_usage_errors(cli: Cli, root: Path) -> None:
    for name in ("CERTIFICATE", "PRIVATE KEY", "ENCRYPTED PRIVATE KEY"):
        (root / f"{name.split()[0]}.pem").write_text(f"-----BEGIN {name}-----\nAAAA\n-----END {name}-----\n")
    (root / "none.pem").write_text("no certificate\n")
    for words, told in (
        ("--certfile none.pem", "none.pem holds no certificate (PEM). Name its file with --certfile."),
        ("--certfile missing.pem", "missing.pem cannot be read: No such file or directory. Check --certfile."),
        (
            "--certfile CERTIFICATE.pem",
            "CERTIFICATE.pem holds no private key (PEM). Name the file of the certificate's",
        ),
        ("--certfile CERTIFICATE.pem --keyfile missing.pem", "Check --keyfile."),
        ("--certfile CERTIFICATE.pem --keyfile none.pem", "none.pem holds no private key"),
        ("--certfile CERTIFICATE.pem --keyfile ENCRYPTED.pem", "ENCRYPTED.pem is encrypted. Decrypt it: openssl pkey"),
        ("--certfile CERTIFICATE.pem --keyfile PRIVATE.pem", "The certificate cannot be used: "),
        ("--keyfile PRIVATE.pem", "--keyfile needs --certfile."),
    ):
        assert told in cli.refuses(2, "usage", "tls", "serve", "--port", "0", *words.split())


@pytest.mark.parametrize(
    "words",
    [
        ("--port", "-1"),
        ("--port", "65536"),
        ("--password-stdin",),
        ("--add-user", "a@b.c", "--new-token"),
        ("extra",),
    ],
)
def test_command_lines_that_make_no_sense(cli: Cli, words: tuple[str, ...]) -> None:
    assert cli("serve", *words).code == 2
    assert cli("serve", *words, "--json").result["error"]["kind"] == "usage"


@pytest.mark.parametrize("table", ["[server]\nchunk_maximum = 5\n", "[serevr]\nquota = 5\n"])
def test_limits_that_make_no_sense(cli: Cli, table: str) -> None:
    cli.config.mkdir()
    (cli.config / "config.toml").write_text(table)
    cli.refuses(2, "usage", "config", "serve", "--port", "0")


def test_users_and_tokens_from_the_command_line(cli: Cli) -> None:
    assert cli("serve", "--new-token").stdout.strip()
    assert cli.json("serve", "--new-token").of("token")[0]["user"] == "owner@localhost"
    added = cli("serve", "--add-user", "You@example.org", "--password-stdin", stdin=b"long enough\n")
    assert (added.code, added.stdout) == (0, b"you@example.org\n")
    made = cli("serve", "--new-token", "you@example.org")
    assert (made.code, len(made.stdout.strip())) == (0, 43)
    cli.refuses(9, "not_found", None, "serve", "--new-token", "nobody@example.org")
    assert "there is no terminal" in cli.refuses(2, "usage", "password", "serve", "--add-user", "a@b.c").lower()


@pytest.mark.parametrize(("email", "password"), [("nobody", b"long enough"), ("a@b.c", b"short"), ("", b"long enough")])
def test_users_that_cannot_be(cli: Cli, email: str, password: bytes) -> None:
    ran: Ran = cli("serve", "--add-user", email, "--password-stdin", "--json", stdin=password)
    assert ran.code == 2


def test_a_data_dir_that_cannot_be_used(cli: Cli, root: Path) -> None:
    (root / "file").write_text("")
    assert cli("serve", "--port", "0", "--data", "file").code == 11
    (root / "no-log" / "server.log").mkdir(parents=True)
    assert cli("serve", "--port", "0", "--data", "no-log").code == 11
    (root / "broken").mkdir()
    (root / "broken" / "server.sqlite3").write_bytes(b"no database at all, but long enough to be looked at" * 50)
    assert cli("serve", "--port", "0", "--data", "broken").code == 8
    assert (root / "broken" / "server.sqlite3").read_bytes().startswith(b"no database"), "nothing is thrown away"


def test_without_the_extra_it_says_what_to_install(cli: Cli, root: Path) -> None:
    (root / "none").mkdir()
    (root / "none" / "fastapi.py").write_text("raise ImportError('no fastapi', name='fastapi')\n")
    env = cli.env | {"PYTHONPATH": f"{root / 'none'}{os.pathsep}{cli.env['PYTHONPATH']}"}
    ran = subprocess.run(
        [sys.executable, "-m", "ppcli", "serve"], env=env, capture_output=True, text=True, cwd=root, check=False
    )
    assert ran.returncode == 2
    assert "pip install '.[server]'" in ran.stderr
    assert len(ran.stderr.splitlines()) == 2
    made = subprocess.run(
        [sys.executable, "-m", "ppcli", "serve", "--new-token"],
        env=env,
        capture_output=True,
        text=True,
        cwd=root,
        check=False,
    )
    assert made.returncode == 0, made.stderr


def test_a_real_client_finds_its_token(root: Path) -> None:
    """The one path that matters: start a server, and `put` to it, with nothing configured."""
    with running_server(root) as server:
        (root / "a.bin").write_bytes(os.urandom(100_000))
        ran = server.run("put", str(root / "a.bin"), "--to", server.url, "--chunk-size", "8KiB")
        if b"Known" in ran.stderr or b"unknown" in ran.stderr.lower():
            pytest.skip("the client is not there yet")
        assert ran.returncode == 0, ran.stderr
        assert [entry["filepath"] for entry in server.call("GET", "/api/my_files").json] == ["a.bin"]


def test_the_login_follows_the_server_to_other_names_and_ports(root: Path) -> None:
    with running_server(root) as server:
        cli = Cli(root, f"http://localhost:{server.port}")
        cli.env["PPCLI_CONFIG_DIR"] = str(server.config)
        assert cli.json("ls").code == 0, "it has two names"
        server.stop()
        server.port = 0
        server.start()
        for name in ("127.0.0.1", "localhost"):
            assert cli.json("ls", "--to", f"http://{name}:{server.port}").code == 0
        assert [event["event"] for event in server.events].count("token") == 1


def test_a_login_of_another_server_does_not_follow(root: Path) -> None:
    """The same config dir and two data dirs: each server's token is for itself."""
    with running_server(root) as first, running_server(root, None, "--data", str(root / "other")) as second:
        logins = json.loads((second.config / "logins.json").read_text())["tokens"]
        assert logins[first.url] == first.token != second.token == logins[second.url]
        second.restart()
        assert json.loads((second.config / "logins.json").read_text())["tokens"] == logins


def test_tokens_are_listed_and_ended_one_by_one(root: Path) -> None:
    with running_server(root) as server:
        cli = Cli(root, server.url)
        cli.env["PPCLI_CONFIG_DIR"] = str(server.config)
        words = ("serve", "--data", str(server.data))
        (made,) = cli.json(*words, "--new-token").of("token")
        listed = cli.json(*words, "--tokens").of("token_listed")
        assert [(one["user"], one["expires"]) for one in listed] == [("owner@localhost", None)] * 2
        assert made["id"] == listed[1]["id"]
        assert made["token"] not in cli(*words, "--tokens").stdout.decode()
        assert cli(*words, "--revoke-token", made["id"][:6]).stdout.decode().strip() == made["id"]
        assert server.call("GET", "/api/limits", token=made["token"]).status == 401
        assert server.call("GET", "/api/limits").status == 200
        cli.refuses(9, "not_found", "token", *words, "--revoke-token", made["id"])
        cli.refuses(9, "not_found", "token", *words, "--revoke-token", "")
        cli.refuses(2, "usage", None, *words, "--revoke-token", "a", "--tokens")


def test_a_server_keeps_its_promises_across_restarts(root: Path) -> None:
    data = bytes(3000)
    with running_server(root) as server:
        upload_id = server.initiate(data, 1024).json["upload_id"]
        for number in range(3):
            server.put(upload_id, number, data[number * 1024 :][:1024])
            server.restart()
        assert server.complete(upload_id).status == 200
        server.restart()
        assert server.complete(upload_id).status == 200
        assert server.call("GET", f"/api/files/{sha256(data)}/content").body == data


def test_the_log_holds_no_token_and_is_private(root: Path) -> None:
    with running_server(root, {}, "--verbose") as server:
        server.call("GET", "/api/my_files?prefix=x")
        server.stop()
        log = (server.data / "server.log").read_text()
        assert "/api/my_files" in log
        assert server.token not in log + server.stderr
        assert stat_of(server.data / "server.log") == 0o600
