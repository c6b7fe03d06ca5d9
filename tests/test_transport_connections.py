"""Connections that break, stall, end early or come back stale: nothing is called a success that is none, nothing that
may have acted is sent twice unasked, and what the server managed to say is heard."""

from __future__ import annotations

import gc
import json
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from http_kit import Act, Bytes, Exchange, Server, hang_up, message, raw, reply, reset_after, serving, silent

from ppcli.errors import Doubt, Rejected, SourceError, Transient
from ppcli.halt import Stopped
from ppcli.origin import Origin
from ppcli.target import PIECE
from ppcli.transport import Reply, Request, Transport, tls
from ppcli.transport import transport as transport_module
from ppcli.transport.proxied import Proxied

BIG = bytes(range(256)) * (1 << 16)  # 16 MiB: more than any socket buffer takes
OK = message(200, b"{}")

Open = Callable[[Server], Transport]


def _direct(server: Server) -> Transport:
    return Transport(server.base)


def _httpx(server: Server) -> Transport:
    made = Transport(server.base)
    made._engine = Proxied(Origin.parse(server.base), None, tls.context(), 8)
    return made


@contextmanager
def talking(*acts: Act, by: Open = _direct) -> Iterator[tuple[Transport, Server]]:
    with serving(*acts) as server:
        transport = by(server)
        try:
            yield transport, server
        finally:
            transport.close()


both = pytest.mark.parametrize("by", [_direct, _httpx])


def get(transport: Transport, path: str = "/", **more: float) -> Reply:
    return transport.send(Request("GET", path, **more))  # type: ignore[arg-type]


@both
@pytest.mark.parametrize("size", [0, 1, 4096, 1 << 16, PIECE, len(BIG)])
def test_a_body_arrives_whole(by: Open, size: int) -> None:
    with talking(reply(200, b"{}"), by=by) as (transport, server):
        for _ in range(2):
            assert transport.send(Request("PUT", "/x?a=b"), Bytes(BIG[:size])).status == 200
        assert [heard.body == BIG[:size] for heard in server.heard] == [True, True]
        assert server.heard[0].headers["content-length"] == str(size)
        assert server.heard[0].path == "/x?a=b"
        assert server.connections == 1, "the connection was not kept"


@both
def test_what_every_request_says(by: Open) -> None:
    from ppcli import __version__

    with talking(reply(200, b"{}"), by=by) as (transport, server):
        transport.send(Request.json("POST", "/x", {"n": "ü"}))
        get(transport)
        posted, got = server.heard
        assert json.loads(posted.body) == {"n": "ü"}
        assert posted.headers["content-type"] == "application/json"
        assert posted.headers["host"] == f"127.0.0.1:{server.port}"
        assert posted.headers["user-agent"] == f"ppcli/{__version__}"
        assert posted.headers["accept-encoding"] == "identity"
        assert "content-length" not in got.headers
        assert "authorization" not in got.headers


def refuse_early(data: bytes, *, how: str) -> Act:
    """Answer when the head is there, and read no body."""

    def act(exchange: Exchange) -> None:
        exchange.read(1)
        exchange.send(data)
        if how == "fin":
            exchange.finish()  # with unread bytes, which makes it an RST
        elif how == "rst":
            exchange.reset()
        else:
            exchange.sock.shutdown(socket.SHUT_WR) if how == "half" else None
            stop.wait(10)
            exchange.finish()

    stop = threading.Event()
    act.stop = stop  # type: ignore[attr-defined]
    return act


@pytest.mark.parametrize("how", ["stall", "half", "fin"])
def test_a_refusal_while_we_still_send_is_heard(how: str) -> None:
    act = refuse_early(message(413, b'{"detail": "at most 10 MiB"}'), how=how)
    with talking(act) as (transport, _):
        try:
            with pytest.raises(Rejected, match="at most 10 MiB") as caught:
                transport.send(Request("PUT", "/x", patience=5), Bytes(BIG))
            assert caught.value.reason == "too_large"
        finally:
            act.stop.set()  # type: ignore[attr-defined]


def test_a_connection_with_an_unsent_rest_is_not_used_again() -> None:
    act = refuse_early(message(413), how="stall")
    with talking(act, reply(200)) as (transport, server):
        with pytest.raises(Rejected):
            transport.send(Request("PUT", "/x"), Bytes(BIG))
        act.stop.set()  # type: ignore[attr-defined]
        assert get(transport).status == 200
        assert server.connections == 2


