"""What a transport makes of replies: refusals as errors, redirects, tokens, certificates, proxies."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path

import httpx
import pytest
import respx
from http_kit import Bytes, Exchange, Server, message, raw, reply, serving

from ppcli.credentials import Tokens
from ppcli.errors import Credentials, Doubt, PpcliError, Rejected, Transient, Usage
from ppcli.origin import Origin, origin_of
from ppcli.transport import Reply, Request, Transport
from ppcli.transport.refusals import LONGEST_WORDS, own_words, retry_after

ORIGIN = Origin("https", "host", 443)
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def ask(server: Server, request: Request, tokens: Tokens | None = None, body: Bytes | None = None) -> Reply:
    transport = Transport(server.base, tokens)
    try:
        return transport.send(request, body)
    finally:
        transport.close()


def failure(status: int, body: bytes = b"", method: str = "PUT", **headers: str) -> Exception:
    with serving(reply(status, body, **headers)) as server, pytest.raises(Exception) as caught:
        ask(server, Request(method, "/secret-address"))
    assert "secret-address" not in str(caught.value), "a path may be one that logs must not hold"
    return caught.value


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "http_400"),
        (402, "quota"),
        (403, "forbidden"),
        (404, "not_found"),
        (409, "conflict"),
        (410, "gone"),
        (412, "http_412"),
        (413, "too_large"),
        (422, "http_422"),
        (507, "quota"),
        (305, "http_305"),
    ],
)
def test_a_refusal_is_for_good(status: int, reason: str) -> None:
    error = failure(status, b'{"detail": "no such upload."}')
    assert isinstance(error, Rejected)
    assert error.reason == reason
    assert str(status) in error.message
    assert error.message.endswith("no such upload.")
    assert error.hint.endswith(".")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 520])
def test_a_server_in_trouble_is_asked_again(status: int) -> None:
    error = failure(status, b"<html><body><h1>Bad</h1> Gateway</body></html>", retry_after="7")
    assert isinstance(error, Transient)
    assert not isinstance(error, Doubt)
    assert error.retry_after == 7
    assert error.cause.endswith("Bad Gateway")
    assert failure(status).__dict__["retry_after"] is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("1.5", 1.5),
        ("-5", 0),
        ("Sat, 01 Jan 2000 00:00:00 GMT", 0),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        ("", None),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": text}) == seconds


def test_retry_after_as_a_date_goes_by_the_clock_of_the_server() -> None:
    date = formatdate(time.time() + 90, usegmt=True)
    ours = retry_after({"retry-after": date})
    assert ours is not None
    assert 85 < ours <= 90
    assert retry_after({"retry-after": "Wed, 01 Jan 2020 00:01:30 GMT", "date": "Wed, 01 Jan 2020 00:00:00 GMT"}) == 90


def test_what_the_caller_expects_comes_back() -> None:
    for status in (401, 404, 302, 500):
        with serving(reply(status, b'{"a": 1}')) as server:
            got = ask(server, Request("GET", "/", expect=frozenset({status})))
            assert (got.status, got.json()) == (status, {"a": 1})


def test_the_words_of_a_server_are_harmless() -> None:
    assert isinstance(error := failure(404, b'{"detail": "a\\u001b[31m\\nb\\u202ec"}'), Rejected)
    assert error.message.endswith("a\\x1b[31m b\\u202ec.")
    assert isinstance(error := failure(404, b"x" * 10_000), Rejected)
    assert len(error.message) < LONGEST_WORDS + 100
    assert isinstance(error := failure(404, b"{" * 100_000, content_type="application/json"), Rejected)
    invalid = {"detail": [{"loc": ["body", "password"], "msg": "too short", "input": "hunter2"}]}
    assert isinstance(error := failure(422, json.dumps(invalid).encode()), Rejected)
    assert "body.password: too short" in error.message
    assert "hunter2" not in error.message
    assert isinstance(failure(404, b"\xff\xfe"), Rejected)


def test_a_reply_that_should_be_json_and_is_not() -> None:
    with serving(reply(200, b"<html>Sign in to the hotel's network</html>")) as server, pytest.raises(Transient):
        ask(server, Request("GET", "/")).json()


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reading_follows_within_the_origin(status: int, method: str) -> None:
    with serving(reply(status, location="../b?c=d"), reply(200)) as server:
        ask(server, Request(method, "/x/a?q"))
        assert [(heard.method, heard.path) for heard in server.heard] == [(method, "/x/a?q"), (method, "/b?c=d")]


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_writing_follows_where_the_body_may_go_again(status: int, method: str) -> None:
    body = Bytes(b"content")
    with serving(reply(status, location="/b"), reply(200)) as server:
        if status in (307, 308):
            assert ask(server, Request(method, "/a"), body=body).status == 200
            assert [heard.body for heard in server.heard] == [b"content"] * 2
        else:
            with pytest.raises(Rejected, match="/b") as caught:
                ask(server, Request(method, "/a"), body=body)
            assert caught.value.reason == "redirect"
            assert len(server.heard) == 1


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_redirect_never_takes_the_token_elsewhere(method: str) -> None:
    with serving(reply(200)) as other:
        places = [
            f"{other.base}/b?X-Amz-Signature=hidden",
            f"//127.0.0.1:{other.port}/b",
            f"http://user:hidden@127.0.0.1:{other.port}/b",
        ]
        for place in places:
            with serving(reply(307, location=place)) as server:
                tokens = Tokens(Origin.parse(server.base), lambda: "t0ken")
                with pytest.raises(Rejected) as caught:
                    ask(server, Request(method, "/a"), tokens)
            assert caught.value.reason == "redirect"
            assert f"{other.base}/b" in caught.value.hint
            assert "hidden" not in caught.value.message + caught.value.hint
        assert other.connections == 0


@pytest.mark.parametrize("place", ["", "ftp://host/", "http://[", "http://", "https://127.0.0.1/", "\x1b]0;x\x07"])
def test_redirects_to_nowhere(place: str) -> None:
    with serving(reply(302, location=place)) as server, pytest.raises(Rejected) as caught:
        ask(server, Request("PUT", "/a"))
    assert caught.value.reason == "redirect"
    assert caught.value.message.isprintable()


def test_a_redirect_names_the_place_to_use_as_the_target() -> None:
    for location, place in {
        "https://secure.example/up/api/x/secret-address?sig=hidden": "https://secure.example/up",
        "https://secure.example/api/x/secret-address": "https://secure.example",
        "https://secure.example/sign-in": "https://secure.example/sign-in",
    }.items():
        with serving(reply(301, location=location)) as server, pytest.raises(Rejected) as caught:
            ask(server, Request("POST", "/api/x/secret-address"))
        assert f"use {place} as the target" in caught.value.hint


def test_a_redirect_to_an_odd_path_is_followed_as_it_is() -> None:
    with serving(reply(302, location="/b c\xfc/%41?d e"), reply(200)) as server:
        ask(server, Request("GET", "/a"))
        assert server.heard[1].path == "/b%20c%FC/%41?d%20e"


def test_redirects_without_end() -> None:
    with serving(reply(302, location="/a")) as server:
        with pytest.raises(Rejected, match="5 times"):
            ask(server, Request("GET", "/a"))
        assert len(server.heard) == 6


# Tokens


class Source:
    """Gives one token after the other, the last one for ever; counts how often it was asked."""

    def __init__(self, *tokens: str | None) -> None:
        self.tokens, self.asked = list(tokens), 0

    def __call__(self) -> str | None:
        self.asked += 1
        return self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]


def guarded(good: str | None) -> object:
    def act(exchange: Exchange) -> None:
        exchange.read()
        right = exchange.headers.get("authorization") == f"Bearer {good}"
        told = f"expired: {exchange.headers.get('authorization')}".encode()
        exchange.send(message(200, b"in") if right else message(401, told))

    return act


def test_a_token_that_is_refused_is_renewed_once() -> None:
    source, body = Source("old", "new"), Bytes(b"content")
    with serving(guarded("new")) as server:  # type: ignore[arg-type]
        transport = Transport(server.base, Tokens(Origin.parse(server.base), source))
        assert transport.send(Request("PUT", "/a"), body).content == b"in"
        assert transport.send(Request("POST", "/a")).content == b"in"
        transport.close()
        assert [heard.headers["authorization"] for heard in server.heard] == ["Bearer old", "Bearer new", "Bearer new"]
        assert [heard.body for heard in server.heard] == [b"content", b"content", b""]
        assert source.asked == 2


def test_a_server_that_repeats_the_token_does_not_get_it_into_a_reply() -> None:
    secret = 'abc/"s3cr3t"+t0ken'
    said = json.dumps({"detail": f"Bearer {secret} is fine", "escaped": secret}).replace("/", "\\/")
    quoted = "abc%2F%22s3cr3t%22%2Bt0ken"
    answer = message(409, said.encode(), ETag=f"x-{secret}", Location=f"/next?token={quoted}")
    with serving(raw(answer)) as server:
        tokens = Tokens(Origin.parse(server.base), lambda: secret)
        got = ask(server, Request("PUT", "/a", expect=frozenset({409})), tokens)
    assert server.heard[0].headers["authorization"] == f"Bearer {secret}"
    assert got.json() == {"detail": "Bearer [hidden] is fine", "escaped": "[hidden]"}
    assert (got.headers["etag"], got.headers["location"]) == ("x-[hidden]", "/next?token=[hidden]")
    assert "s3cr3t" not in f"{got!r} {own_words(got)}"


def test_own_words_are_without_what_must_not_be_shown() -> None:
    answer = Reply(422, {}, b'{"detail": "hunter2 and hunter22 are no passwords"}')
    assert own_words(answer, "hunter2", None, "", "hunter22") == "[hidden] and [hidden] are no passwords"


@pytest.mark.parametrize("tokens", [("old",), ("old", "older")])
def test_a_token_that_stays_refused(tokens: tuple[str, ...]) -> None:
    with serving(guarded("new")) as server:  # type: ignore[arg-type]
        with pytest.raises(Credentials) as caught:
            ask(server, Request("PUT", "/a"), Tokens(Origin.parse(server.base), Source(*tokens)))
        assert caught.value.reason == "refused"
        assert f"ppcli login {server.base}" in caught.value.hint
        assert "old" not in caught.value.message.replace("[hidden]", "")
        assert len(server.heard) == len(tokens)


@pytest.mark.parametrize("tokens", [None, Source(None)])
def test_having_none_is_no_error_until_401(tokens: Source | None) -> None:
    with serving(reply(200), reply(401, b"who are you?")) as server:
        mine = Tokens(Origin.parse(server.base), tokens) if tokens else None
        assert ask(server, Request("GET", "/"), mine).status == 200
        with pytest.raises(Credentials, match="who are you") as caught:
            ask(server, Request("GET", "/"), mine)
        assert caught.value.reason == "missing"
        assert all("authorization" not in heard.headers for heard in server.heard)


def test_twenty_threads_with_an_old_token_renew_it_once() -> None:
    source = Source("old", "new", "newer")
    with serving(guarded("new")) as server, ThreadPoolExecutor(20) as pool:  # type: ignore[arg-type]
        transport = Transport(server.base, Tokens(Origin.parse(server.base), source))
        assert all(pool.map(lambda n: transport.send(Request("PUT", f"/{n}")).content == b"in", range(40)))
        transport.close()
        assert source.asked == 2


def test_a_signature_of_the_caller_replaces_the_token() -> None:
    source = Source("t0ken")
    with serving(reply(200), reply(401)) as server:
        tokens = Tokens(Origin.parse(server.base), source)
        request = Request("PUT", "/a", {"authorization": "AWS4-HMAC-SHA256 x"})
        ask(server, request, tokens)
        assert server.heard[0].headers["authorization"] == "AWS4-HMAC-SHA256 x"
        with pytest.raises(Credentials):
            ask(server, request, tokens)
        assert (source.asked, len(server.heard)) == (0, 2)


def test_an_early_401_for_a_large_body_is_answered_with_the_new_token() -> None:
    def refuse(exchange: Exchange) -> None:
        exchange.read(1)
        exchange.send(message(401, b"expired"))
        exchange.finish()  # with the body unread: a reset

    body = Bytes(bytes(16 << 20))
    with serving(refuse, reply(200)) as server:
        assert (
            ask(server, Request("PUT", "/a"), Tokens(Origin.parse(server.base), Source("a", "b")), body).status == 200
        )
        assert server.heard[1].body == body.data


def test_no_token_goes_unencrypted_to_another_machine() -> None:
    for url in ("http://uploads.example", "http://127.0.0.1.example", "http://10.0.0.1:80", "http://localhost.example"):
        transport = Transport(url, Tokens(Origin.parse(url), Source("t0ken")))
        with pytest.raises(Credentials, match="not encrypted") as caught:
            transport.send(Request("GET", "/"))
        assert "plain_http_token" in caught.value.hint
        assert "t0ken" not in caught.value.message + caught.value.hint
    for url in ("https://uploads.example", "http://127.0.0.1:8", "http://[::1]", "http://LOCALHOST"):
        assert Tokens(Origin.parse(url), Source("t0ken")).current() == "t0ken"
    assert Tokens(Origin.parse("http://nas"), Source("t0ken"), plain_http=True).current() == "t0ken"
    assert Tokens(Origin.parse("http://nas"), Source(None)).current() is None


def test_origins() -> None:
    assert str(Origin.parse("putplace+HTTPS://Uploads.Example:443/prefix")) == "https://uploads.example"
    assert str(Origin.parse("http://[::1]:8000/x")) == "http://[::1]:8000"
    assert Origin.parse("http://bücher.example").host == "xn--bcher-kva.example"
    assert Origin.parse("http://a") != Origin.parse("https://a") != Origin.parse("https://a:8443")
    for url in (
        "pads:",
        "file:///x",
        "s3://bucket",
        "http://",
        "http://a b",
        "http://a:x",
        "http://a:99999",
        "http://[",
    ):
        assert origin_of(url) is None, url
    with pytest.raises(Usage):
        Transport("http://a b")


# Certificates


def test_tls_with_an_authority_of_ones_own(
    certificate: Path, secure: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    big = bytes(range(256)) * (1 << 15)

    def echo(exchange: Exchange) -> None:
        exchange.send(message(200, exchange.read()))

    with serving(echo, context=secure) as server:
        transport = Transport(server.base)
        for _ in range(2):
            assert transport.send(Request("PUT", "/"), Bytes(big)).content == big
        transport.close()
        assert server.connections == 1


def test_a_server_that_speaks_plain_http_is_told_as_one() -> None:
    def plain() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(1 << 16)
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as server:
        server.submit(plain)
        with pytest.raises(Transient) as caught:
            Transport(f"https://127.0.0.1:{listener.getsockname()[1]}").send(Request("GET", "/"))
    assert "plain http?" in caught.value.cause


def test_an_early_refusal_over_tls(certificate: Path, secure: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    def refuse(exchange: Exchange) -> None:
        exchange.read(1)
        exchange.send(message(413, b"too much"))
        exchange.left()
        exchange.finish()

    with serving(refuse, context=secure) as server, pytest.raises(Rejected, match="too much"):
        ask(server, Request("PUT", "/"), body=Bytes(bytes(16 << 20)))


def test_an_untrusted_certificate_is_refused(
    certificate: Path, secure: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with serving(reply(200), context=secure) as server:
        with pytest.raises(Rejected) as caught:
            ask(server, Request("PUT", "/"), Tokens(Origin.parse(server.base), Source("t0ken")))
        assert caught.value.reason == "tls"
        assert "SSL_CERT_FILE" in caught.value.hint
        assert server.heard == []


def test_tls_where_there_is_none(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def babble(exchange: Exchange) -> None:
        raise AssertionError("a TLS hello is no request")

    with serving(babble) as server:
        transport = Transport(f"https://127.0.0.1:{server.port}")
        server.acts[0] = raw(b"")
        closing = ThreadPoolExecutor(1)
        call = closing.submit(transport.send, Request("PUT", "/"))
        while not server.connections:
            time.sleep(0.01)
        server.close()
        with pytest.raises(Transient) as caught:
            call.result(15)
        assert not isinstance(caught.value, Doubt)
        closing.shutdown()
        transport.close()


def test_a_file_of_certificates_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (None, b"garbage"):
        path = tmp_path / "authorities.pem"
        if content is not None:
            path.write_bytes(content)
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        with pytest.raises(Usage, match="SSL_CERT_FILE"):
            Transport("https://host")


# Proxies


def via(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_a_proxy_is_used_and_exceptions_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(reply(200, b"direct")) as server, serving(reply(200, b"proxied")) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            with monkeypatch.context() as local:
                via(local, **{name: proxy.base.replace("//", "//me:pass@")})
                assert ask(server, Request("GET", "/a?b")).content == b"proxied"
                assert proxy.heard[-1].path == f"{server.base}/a?b"
                assert proxy.heard[-1].headers["proxy-authorization"].startswith("Basic ")
                assert proxy.heard[-1].headers["host"] == f"127.0.0.1:{server.port}"
                for exception in ("127.0.0.1", "example.org, 127.0.0.1", "*"):
                    via(local, NO_PROXY=exception)
                    assert ask(server, Request("GET", "/")).content == b"direct"
        via(monkeypatch, HTTPS_PROXY=proxy.base)
        assert ask(server, Request("GET", "/")).content == b"direct"


def test_a_token_for_loopback_does_not_go_to_a_proxy_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(reply(200)) as server, serving(reply(200)) as proxy:
        via(monkeypatch, HTTP_PROXY="http://proxy.example:3128")
        with pytest.raises(Credentials, match="not encrypted"):
            ask(server, Request("GET", "/"), Tokens(Origin.parse(server.base), Source("t0ken")))
        via(monkeypatch, HTTP_PROXY=proxy.base)
        ask(server, Request("GET", "/"), Tokens(Origin.parse(server.base), Source("t0ken")))
        assert proxy.heard[0].headers["authorization"] == "Bearer t0ken"


@respx.mock
def test_what_goes_to_a_proxy_is_what_goes_to_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    via(monkeypatch, HTTPS_PROXY="http://proxy.example:3128")
    route = respx.put("https://uploads.example/chunk/1?a=b").mock(
        side_effect=[httpx.Response(401), httpx.Response(200, json={"etag": "x"}, headers={"X-Thing": "y"})]
    )
    transport = Transport("https://uploads.example", Tokens(Origin.parse("https://uploads.example"), Source("a", "b")))
    got = transport.send(Request("PUT", "/chunk/1?a=b", {"Content-Type": "x/y"}), Bytes(b"content"))
    assert (got.json(), got.headers["x-thing"]) == ({"etag": "x"}, "y")
    sent = route.calls.last.request
    assert sent.content == b"content"
    assert dict(sent.headers) == {
        "host": "uploads.example",
        "accept-encoding": "identity",
        "user-agent": dict(sent.headers)["user-agent"],
        "content-length": "7",
        "content-type": "x/y",
        "authorization": "Bearer b",
    }
    transport.close()


@respx.mock
@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (httpx.ConnectError("refused"), Transient),
        (httpx.ConnectTimeout("slow"), Transient),
        (httpx.ReadTimeout("slow"), Doubt),
        (httpx.WriteError("cut"), Doubt),
        (httpx.RemoteProtocolError("cut"), Doubt),
        (httpx.ProxyError("502 Bad Gateway"), Transient),
        (httpx.ProxyError("407 Proxy Authentication Required"), Rejected),
    ],
)
def test_failures_through_a_proxy(raised: Exception, error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    via(monkeypatch, HTTPS_PROXY="http://me:hunter2@proxy.example:3128")
    respx.put("https://uploads.example/").mock(side_effect=raised)
    transport = Transport("https://uploads.example")
    with pytest.raises(error) as caught:
        transport.send(Request("PUT", "/"))
    assert type(caught.value) is error
    assert "hunter2" not in str(caught.value)
    transport.close()


@pytest.mark.parametrize("proxy", ["socks9://x", "ftp://x", "http://me:hunter2@["])
def test_a_proxy_that_cannot_be_used(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    via(monkeypatch, HTTP_PROXY=proxy)
    with pytest.raises(PpcliError) as caught:
        Transport("http://uploads.example")
    assert isinstance(caught.value, Usage)
    assert "hunter2" not in caught.value.message


def test_httpx_is_imported_only_for_a_proxy() -> None:
    code = (
        "import sys, ppcli.transport as t; t.Transport('http://127.0.0.1:9').close(); sys.exit('httpx' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
