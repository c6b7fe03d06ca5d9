"""The pads of `ppcli serve`, call by call: what is held, what is refused, and what a kill leaves."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import xxhash
from cli_kit import fast_directory, until
from pads_client import SIZE, PadsClient
from server_kit import ServerProcess, running_server

from ppcli.pads import header
from ppcli.pads.header import Header
from ppcli.pads.key import UserKey

DATA = b"payload" * 100


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with fast_directory() as root, running_server(root) as running:
        yield running


@pytest.fixture
def client(server: ServerProcess, request: pytest.FixtureRequest) -> PadsClient:
    """A store of its own."""
    made = PadsClient(server, key=UserKey(xxhash.xxh3_128_digest(request.node.name.encode()) * 2))
    assert made.make().status == 200
    return made


def test_a_pad_is_reserved_written_confirmed_and_read(client: PadsClient) -> None:
    assert client.heads(0, 1) == [None, None]
    assert client.reserve(0, 1).json == {"new": 2}
    assert client.reserve(0, 1, 2).json == {"new": 1}, "once more is fine"
    assert client.heads(0, 3) == ["", None]
    assert client.read(0).status == 404
    reply = client.write(0, DATA, counter=7)
    assert reply.status == 200
    assert reply.json == {"counter": 7, "length": len(DATA), "digest": xxhash.xxh3_128_hexdigest(DATA)}
    (head,) = client.heads(0)
    assert isinstance(head, Header) and (head.counter, head.length) == (7, len(DATA))
    confirmed = client.confirm(0, len(DATA)).json
    assert confirmed["digest"] == xxhash.xxh3_128_hexdigest(DATA)
    assert client.confirm(0, 10).json["digest"] == xxhash.xxh3_128_hexdigest(DATA[:10])
    assert client.payload(0) == DATA
    start = header.SIZE + 100
    part = client.read(0, Range=f"bytes={start}-{start + 9}")
    assert (part.status, part.body) == (206, DATA[100:110])
    assert client.store("GET").json["pads"] == 3


def test_confirm_reads_what_is_on_the_disk(client: PadsClient, server: ServerProcess) -> None:
    client.reserve(0)
    assert client.write(0, DATA).status == 200
    for path in (server.data / "pads").rglob("*"):
        if path.is_file() and path.read_bytes().endswith(DATA) and client.pad(0).address not in str(path):
            raw = bytearray(path.read_bytes())
            raw[-1] ^= 1
            path.write_bytes(bytes(raw))
    assert client.confirm(0, len(DATA)).json["digest"] != xxhash.xxh3_128_hexdigest(DATA)


@pytest.mark.parametrize("payload", [b"", b"x", bytes(SIZE)])
def test_sizes(client: PadsClient, payload: bytes) -> None:
    client.reserve(0)
    assert client.write(0, payload).status == 200
    assert client.payload(0) == payload


def test_what_does_not_fit_is_refused_and_leaves_the_pad_as_it_was(client: PadsClient) -> None:
    client.reserve(0, 1)
    assert client.write(0, DATA, counter=7).status == 200
    assert client.write(0, bytes(SIZE + 1), counter=8).status == 413
    assert client.write(0, b"other", counter=8, digest=bytes(16)).status == 400
    assert client.write(0, b"other", counter=8, length=4).status == 400
    assert client.write(0, b"other", counter=8, pad_size=SIZE * 2).status == 400
    assert client.send(0, b"other" + client.head(1, b"other", 8)).status == 400, "the header of another pad"
    assert client.send(0, b"short").status == 400
    (head,) = client.heads(0)
    assert isinstance(head, Header) and head.counter == 7
    assert client.payload(0) == DATA


def test_the_counter_only_rises(client: PadsClient) -> None:
    client.reserve(0)
    assert client.write(0, DATA, counter=7).status == 200
    for counter in (7, 6):
        refused = client.write(0, b"other", counter=counter)
        assert (refused.status, refused.headers["pad-counter"]) == (409, "7")
    assert client.erase(0, counter=7).status == 409
    assert client.payload(0) == DATA
    assert client.write(0, b"other", counter=8).status == 200
    assert client.payload(0) == b"other"


def test_an_erased_pad_holds_nothing_and_lets_no_late_copy_in(client: PadsClient) -> None:
    client.reserve(0)
    client.write(0, DATA, counter=7)
    assert client.erase(0, counter=9).json == {"erased": 1}
    assert client.payload(0) == b""
    assert client.write(0, DATA, counter=8).status == 409
    assert client.erase(5, counter=9).json == {"erased": 0}, "one that is not there is no error"


def test_a_wrong_secret_opens_nothing(client: PadsClient) -> None:
    client.reserve(0)
    assert client.write(1, DATA).status == 404, "nobody reserved it"
    assert client.heads(0) == [""]


def test_pads_belong_to_a_user(client: PadsClient, server: ServerProcess) -> None:
    client.reserve(0)
    client.write(0, DATA, counter=7)
    other = PadsClient(server, server.add_user("other@example.org"), client.key)
    assert other.store("GET").status == 404
    assert other.make().status == 200
    other.store_id = client.store_id  # the same key, and the same pads
    assert other.reserve(0).status == 403
    assert other.write(0, b"other", counter=9).status == 403
    assert other.read(0).status == 404 == other.confirm(0, 1).status
    assert other.heads(0) == [None]
    assert other.erase(0, counter=9).status == 403
    assert client.payload(0) == DATA
    other.token = "nobody"
    assert other.read(0).status == 401


def test_only_the_index_that_counts_may_write(client: PadsClient) -> None:
    client.reserve(0, seq=5)
    client.write(0, DATA, counter=7)
    old, new = client.index, "2" * 32
    assert client.store("POST", "/index", {"index": new, "instead_of": "3" * 32}).status == 412
    for _ in range(2):  # its reply may have been lost
        taken = client.store("POST", "/index", {"index": new, "instead_of": old})
        assert (taken.status, taken.json["seq"], taken.json["pads"]) == (200, 5, 1)
    assert client.write(0, b"late", counter=8).status == 412
    assert client.reserve(1).status == 412 == client.erase(0, counter=9).status
    assert client.payload(0) == DATA, "reading is free"
    client.index = new
    assert client.write(0, b"new", counter=8).status == 200


def test_a_write_under_way_reaches_no_pad_once_another_index_counts(client: PadsClient, server: ServerProcess) -> None:
    client.reserve(0)
    client.write(0, DATA, counter=7)
    late = b"late" * 500 + client.head(0, b"late" * 500, counter=99)
    incoming = server.data / "pads" / "incoming"
    with contextlib.closing(server.connect()) as connection:
        connection.putrequest("PUT", "/api/pads/content")
        for name, value in {
            "Authorization": f"Bearer {server.token}",
            "Pad-Secret": client.pad(0).secret.hex(),
            "Pad-Index": client.index,
            "Content-Length": str(len(late)),
        }.items():
            connection.putheader(name, value)
        connection.endheaders(late[:100])
        until(lambda: any(incoming.iterdir()))
        taken = client.store("POST", "/index", {"index": "2" * 32, "instead_of": client.index})
        assert taken.status == 200
        client.index = "2" * 32
        assert client.write(0, b"new", counter=8).status == 200
        connection.send(late[100:])
        assert connection.getresponse().status == 412
    assert client.payload(0) == b"new"


def test_a_store_is_made_once(client: PadsClient) -> None:
    first = client.store("GET").json
    client.index = "4" * 32
    assert client.make(pad_size=64).json == first


def test_bounds(server: ServerProcess, client: PadsClient) -> None:
    large = PadsClient(server, key=UserKey(b"l" * 32))
    assert large.make(pad_size=(10 << 20) + 1).status == 413
    assert large.make(pad_size=1).status == 422, "pads of nothing would be a quota of nothing"
    assert client.store("POST", "/reserve", {"index": client.index, "seq": 1, "addresses": []}).status == 422
    assert client.reserve(*range(1001)).status == 422
    wrong = client.call("PUT", "/api/pads/content", b"x", Pad_Secret="none", Pad_Index=client.index)
    assert wrong.status == 422 and "none" not in wrong.body.decode()


def test_pads_count_for_the_quota(root: Path) -> None:
    with running_server(root, {"quota": 10 * SIZE}) as server:
        client = PadsClient(server)
        client.make()
        assert client.reserve(*range(8)).status == 200
        refused = client.reserve(*range(12))
        assert (refused.status, refused.json["detail"]) == (507, "This does not fit into your quota")
        assert client.store("GET").json["pads"] == 8, "all of them or none"
        assert client.reserve(*range(8)).status == 200, "those that are held cost nothing more"
        assert server.initiate(bytes(3 * SIZE), SIZE).status == 507, "one quota for files and pads"
        assert server.initiate(bytes(2 * SIZE), SIZE).status == 201
        assert client.reserve(8).status == 507


def test_neither_secrets_nor_addresses_are_logged(root: Path) -> None:
    with running_server(root, None, "-v") as server:
        client = PadsClient(server)
        client.make()
        client.reserve(0, 1)
        client.write(0, DATA, counter=2)
        client.write(0, DATA, counter=1)
        client.read(0)
        client.confirm(0, 5)
        client.erase(0, counter=3)
        names = [path.name for path in (server.data / "pads").rglob("*")]
        for shard in (server.data / "pads").glob("[0-9a-f][0-9a-f]"):
            shard.rename(server.data / f"was-{shard.name}")
            shard.write_bytes(b"")  # the disk is damaged
        assert client.read(0).status == 500 == client.write(0, DATA, counter=5).status
        server.stop()
        said = server.stderr + "".join(path.read_text() for path in server.data.glob("server.log*"))
        assert "/api/pads/content" in said
        for number in (0, 1):
            assert client.pad(number).address not in said
            assert client.pad(number).secret.hex() not in said
        assert names and not [name for name in names if name in (client.pad(0).address, client.pad(1).address)]


def test_a_kill_while_pads_are_written_loses_none_that_was_acknowledged(root: Path) -> None:
    """Every pad is written again and again; what is there afterwards is what was acknowledged last, or what was on its
    way, and whole."""
    with running_server(root) as server:
        client = PadsClient(server)
        client.make()
        client.reserve(*range(4))
        acknowledged = dict.fromkeys(range(4), 0)

        def content(number: int, counter: int) -> bytes:
            return f"{number}:{counter} ".encode() * 300

        def write(number: int) -> None:
            for counter in range(1, 1000):
                with contextlib.suppress(OSError, http.client.HTTPException):
                    if client.write(number, content(number, counter), counter).status == 200:
                        acknowledged[number] = counter
                        continue
                return

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: min(acknowledged.values()) >= 5)
        server.kill()
        for thread in threads:
            thread.join()
        server.start()
        for number, head in enumerate(client.heads(*range(4))):
            assert isinstance(head, Header)
            assert acknowledged[number] <= head.counter <= acknowledged[number] + 1
            assert client.payload(number) == content(number, head.counter)
        assert not list((server.data / "pads" / "incoming").iterdir())


def test_reservations_survive_a_kill(root: Path) -> None:
    with running_server(root) as server:
        client = PadsClient(server)
        client.make()
        assert client.reserve(*range(20)).status == 200
        server.kill()
        server.start()
        assert client.heads(*range(20)) == [""] * 20


def test_twenty_writers_at_once_lose_nothing(client: PadsClient) -> None:
    """Of one pad each, and all of one pad: the highest counter stays."""
    client.reserve(*range(21))

    def write(number: int) -> tuple[int, int]:
        own = client.write(number, b"%d" % number * 500, counter=1).status
        return own, client.write(20, b"%d" % number * 700, counter=number + 1).status

    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(write, range(20)))
    assert [own for own, _ in statuses] == [200] * 20
    assert {shared for _, shared in statuses} <= {200, 409}
    assert [client.payload(number) for number in range(20)] == [b"%d" % number * 500 for number in range(20)]
    assert client.payload(20) == b"19" * 700