def test_a_success_that_comes_early_does_not_cut_the_body() -> None:
    def act(exchange: Exchange) -> None:
        exchange.send(message(200, b"yes"))
        exchange.read()

    with talking(act) as (transport, server):
        assert transport.send(Request("PUT", "/x"), Bytes(BIG)).content == b"yes"
        assert get(transport).status == 200  # answered in turn: by then all was read
        assert server.heard[0].body == BIG


def test_interim_replies_are_passed_over() -> None:
    def act(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        exchange.read(PIECE * 5)
        exchange.send(b"HTTP/1.1 104 Upload Resumption\r\nUpload-Offset: 5\r\n\r\nHTTP/1.1 10")
        exchange.read()
        exchange.send(b"3 Early Hints\r\n\r\n" + OK)

    with talking(act) as (transport, server):
        assert transport.send(Request("PUT", "/x"), Bytes(BIG)).content == b"{}"
        assert server.heard[0].body == BIG


@both
@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE", "GET"])
@pytest.mark.parametrize("act", [hang_up, reset_after(0)], ids=["fin", "rst"])
def test_a_lost_reply_is_a_doubt_where_something_may_have_happened(by: Open, method: str, act: Act) -> None:
    with talking(act, by=by) as (transport, server):
        with pytest.raises(Transient) as caught:
            transport.send(Request(method, "/x"))
        assert isinstance(caught.value, Doubt) == (method != "GET")
        assert f"127.0.0.1:{server.port}" in caught.value.cause
        assert len(server.heard) == 1


@pytest.mark.parametrize("size", [1, 100_000, 5 * PIECE])
def test_a_reset_within_the_body_is_a_doubt(size: int) -> None:
    with talking(reset_after(size)) as (transport, server), pytest.raises(Doubt):
        transport.send(Request("PUT", "/x"), Bytes(BIG))
    assert server.connections == 1


CUT = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123",
    "no last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
    "head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "status line": b"HTT",
}


@both
@pytest.mark.parametrize("data", CUT.values(), ids=CUT.keys())
def test_a_truncated_reply_is_no_reply(by: Open, data: bytes) -> None:
    with talking(raw(data, end=True), by=by) as (transport, _):
        with pytest.raises(Doubt):
            transport.send(Request("POST", "/x"))
        with pytest.raises(Transient) as caught:
            get(transport)
        assert not isinstance(caught.value, Doubt)


NOT_HTTP = (
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\x15\x03\x01\x00\x02\x02P",
    b"HTTP/2.0 200 OK\r\n\r\n",
    b"HTTP/1.1 abc\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n12345\r\n0\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000,
)


@pytest.mark.parametrize("data", NOT_HTTP, ids=range(len(NOT_HTTP)))
def test_what_is_no_http_is_transient(data: bytes) -> None:
    with talking(raw(data, end=True)) as (transport, _), pytest.raises(Transient):
        get(transport)


BODIES = {
    "length": b"Content-Length: 10\r\n\r\n0123456789",
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n3;ext=1\r\n012\r\n7\r\n3456789\r\n0\r\nTrailer: x\r\n\r\n",
    "until close": b"Connection: close\r\n\r\n0123456789",
}


@both
@pytest.mark.parametrize("data", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_every_framing_at_every_pace(by: Open, data: bytes, step: int) -> None:
    def act(exchange: Exchange) -> None:
        sent = b"HTTP/1.1 200 OK\r\n" + data
        for at in range(0, len(sent), step):
            exchange.send(sent[at : at + step])
        exchange.closing = b"close" in data

    with talking(act, by=by) as (transport, server):
        assert [get(transport).content for _ in range(2)] == [b"0123456789"] * 2
        assert server.connections == (2 if b"close" in data else 1)


@both
def test_replies_without_a_body(by: Open) -> None:
    acts = [
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
        raw(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        reply(200, b"last"),
    ]
    with talking(*acts, by=by) as (transport, server):
        assert transport.send(Request("HEAD", "/x")).headers["content-length"] == "1000"
        assert transport.send(Request("DELETE", "/x")).status == 204
        assert transport.send(Request("GET", "/x", expect=frozenset({304}))).status == 304
        assert get(transport).content == b"last"
        assert server.connections == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "POST"])
