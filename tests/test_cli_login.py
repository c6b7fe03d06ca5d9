"""`ppcli login` and `logout` as a person and as a script meet them, against a server that gives tokens."""

from __future__ import annotations

import json
import os
import pty
import select
import stat
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cli_kit import Cli
from http_kit import Exchange, Server, message, serving

from ppcli import targets
from ppcli.errors import Credentials
from ppcli.origin import Origin
from ppcli.targets import Settings
from ppcli.transport import Request

PASSWORD, TOKEN = "correct h0rse", "s3cr3t-t0ken"


class Stub:
    """A target that gives tokens, and is nothing else."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.url = url
        self._http = settings.http(str(Origin.parse(url)))

    def login(self, email: str, password: str) -> str:
        request = Request.json("POST", "/login", {"email": email, "password": password}, expect={401})
        reply = self._http.send(request)
        if reply.status == 401:
            raise Credentials("The e-mail address or the password is wrong.", hint="Try again.", reason="refused")
        return str(reply.json()["token"])

    def notices(self) -> list[object]:
        return []

    def close(self) -> None:
        pass


class NoAccounts(Stub):
    login = None  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def _schemes(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme, target in (("stub+http", Stub), ("plain+http", NoAccounts)):
        module = types.ModuleType(f"ppcli_{scheme}")
        module.connect = target  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(targets.SCHEMES, scheme, module.__name__)  # type: ignore[arg-type]


def accounts(exchange: Exchange) -> None:
    asked = json.loads(exchange.read())
    right = asked == {"email": "me@example.org", "password": PASSWORD}
    exchange.send(message(200, json.dumps({"token": TOKEN}).encode()) if right else message(401, b"{}"))


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(accounts) as running:
        yield running


@pytest.fixture
def cli(root: Path, server: Server) -> Cli:
    return Cli(root, f"stub+{server.base}")


def answers(monkeypatch: pytest.MonkeyPatch, *given: str) -> list[tuple[str, bool]]:
    """Be a terminal with somebody who answers."""
    left, asked = list(given), []

    def prompt(question: str, hidden: bool) -> str | None:
        asked.append((question, hidden))
        return left.pop(0)

    monkeypatch.setattr("ppcli.cli.login.make_prompt", lambda _options: prompt)
    return asked


def kept(cli: Cli) -> dict[str, str]:
    path = cli.config / "logins.json"
    if not path.exists():
        return {}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    tokens: dict[str, str] = json.loads(path.read_text())["tokens"]
    return tokens


def test_a_login_is_kept_and_forgotten(cli: Cli, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, "me@example.org", PASSWORD)
    ran = cli("login")
    told = f"ppcli: Logged in to {server.base}; the token is kept in {cli.config / 'logins.json'}.\n"
    assert (ran.code, ran.stdout, ran.err) == (0, b"", told)
    assert [hidden for _, hidden in asked] == [False, True]
    assert "me@example.org" in asked[1][0]
    assert kept(cli) == {server.base: TOKEN}
    ran = cli("logout")
    assert (ran.code, ran.stdout, kept(cli)) == (0, b"", {})
    assert ran.err.startswith(f"ppcli: Logged out of {server.base};")
    ran = cli("logout", f"http://127.0.0.1:{server.port}/any/path")
    assert (ran.code, ran.stdout, ran.err) == (0, b"", f"ppcli: There was no login to {server.base}.\n")


def test_the_email_as_an_option_and_the_target_by_name(
    cli: Cli, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli.config.mkdir()
    (cli.config / "config.toml").write_text(f'[targets.work]\nurl = "stub+{server.base}"\ntoken_command = "false"\n')
    asked = answers(monkeypatch, PASSWORD)
    ran = cli.json("login", "work", "--email", "me@example.org")
    assert (ran.code, [event["event"] for event in ran.events]) == (0, ["result"])
    assert ran.result["target"] == f"stub+{server.base}"
    assert [hidden for _, hidden in asked] == [True]
    assert kept(cli) == {server.base: TOKEN}
    assert "authorization" not in server.heard[0].headers
    assert cli.json("logout", "work").stdout.count(b"\n") == 1


def test_a_wrong_password(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "hunter2", "hunter2")
    told = cli.refuses(3, "credentials", "refused", "login", "--email", "me@example.org", env={"PPCLI_TOKEN": "old"})
    assert "hunter2" not in told
    assert kept(cli) == {}


def test_a_server_that_is_tired(cli: Cli, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def tired(exchange: Exchange) -> None:
        exchange.read()
        exchange.send(message(429, b"too many", retry_after="900"))

    answers(monkeypatch, *[PASSWORD] * 2)
    server.acts[0] = tired
    told = cli.refuses(75, "temporary", "retry_after", "login", "--email", "me@example.org")
    assert "too many" in told
    assert PASSWORD not in told
    assert "resume" not in told


def test_no_password_goes_over_plain_http_to_another_machine(
    cli: Cli, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answers(monkeypatch)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        cli.env.pop(name, None)
    told = cli.refuses(3, "credentials", "plain_http", "login", "stub+http://nas.example", "--email", "me@example.org")
    assert "plain_http_token" in told and "not encrypted" in told
    by_proxy = {"HTTP_PROXY": "http://proxy.example:3128"}
    told = cli.refuses(3, "credentials", "plain_http", "login", "--email", "me@example.org", env=by_proxy)
    assert server.base in told
    assert asked == [] and server.heard == [] and kept(cli) == {}
    assert cli("login", "stub+http://nas.example", "--token-stdin", stdin=TOKEN.encode()).code == 0, "nothing is sent"


def test_plain_http_can_be_allowed_for_a_login(cli: Cli, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.config.mkdir()
    allowed = f'[targets.nas]\nurl = "stub+{server.base}"\nplain_http_token = true\n'
    (cli.config / "config.toml").write_text(allowed)
    monkeypatch.setattr("ppcli.transport.routes.leaves_the_machine", lambda _origin: True)
    answers(monkeypatch, PASSWORD)
    assert cli("login", "nas", "--email", "me@example.org").code == 0
    assert kept(cli) == {server.base: TOKEN}


def test_nobody_there_to_ask(cli: Cli) -> None:
    assert "--email" in cli.refuses(2, "usage", "prompt", "login")
    assert "--token-stdin" in cli.refuses(2, "usage", "prompt", "login", "--email", "me@example.org")


def test_a_token_from_stdin(cli: Cli, server: Server) -> None:
    for scheme in ("stub", "plain"):
        ran = cli("login", f"{scheme}+{server.base}", "--token-stdin", stdin=f"{TOKEN}\n".encode())
        assert (ran.code, ran.stdout, kept(cli)) == (0, b"", {server.base: TOKEN})
        assert TOKEN not in ran.err
        assert cli("logout").code == 0
    assert server.heard == []
    for bad, code in ((b"", 2), (b" \n", 2), (f"{TOKEN} {TOKEN}".encode(), 3), (b"\xff\xfe", 3)):
        for more in ((), ("--json",)):
            ran = cli("login", "--token-stdin", *more, stdin=bad)
            assert (ran.code, kept(cli)) == (code, {}), ran.err
            assert TOKEN.encode() not in ran.stdout + ran.err.encode()
    assert cli("login", "--token-stdin", "--email", "e", stdin=TOKEN.encode()).code == 2


def test_a_login_that_the_environment_hides_says_so(cli: Cli, server: Server) -> None:
    ran = cli("login", "--token-stdin", stdin=TOKEN.encode(), env={"PPCLI_TOKEN": "other"})
    assert "PPCLI_TOKEN or PPCLI_TOKEN_FILE is set" in ran.err


def test_targets_without_logins(cli: Cli, server: Server) -> None:
    for place in ("pads:", "file:///x", "./x"):
        assert "needs no login" in cli.refuses(2, "usage", "target", "login", place)
        assert "needs no login" in cli.refuses(2, "usage", "target", "logout", place)
        assert cli("login", place, "--token-stdin", stdin=TOKEN.encode()).code == 2
    assert "--token-stdin" in cli.refuses(2, "usage", "unsupported", "login", f"plain+{server.base}")
    assert "Known schemes" in cli.refuses(2, "usage", None, "login", "gopher+http://host")
    assert kept(cli) == {}


def test_a_damaged_store(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.config.mkdir()
    (cli.config / "logins.json").write_text("{")
    cli.refuses(3, "credentials", "damaged", "logout")
    answers(monkeypatch, PASSWORD)
    assert cli("login", "--email", "me@example.org").code == 0
    assert list(kept(cli).values()) == [TOKEN]


def test_the_password_is_not_shown_on_the_terminal(root: Path) -> None:
    """The real prompts, on a terminal of their own; `http:` is a target of its own accord."""
    with serving(refuse_all) as server:
        cli = Cli(root, server.base)
        terminal, theirs = pty.openpty()
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "start_new_session": True}
        with cli.start("login", server.base, **streams) as process:
            os.close(theirs)
            try:
                shown = converse(terminal, [("E-mail", b"me@example.org\n"), ("Password", PASSWORD.encode() + b"\n")])
                code = process.wait(20)
            finally:
                process.kill()
                os.close(terminal)
        assert "me@example.org" in shown
        assert PASSWORD not in shown
        assert code == 3, shown
        assert any(PASSWORD.encode() in heard.body for heard in server.heard)
        assert all(urlsplit(heard.path).query == "" for heard in server.heard)


def refuse_all(exchange: Exchange) -> None:
    exchange.read()
    exchange.send(message(401, b'{"detail": "Incorrect email or password"}'))


def converse(terminal: int, steps: list[tuple[str, bytes]]) -> str:
    """Answer each prompt when it is there; gives all that was shown."""
    shown, at = "", 0
    while True:
        ready, _, _ = select.select([terminal], [], [], 20)
        assert ready, shown
        try:
            data = os.read(terminal, 4096)
        except OSError:  # Linux says so when the other side is gone
            data = b""
        if not data:
            return shown
        shown += data.decode()
        if at < len(steps) and steps[at][0] in shown:
            os.write(terminal, steps[at][1])
            at += 1
