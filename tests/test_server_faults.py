"""The server when something breaks or somebody is hostile; in this process, so that each moment can be met.

The application is called directly; what only shows on a socket or after a kill is in the other modules.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
from server_kit import cut, sha256
from starlette.types import Message

from ppcli import disk
from ppcli.errors import Busy, Corrupt, Local
from ppcli.server import accounts, bounds, database
from ppcli.server.app import create
from ppcli.server.database import Database
from ppcli.server.depot import Depot
from ppcli.server.limits import ServerLimits
from ppcli.server.live import LiveSessions, Region
from ppcli.server.plan import Wanted
from ppcli.server.receiving import _Incoming
from ppcli.server.refusal import Refused
from ppcli.server.sessions import Session
from ppcli.server.users import LOCKOUT, User

DATA = bytes(range(256)) * 10
SIZE = 1024


@pytest.fixture
def depot(root: Path) -> Iterator[Depot]:
    opened = Depot(root / "data", ServerLimits(quota=1 << 20))
    yield opened
    opened.close()


@pytest.fixture
def owner(depot: Depot) -> User:
    return depot.users.add("me@example.org", "right password")


def with_client(depot: Depot, user: User | None, work: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    """Run `work` with a client whose requests go right into the application."""

    async def run() -> None:
        headers = {} if user is None else {"Authorization": f"Bearer {depot.users.new_token(user)}"}
        transport = httpx.ASGITransport(create(depot), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server", headers=headers) as client:
            await work(client)

    asyncio.run(run())


def wanted(name: str = "a") -> Wanted:
    return Wanted(name, "h", sha256(DATA), len(DATA), SIZE, 3)


async def send(depot: Depot, session: Session, chunk: int) -> None:
    async def body() -> Any:
        yield cut(DATA, SIZE)[chunk]

    await depot.receiver.receive(session, chunk, body())


def upload(depot: Depot, user: User, name: str = "a", chunks: int = 3) -> Session:
    session = depot.sessions.initiate(user, wanted(name))
    for chunk in range(chunks):
        asyncio.run(send(depot, session, chunk))
    return session


# the database


@pytest.mark.parametrize("asset", [False, True])
def test_the_data_dir_of_an_older_version_goes_on(root: Path, asset: bool) -> None:
    """Format 1 had neither assets nor pads; some of its data dirs had the column `asset` already."""
    depot = Depot(root / "data", ServerLimits())
    owner = depot.users.add("me@example.org", "right password")
    session = upload(depot, owner, chunks=1)
    depot.close()
    with contextlib.closing(sqlite3.connect(root / "data" / database.DATABASE)) as connection:
        for table in ("assets", "pads", "pad_stores"):
            connection.execute(f"DROP TABLE {table}")
        if not asset:
            connection.execute("ALTER TABLE sessions DROP COLUMN asset")
        connection.execute("PRAGMA user_version=1")
    depot = Depot(root / "data", ServerLimits(quota=1 << 20))
    depot.cleanup.start()
    assert depot.sessions.get(owner, session.id).uploaded == 1
    assert depot.pads.make(owner, "1" * 32, 4096, "2" * 32).pads == 0
    assert depot.assets.listed(owner, None, 1, 10) == ([], 0)
    upload(depot, owner, "b")
    depot.close()


def test_the_data_dir_of_a_newer_version_is_left_alone(root: Path) -> None:
    Depot(root / "data", ServerLimits()).close()
    with contextlib.closing(sqlite3.connect(root / "data" / database.DATABASE)) as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(Corrupt, match="format 99"):
        Depot(root / "data", ServerLimits())


def test_a_write_that_is_cancelled_takes_nobody_else_along(tmp_path: Path) -> None:
    """A request that ends early cancels its write; the thread that writes must live on."""
    opened, go = Database(tmp_path / "db"), threading.Event()
    first = opened.submit(lambda c: go.wait())
    second = opened.submit(lambda c: 2)
    assert second.cancel()
    go.set()
    assert first.result(5)
    assert opened.submit(lambda c: 3).result(5) == 3
    opened.close()
    with pytest.raises(sqlite3.ProgrammingError):
        opened.submit(lambda c: 4)


def test_a_database_that_somebody_locks_is_an_error_and_no_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_PATIENCE", 0.05)
    opened = Database(tmp_path / "db")
    other = sqlite3.connect(tmp_path / "db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError) as raised:
        opened.submit(lambda c: 1).result(5)
    assert database.error_code(raised.value) == sqlite3.SQLITE_BUSY
    with pytest.raises(Busy):
        Database(tmp_path / "db")
    other.close()
    assert opened.submit(lambda c: 2).result(5) == 2
    opened.close()


def test_a_transaction_that_is_gone_takes_its_whole_group_along(tmp_path: Path) -> None:
    """As after a full disk: what came before in the group is lost, what comes after must not be committed alone."""
    opened, go = Database(tmp_path / "db"), threading.Event()

    def insert(email: str) -> Callable[[sqlite3.Connection], object]:
        return lambda c: c.execute("INSERT INTO users (email, created_at) VALUES (?, 0)", (email,)).rowcount

    def break_down(connection: sqlite3.Connection) -> NoReturn:
        connection.execute("ROLLBACK")
        raise sqlite3.OperationalError("database or disk is full")

    opened.submit(lambda c: go.wait())
    group = [opened.submit(change) for change in (insert("a"), break_down, insert("b"))]
    go.set()
    for future in group:
        with pytest.raises(sqlite3.OperationalError):
            future.result(5)
    assert opened.read(lambda c: c.execute("SELECT count(*) FROM users").fetchone()[0]) == 0
    assert opened.submit(insert("c")).result(5) == 1
    opened.close()


def test_only_a_group_that_is_lazy_throughout_is_not_synced(tmp_path: Path) -> None:
    opened, busy, go = Database(tmp_path / "db"), threading.Event(), threading.Event()

    def hold(connection: sqlite3.Connection) -> None:
        busy.set()
        go.wait()

    def level(connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA synchronous").fetchone()[0])

    normal, full = 1, 2
    assert [opened.write(level, lazy=lazy) for lazy in (False, True, False)] == [full, normal, full]
    opened.submit(hold, lazy=True)
    assert busy.wait(20)  # what comes now waits together
    mixed = [opened.submit(level, lazy=True), opened.submit(level), opened.submit(level, lazy=True)]
    go.set()
    assert [future.result(5) for future in mixed] == [full] * 3
    opened.close()


def test_a_damaged_database_is_told_as_such(root: Path, depot: Depot, owner: User) -> None:
    upload(depot, owner)
    depot.close()
    path = root / "data" / "server.sqlite3"
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\x55" * (len(whole) - 4096))
    broken = Depot(root / "data", ServerLimits())
    with pytest.raises(Corrupt):
        broken.start_cleaning(lambda error: None)
    with pytest.raises(Corrupt), accounts._users(root / "data") as users:
        users.any()
    with_client(broken, None, asks_in_vain)
    broken.close()
    path.write_bytes(whole)


async def asks_in_vain(client: httpx.AsyncClient) -> None:
    reply = await client.get("/api/my_files", headers={"Authorization": "Bearer x"})
    assert (reply.status_code, reply.json()["detail"]) == (503, "The server cannot read its users now")


def test_a_database_that_breaks_in_a_request_is_no_bug_of_ours(
    depot: Depot, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> NoReturn:
        raise sqlite3.DatabaseError("database disk image is malformed")

    async def work(client: httpx.AsyncClient) -> None:
        assert (await client.get("/api/my_files")).status_code == 200
        monkeypatch.setattr(depot.entries, "recent", fails)
        reply = await client.get("/api/my_files")
        assert (reply.status_code, reply.json()["detail"]) == (500, "The server could not read or write its data")

    with_client(depot, owner, work)


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EIO])
def test_a_data_dir_that_cannot_be_written_is_trouble_of_this_machine(
    root: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fails(*_: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(disk, "open_private", fails)
    with pytest.raises(Local):
        Depot(root, ServerLimits())


# sessions


def test_a_clock_that_is_set_ends_no_session_and_prolongs_none(
    depot: Depot, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, real = upload(depot, owner, chunks=1), time.time
    for hours in (5, -5):
        monkeypatch.setattr(time, "time", lambda ahead=hours * 3600: real() + ahead)
        now = depot.sessions.get(owner, session.id)
        assert 3500 < now.expires_at - time.time() <= 3600
        depot.sessions.admit(owner, session.id, 1)
        depot.cleanup.run()
        assert depot.files.partial(session.id).exists()
    monkeypatch.setattr(time, "time", real)
    assert depot.sessions.get(owner, session.id).uploaded == 1


def test_an_upload_that_is_being_completed_counts_in_the_quota(depot: Depot, owner: User) -> None:
    session = depot.sessions.initiate(owner, Wanted("big", "h", sha256(b"x"), 1 << 20, 1 << 20, 1))
    depot.database.write(
        lambda c: c.execute("UPDATE sessions SET state = 'completing', expires_at = 0 WHERE id = ?", (session.id,))
    )
    with pytest.raises(Refused) as refused:
        depot.sessions.initiate(owner, wanted())
    assert refused.value.status == 507


def test_a_session_whose_file_a_power_cut_took_goes_on_if_it_held_nothing(depot: Depot, owner: User) -> None:
    empty, begun = upload(depot, owner, "empty", chunks=0), upload(depot, owner, "begun", chunks=1)
    for session in (empty, begun):
        depot.files.drop(session.id)
    depot.cleanup.start()
    asyncio.run(send(depot, depot.sessions.admit(owner, empty.id, 0), 0))
    with pytest.raises(Refused) as refused:
        depot.sessions.admit(owner, begun.id, 1)
    assert refused.value.status == 410


def test_nothing_is_remembered_of_sessions_that_have_ended(depot: Depot, owner: User) -> None:
    session = upload(depot, owner, chunks=1)
    depot.sessions.abort(owner, session.id)
    with pytest.raises(Refused):
        depot.completer.complete(owner, session.id, {})
    kept = upload(depot, owner, "other", chunks=1)
    depot.cleanup.run()
    assert depot.live.idle() == [kept.id]


def test_content_that_was_damaged_is_whole_after_it_was_sent_again(depot: Depot, owner: User) -> None:
    depot.completer.complete(owner, upload(depot, owner).id, {})
    depot.files.content(sha256(DATA)).write_bytes(b"rotten")
    depot.completer.complete(owner, upload(depot, owner, "b").id, {})
    assert depot.files.content(sha256(DATA)).read_bytes() == DATA


def test_impatient_clients_of_one_upload_do_not_hold_up_the_others(
    depot: Depot, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = upload(depot, owner, "one"), upload(depot, owner, "other")
    go, complete = threading.Event(), depot.completer.complete

    def slow(user: User, upload_id: str, etags: dict[int, str]) -> Session:
        assert upload_id == other.id or go.wait(20)
        return complete(user, upload_id, etags)

    monkeypatch.setattr(depot.completer, "complete", slow)

    async def work(client: httpx.AsyncClient) -> None:
        def ask(session: Session) -> Awaitable[httpx.Response]:
            return client.post(f"/api/uploads/{session.id}/complete", json={"parts": []})

        waiting = [asyncio.ensure_future(ask(one)) for _ in range(12)]
        async with asyncio.timeout(10):
            assert (await ask(other)).status_code == 200
        go.set()
        assert {reply.status_code for reply in await asyncio.gather(*waiting)} == {200}

    with_client(depot, owner, work)


def test_a_file_is_not_closed_under_a_thread_that_writes(root: Path, depot: Depot, owner: User) -> None:
    """Its number would be given to another file, and the bytes would go there."""
    session = upload(depot, owner, chunks=0)
    with ThreadPoolExecutor(1) as hashers:
        live = LiveSessions(depot.files, hashers, depot.stopped).get(session.id)
        region = Region()
        incoming = _Incoming(live, region, session, 0, None)
        region.owner = incoming
        incoming.open()
        with region.guard:  # the thread that writes waits here
            taking = threading.Thread(target=incoming.take, args=([DATA[:SIZE]],))
            taking.start()
            while not incoming._using.locked():
                pass
            closing = threading.Thread(target=incoming.close)
            closing.start()
            os.fstat(incoming._fd)
        taking.join()
        closing.join()
        assert depot.files.partial(session.id).read_bytes() == DATA[:SIZE]
        with pytest.raises(InterruptedError):
            incoming.take([b"more"])


# strangers


def test_logins_are_bounded_and_hold_nobody_else_up(depot: Depot, owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    monkeypatch.setattr(depot.users, "login", lambda email, password: "token" if go.wait(20) else "")

    async def work(client: httpx.AsyncClient) -> None:
        def login() -> Awaitable[httpx.Response]:
            return client.post("/api/login", json={"email": "a@b.c", "password": "x"})

        waiting = [asyncio.ensure_future(login()) for _ in range(60)]
        async with asyncio.timeout(10):
            assert (await client.get("/api/my_files")).status_code == 200
        go.set()
        statuses = [reply.status_code for reply in await asyncio.gather(*waiting)]
        assert (statuses.count(200), statuses.count(429)) == (32, 28)
        assert (await login()).status_code == 200

    with_client(depot, owner, work)


def test_a_body_from_a_stranger_is_short(depot: Depot) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        reply = await client.post("/api/login", content=b'{"email": "' + b"a" * (16 << 10))
        assert (reply.status_code, reply.json()["detail"]) == (413, "The body must not be above 16384 bytes")

    with_client(depot, None, work)


def test_every_refusal_is_json(depot: Depot, owner: User) -> None:
    depot.completer.complete(owner, upload(depot, owner).id, {})

    async def work(client: httpx.AsyncClient) -> None:
        for method, path, status in (
            ("GET", "/no/such/path", 404),
            ("GET", "/api/my_files/", 404),
            ("PATCH", "/api/my_files", 405),
            ("GET", "/api/my_files?limit=x", 422),
            ("GET", f"/api/files/{sha256(DATA)}/content", 416),
            ("PUT", "/api/uploads/x/chunk/x", 422),
        ):
            reply = await client.request(method, path, headers={"Range": "bytes=99999-"})
            assert (reply.status_code, bool(reply.json()["detail"])) == (status, True), path

    with_client(depot, owner, work)


def test_a_new_password_ends_logins_with_the_old_one_and_lets_its_owner_in(depot: Depot, owner: User) -> None:
    token, lasting = depot.users.login("me@example.org", "right password"), depot.users.new_token(owner)
    for _ in range(5):
        with pytest.raises(Refused):
            depot.users.login("me@example.org", "wrong")
    depot.users.add("me@example.org", "new password")
    assert depot.users.owner_of(token) is None
    assert depot.users.owner_of(lasting) == owner
    assert depot.users.login("me@example.org", "new password")


def test_a_lock_out_ends_also_when_the_clock_was_set_back(
    depot: Depot, owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    for _ in range(5):
        with pytest.raises(Refused):
            depot.users.login("me@example.org", "wrong")
    for ahead, locked in ((-1e6, True), (-1e6 + LOCKOUT - 10, True), (-1e6 + LOCKOUT + 10, False)):
        monkeypatch.setattr(time, "time", lambda ahead=ahead: real() + ahead)
        if locked:
            with pytest.raises(Refused) as refused:
                depot.users.login("me@example.org", "right password")
            assert refused.value.retry_after is not None
            assert 0 < refused.value.retry_after <= LOCKOUT
        else:
            assert depot.users.login("me@example.org", "right password")


def test_a_slow_disk_is_not_held_against_the_client() -> None:
    """Only the time counts for which the server waits for bytes."""

    async def receive() -> Message:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def run() -> None:
        body = bounds._BoundedBody(receive, 100, 0.2)
        for _ in range(3):
            assert json.dumps((await body())["body"].decode()) == '"x"'
            time.sleep(0.15)

    asyncio.run(run())


def test_whoever_is_gone_before_the_first_piece_leaves_no_file_open(depot: Depot, owner: User) -> None:
    session = upload(depot, owner)
    depot.completer.complete(owner, session.id, {})
    app, token = create(depot), depot.users.new_token(owner)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "method": "GET",
        "path": f"/api/files/{sha256(DATA)}/content",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {token}".encode())],
    }

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(_message: Message) -> None:
        await asyncio.sleep(0)  # as where the connection takes no more just now

    async def ask() -> None:
        for _ in range(20):
            await app(dict(scope), receive, send)

    asyncio.run(ask())
    before = len(list(Path("/dev/fd").iterdir()))
    asyncio.run(ask())
    assert len(list(Path("/dev/fd").iterdir())) < before + 10