def test_a_connection_that_the_server_closed_meanwhile_is_not_used(method: str) -> None:
    gone = threading.Event()

    def act(exchange: Exchange) -> None:
        exchange.read()
        exchange.send(OK)
        exchange.sock.shutdown(socket.SHUT_RDWR)
        gone.set()
        exchange.finish()

    with talking(act, reply(200)) as (transport, server):
        get(transport)
        assert gone.wait(5)
        assert transport.send(Request(method, "/x", content=b"x")).status == 200
        assert len(server.heard) == 2


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_close_that_meets_a_repeatable_request_is_mended_once(method: str) -> None:
    body = Bytes(b"x" * 1000)
    with talking(reply(200), hang_up, reply(200)) as (transport, server):
        get(transport)
        assert transport.send(Request(method, "/x"), body if method == "PUT" else None).status == 200
        assert [heard.connection for heard in server.heard] == [0, 0, 1]
        assert body.iterations == (2 if method == "PUT" else 0)
    with talking(reply(200), hang_up, hang_up) as (transport, server):
        get(transport)
        with pytest.raises(Transient):
            transport.send(Request(method, "/x"))
        assert len(server.heard) == 3


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_close_that_meets_another_request_is_a_doubt(method: str) -> None:
    with talking(reply(200), hang_up) as (transport, server):
        get(transport)
        with pytest.raises(Doubt):
            transport.send(Request(method, "/x"))
        assert len(server.heard) == 2


def test_a_request_with_half_a_reply_is_not_sent_again() -> None:
    with talking(reply(200), raw(CUT["head"], end=True)) as (transport, server):
        get(transport)
        with pytest.raises(Doubt):
            transport.send(Request("PUT", "/x"))
        assert len(server.heard) == 2


def test_an_old_idle_connection_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from ppcli.transport import connection

    with talking(reply(200)) as (transport, server):
        get(transport)
        monkeypatch.setattr(connection, "IDLE", -1.0)
        get(transport)
        assert server.connections == 2


@both
def test_silence_ends_the_attempt_and_its_connection(by: Open) -> None:
    left = threading.Event()

    def act(exchange: Exchange) -> None:
        silent(exchange)
        left.set()

    with talking(act, by=by) as (transport, server):
        with pytest.raises(Doubt, match=r"0\.2 seconds"):
            transport.send(Request("PUT", "/x", patience=0.2), Bytes(b"x" * 10))
        assert left.wait(5), "the connection was left open"
        assert len(server.heard) == 1


def test_a_server_that_takes_nothing_ends_the_attempt() -> None:
    stop = threading.Event()

    def act(exchange: Exchange) -> None:
        stop.wait(10)
        exchange.finish()

    with talking(act) as (transport, _):
        try:
            with pytest.raises(Doubt):
                transport.send(Request("PUT", "/x", patience=0.2), Bytes(BIG))
        finally:
            stop.set()


def test_a_trickle_is_no_silence() -> None:
    data = message(200, b"0123456789")

    def act(exchange: Exchange) -> None:
        for at in range(0, len(data), 4):
            exchange.send(data[at : at + 4])
            time.sleep(0.1)

    with talking(act) as (transport, _):
        started = time.monotonic()
        assert get(transport, patience=0.7).content == b"0123456789"
        assert time.monotonic() - started > 0.7


@both
@pytest.mark.parametrize("failure", [Stopped(), SourceError("gone"), OSError("disk"), KeyboardInterrupt()], ids=repr)
def test_what_a_body_raises_passes_through_and_closes_the_connection(by: Open, failure: BaseException) -> None:
    left = threading.Event()

    def act(exchange: Exchange) -> None:
        exchange.left()
        left.set()
        exchange.finish()

    with talking(reply(200), act, reply(200), by=by) as (transport, server):
        get(transport)
        with pytest.raises(type(failure)) as caught:
            transport.send(Request("PUT", "/x"), Bytes(b"x" * 5, failure=failure))
        assert caught.value is failure
        assert left.wait(5)
        assert get(transport).status == 200
        assert [heard.connection for heard in server.heard] == [0, 0, 1]


def test_nobody_there_is_transient_and_names_the_host() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    transport = Transport(f"http://127.0.0.1:{port}")
    with pytest.raises(Transient, match=f"127.0.0.1:{port}") as caught:
        transport.send(Request("POST", "/x"))
    assert not isinstance(caught.value, Doubt)


