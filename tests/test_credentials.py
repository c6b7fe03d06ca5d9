"""Tokens, the login store, and what config.toml says about a target: a token goes to its origin and shows nowhere."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cli_kit import NOBODY, ROOT
from http_kit import reply, serving

from ppcli import config, credentials
from ppcli.app.transports import Transports
from ppcli.credentials import Source, Tokens, from_command, from_environment, from_file
from ppcli.errors import Credentials, Local, Usage
from ppcli.logins import Logins
from ppcli.origin import Origin
from ppcli.transport import Request

HOST = Origin.parse("https://host")
SECRET = "s3cr3t-t0ken"


def told(error: Credentials) -> str:
    text = f"{error.message} {error.hint} {error!r}"
    assert SECRET not in text
    assert error.message.endswith(".")
    return text


# Sources


def test_the_environment() -> None:
    assert from_environment({"PPCLI_TOKEN": f" {SECRET}\n"})() == SECRET
    assert from_environment({"PPCLI_TOKEN": ""})() is None
    assert from_environment({})() is None
    for bad in (f"{SECRET} more", f"{SECRET}\r\nX: y", f"{SECRET}ü", f"{SECRET}\0"):
        with pytest.raises(Credentials) as caught:
            from_environment({"PPCLI_TOKEN": bad})()
        assert "PPCLI_TOKEN" in told(caught.value)


def test_a_token_file_is_read_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "token"
    source = from_file({"PPCLI_TOKEN_FILE": str(path)})
    assert from_file({})() is None
    for content, token in ((b"one\n", "one"), (b"\n two ", "two")):
        path.write_bytes(content)
        assert source() == token
    for content in (b"", b" \n", f"{SECRET} {SECRET}".encode(), b"\xff\xfe", b"x" * 100_000):
        path.write_bytes(content)
        with pytest.raises(Credentials) as caught:
            source()
        assert str(path) in told(caught.value)
    path.unlink()
    for name in (str(path), str(tmp_path), "a\0b"):
        with pytest.raises(Credentials) as caught:
            from_file({"PPCLI_TOKEN_FILE": name})()
        assert caught.value.reason == "token_file"


def python(code: str) -> Source:
    return from_command([sys.executable, "-c", code, SECRET])


def test_a_command_prints_the_token() -> None:
    assert python(f"print('{SECRET}')")() == SECRET


@pytest.mark.parametrize(
    ("code", "how"),
    [
        (f"import sys; sys.exit('{SECRET}')", "exit code 1"),
        (f"print('{SECRET}'); raise SystemExit(7)", "exit code 7"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9"),
        ("pass", "printed nothing"),
        (f"print('{SECRET}', '{SECRET}')", "is not a token"),
        ("import sys; sys.stdin.read() == '' and sys.exit(3)", "exit code 3"),
    ],
)
def test_a_command_that_fails_is_named_and_not_quoted(code: str, how: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Credentials) as caught:
        python(code)()
    assert how in told(caught.value)
    assert Path(sys.executable).name in caught.value.message
    assert capfd.readouterr() == ("", "")


def test_a_command_that_hangs_or_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "COMMAND_TIMEOUT", 0.2)
    with pytest.raises(Credentials, match="did not end"):
        python("input() if False else __import__('time').sleep(60)")()
    with pytest.raises(Credentials, match="no-such-program"):
        from_command(["/nowhere/no-such-program", SECRET])()


# Tokens


def test_the_first_source_that_has_one_counts() -> None:
    asked: list[str] = []

    def source(name: str, token: str | None) -> Source:
        def read() -> str | None:
            asked.append(name)
            return token

        return read

    tokens = Tokens(HOST, source("a", None), source("b", "token"), source("c", "other"))
    assert [tokens.current(), tokens.current()] == ["token", "token"]
    assert asked == ["a", "b"]
    assert tokens.refresh("token") is None, "another identity must not be taken in silence"
    assert SECRET not in repr(Tokens(HOST, lambda: SECRET))


def test_refreshing_asks_once_for_each_token() -> None:
    given = iter(["one", "two", "two", "three"])
    asked = []

    def source() -> str:
        asked.append(1)
        return next(given)

    tokens = Tokens(HOST, source)
    gate = threading.Barrier(8)

    def late(_number: int) -> str | None:
        gate.wait(10)
        return tokens.refresh("one")

    assert tokens.current() == "one"
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(late, range(8))) == {"two"}
        assert (len(asked), tokens.current()) == (2, "two")
        gate.reset()
    assert tokens.refresh("one") == "two"
    assert [tokens.refresh("two") for _ in range(3)] == [None, None, None]
    assert len(asked) == 3


def test_a_source_that_fails_is_not_asked_by_every_thread() -> None:
    asked = []

    def source() -> str:
        asked.append(1)
        if len(asked) > 1:
            raise Credentials("The command failed.", hint="Look.", reason="token_command")
        return "one"

    tokens = Tokens(HOST, source)
    assert tokens.current() == "one"
    for _ in range(3):
        with pytest.raises(Credentials, match="failed") as caught:
            tokens.refresh("one")
        assert caught.value.reason == "token_command"
    assert len(asked) == 2


# The login store


def test_logins_are_kept_apart_and_private(tmp_path: Path) -> None:
    logins, other = Logins(tmp_path / "new" / "config"), Origin.parse("https://host:8443")
    old = os.umask(0)
    try:
        logins.save(HOST, SECRET)
    finally:
        os.umask(old)
    logins.save(other, "second")
    logins.save(HOST, "first")
    assert (logins.find(HOST), logins.find(other)) == ("first", "second")
    assert logins.find(Origin.parse("http://host")) is None
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in logins.path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(logins.path.parent.stat().st_mode) == 0o700
    assert SECRET not in logins.path.read_text()
    assert logins.forget(HOST)
    assert not logins.forget(HOST)
    assert (logins.find(HOST), logins.find(other)) == (None, "second")


def test_logins_at_once_lose_nothing(tmp_path: Path) -> None:
    origins = [Origin.parse(f"https://host{number}") for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda origin: Logins(tmp_path).save(origin, origin.host), origins))
    assert [Logins(tmp_path).find(origin) for origin in origins] == [origin.host for origin in origins]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b"\xff", b'{"format": "ppcli-logins/1", "tokens": {"a": 1}}']
)
def test_a_damaged_store_is_told_and_the_next_login_mends_it(tmp_path: Path, content: bytes) -> None:
    logins = Logins(tmp_path)
    logins.path.write_bytes(content)
    for use in (logins.find, logins.forget):
        with pytest.raises(Credentials, match="damaged"):
            use(HOST)
    logins.save(HOST, "token")
    assert logins.find(HOST) == "token"
    kept = [path for path in tmp_path.iterdir() if "corrupt" in path.name]
    assert [path.read_bytes() for path in kept] == [content]


def test_a_store_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    logins = Logins(tmp_path)
    logins.path.mkdir()
    with pytest.raises(Local):
        logins.find(HOST)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Local):
        Logins(tmp_path / "file").save(HOST, "x")
    if ROOT:
        tmp_path.chmod(0o755)
        os.seteuid(NOBODY)
    else:
        tmp_path.chmod(0o500)
    try:
        with pytest.raises(Local):
            Logins(tmp_path / "sub").save(HOST, "x")
    finally:
        if ROOT:
            os.seteuid(0)
        tmp_path.chmod(0o700)


# config.toml


def load(directory: Path, text: str) -> config.Config:
    (directory / "config.toml").write_text(text)
    return config.load(directory)


def test_the_tables_of_targets(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        """
        [server]
        anything = 1
        [targets.a]
        url = "https://host/prefix"
        token_command = "pass show 'my uploads'"
        [targets.b]
        url = "putplace+https://host/other"
        token_command = ["pass", "show", "other"]
        [targets.c]
        url = "http://nas:8000"
        plain_http_token = true
        """,
    )
    a, b, c = found.targets.values()
    assert a.token_command == ("pass", "show", "my uploads")
    assert (b.token_command, b.plain_http_token) == (("pass", "show", "other"), False)
    assert found.table_for(HOST) is a
    assert found.table_for(HOST, "https://host/x") is a
    assert found.table_for(HOST, "putplace+https://host/other") is b
    assert found.table_for(Origin.parse("http://nas:8000")) is c
    assert found.table_for(Origin.parse("http://nas")) is None
    assert found.table_for(Origin.parse("http://host")) is None
    assert found.place("b", {}).url == b.url
    assert "my uploads" not in repr(found)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("defualt_target = 'x'", "defualt_target"),
        ("[target.x]\nurl = 'pads:'", "target"),
        ("[targets.x]\nurl = 'https://h'\ntoken_comand = 's3cr3t-t0ken'", "token_comand"),
        ("[targets.x]\nurl = 'https://h'\ntoken_command = 3", "token_command"),
        ("[targets.x]\nurl = 'https://h'\ntoken_command = ''", "token_command"),
        ("[targets.x]\nurl = 'https://h'\ntoken_command = []", "token_command"),
        ("[targets.x]\nurl = 'https://h'\ntoken_command = ['s3cr3t-t0ken', 1]", "token_command"),
        ("[targets.x]\nurl = 'https://h'\ntoken_command = \"s3cr3t-t0ken '\"", "token_command"),
        ("[targets.x]\nurl = 'https://h'\nplain_http_token = 'yes'", "plain_http_token"),
    ],
)
def test_a_mistyped_key_is_no_success(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(Usage) as caught:
        load(tmp_path, text)
    assert caught.value.reason == "config"
    assert named in caught.value.message
    assert SECRET not in caught.value.message + caught.value.hint


# All together


def sent(transports: Transports, *bases: str) -> None:
    for base in bases:
        transports.get(base).send(Request("GET", "/"))


def test_the_token_of_the_environment_goes_to_the_chosen_target_only(tmp_path: Path) -> None:
    with serving(reply(200)) as one, serving(reply(200)) as two:
        for environ, choose, owner in (
            ({}, [], None),
            ({"PPCLI_TARGET": two.base}, [], two),
            ({"PPCLI_TARGET": two.base}, [one.base], two),
            ({"PPCLI_TARGET": "nonsense"}, [one.base], None),
            ({"PPCLI_TARGET": "./here"}, [one.base], one),
            ({}, [f"putplace+{two.base}/prefix"], two),
            ({}, [one.base, two.base], None),
            ({}, [one.base, f"putplace+{one.base}/x", "pads:"], one),
            ({}, ["pads:"], None),
        ):
            transports = Transports(config.Config(), tmp_path, {**environ, "PPCLI_TOKEN": SECRET})
            transports.choose(*choose)
            sent(transports, one.base, two.base)
            transports.close()
            for server in (one, two):
                assert ("authorization" in server.heard[-1].headers) == (server is owner), (environ, choose)


def test_each_origin_has_its_own_transport_and_token(tmp_path: Path) -> None:
    Logins(tmp_path).save(Origin.parse("https://elsewhere"), SECRET)
    with serving(reply(200)) as one, serving(reply(200)) as two:
        Logins(tmp_path).save(Origin.parse(two.base), "kept")
        command = (sys.executable, "-c", "print('made')")
        tables = {"t": config.TargetTable(f"putplace+{one.base}/x", command)}
        transports = Transports(config.Config(targets=tables), tmp_path, {})
        assert transports.get(one.base) is transports.get(f"{one.base}/")
        sent(transports, one.base, two.base)
        transports.close()
        assert [server.heard[0].headers["authorization"] for server in (one, two)] == ["Bearer made", "Bearer kept"]
        with pytest.raises(Usage):
            transports.get("http://a b")


def test_plain_http_needs_the_word_of_the_table(tmp_path: Path) -> None:
    tables = {"nas": config.TargetTable("http://nas.example", plain_http_token=True)}
    environ = {"PPCLI_TOKEN": SECRET}
    allowed = Transports(config.Config(targets=tables), tmp_path, environ)
    assert allowed._tokens(Origin.parse("http://nas.example"), None).current() is None  # not chosen
    allowed.choose("http://nas.example")
    assert allowed._tokens(Origin.parse("http://nas.example"), None).current() == SECRET
    refused = Transports(config.Config(), tmp_path, environ)
    refused.choose("http://nas.example")
    with pytest.raises(Credentials) as caught:
        refused.get("http://nas.example").send(Request("GET", "/"))
    assert "plain_http_token" in told(caught.value)


def test_the_default_target_counts_after_what_the_command_is_about(tmp_path: Path) -> None:
    settings = config.Config(default_target="https://default.example")
    default, other = Origin.parse("https://default.example"), Origin.parse("https://other.example")
    transports = Transports(settings, tmp_path, {"PPCLI_TOKEN": SECRET})
    assert [transports._tokens(origin, None).current() for origin in (default, other)] == [SECRET, None]
    assert transports.choose(str(other)) == ()
    assert [transports._tokens(origin, None).current() for origin in (default, other)] == [None, SECRET]
    assert transports.choose(str(default)) == [str(default), str(other)]
    assert [transports._tokens(origin, None).current() for origin in (default, other)] == [None, None]
    assert transports.choose(str(default)) == (), "told once"


def test_the_table_of_a_place_is_found_however_its_url_is_written() -> None:
    tables = {
        "a": config.TargetTable("https://host/a?hostname=x", ("a",)),
        "b": config.TargetTable("putplace+https://HOST:443/b/?hostname=y%20z", ("b",)),
        "c": config.TargetTable("putplace+https://host/b/?hostname=other", ("c",)),
    }
    settings = config.Config(targets=tables)

    def command(url: str | None) -> tuple[str, ...]:
        table = settings.table_for(HOST, url)
        return table.token_command if table else ()

    assert command("https://host/b?hostname=y+z") == ("b",)
    assert command("putplace+https://host/b?hostname=other") == ("c",)
    assert command("putplace+https://host/a/?hostname=x") == command(None) == command("https://host/new") == ("a",)
    assert settings.table_for(Origin.parse("https://elsewhere"), "https://host/a") is None


def test_the_store_is_readable_by_people(tmp_path: Path) -> None:
    Logins(tmp_path).save(HOST, "x")
    assert json.loads(Logins(tmp_path).path.read_text()) == {
        "format": "ppcli-logins/1",
        "tokens": {"https://host": "x"},
    }