def test_a_name_that_is_not_found_says_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_args: object, **_more: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Transient, match=r"uploads\.example.*DNS") as caught:
        Transport("https://uploads.example").send(Request("PUT", "/x"))
    assert not isinstance(caught.value, Doubt)


def test_a_stream_gives_pieces_and_its_connection_back() -> None:
    with talking(reply(200, BIG)) as (transport, server):
        for _ in range(2):
            with transport.stream(Request("GET", "/big")) as stream:
                assert (stream.status, stream.headers["content-length"]) == (200, str(len(BIG)))
                pieces = [bytes(piece) for piece in stream.pieces()]
            assert b"".join(pieces) == BIG
            assert max(map(len, pieces)) <= PIECE
        assert server.connections == 1
        with transport.stream(Request("GET", "/big")) as stream:
            next(stream.pieces())
        assert get(transport).content == BIG
        assert server.connections == 2


@both
def test_a_stream_that_is_cut_says_so(by: Open) -> None:
    with talking(raw(CUT["length"], end=True), reply(404, b"{}"), by=by) as (transport, _):
        with transport.stream(Request("GET", "/")) as stream, pytest.raises(Transient):
            list(stream.pieces())
        with pytest.raises(Rejected), transport.stream(Request("GET", "/")):
            raise AssertionError("a refusal is no stream")


def test_closing_ends_what_is_under_way() -> None:
    waiting = threading.Event()

    def act(exchange: Exchange) -> None:
        exchange.read()
        waiting.set()
        exchange.left()
        exchange.finish()

    with talking(act) as (transport, _), ThreadPoolExecutor(1) as pool:
        call = pool.submit(transport.send, Request("PUT", "/x"), Bytes(b"x"))
        assert waiting.wait(5)
        transport.close()
        with pytest.raises(Doubt):
            call.result(5)
        with pytest.raises(Transient):
            get(transport)


def test_twenty_threads_get_their_own_replies() -> None:
    def echo(exchange: Exchange) -> None:
        exchange.read()
        exchange.send(message(200, exchange.path.encode() + exchange.body))

    def talk(number: int) -> bool:
        answers = [transport.send(Request("PUT", f"/{number}/{i}"), Bytes(b"x" * i)) for i in range(30)]
        return [answer.content for answer in answers] == [f"/{number}/{i}".encode() + b"x" * i for i in range(30)]

    with talking(echo) as (transport, server), ThreadPoolExecutor(20) as pool:
        assert all(pool.map(talk, range(20)))
        assert server.connections <= 20


def test_a_reply_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "REPLY_MAX", 1000)
    with talking(reply(200, b"x" * 1000), reply(200, b"x" * 1001)) as (transport, _):
        assert len(get(transport).content) == 1000
        with pytest.raises(Rejected):
            get(transport)


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "x", "/ü", "/\x00"])
def test_a_path_cannot_add_headers(path: str) -> None:
    with talking(reply(200)) as (transport, server):
        with pytest.raises(ValueError):
            get(transport, path)
        with pytest.raises(ValueError):
            transport.send(Request("GET", "/", {"X": f"y{path}\n"}))
        assert server.heard == []


@pytest.mark.parametrize("told", [3, 10])
def test_a_body_of_another_length_is_never_sent_as_whole(told: int) -> None:
    class Other(Bytes):
        @property
        def size(self) -> int:
            return told

    with talking(reply(200)) as (transport, server):
        with pytest.raises(ValueError):
            transport.send(Request("PUT", "/x"), Other(b"12345", piece=2))
        transport.close()
        whole = [heard.body for heard in server.heard if len(heard.body) == told]
        assert b"12345"[:told] not in whole


def test_connections_that_nobody_closed_are_closed_before_the_collector_finds_them() -> None:
    """Sockets that are left to the collector warn, and it may come to them before it comes to what holds them."""

    def leave() -> None:
        transport = Transport(server.base)
        cycle: list[object] = [transport]
        cycle.append(cycle)
        gc.collect(0)  # what is older comes later
        get(transport)

    with serving(reply(200)) as server:
        gc.collect()
        gc.disable()
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                leave()
                gc.collect()
        finally:
            gc.enable()
    assert not [str(one.message) for one in caught]
