"""Small files to an S3 server, many requests before the first reply: what is slow, stuck or refused among them holds up
nothing else."""

from __future__ import annotations

import hashlib
import importlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from harness import Place, Recording, quick_retries, run
from http_kit import Act, Exchange, message, serving
from s3_kit import KEYS

from ppcli import pipeline, steps
from ppcli.errors import Interrupted, Temporary
from ppcli.events import ChunkConfirmed, Event
from ppcli.halt import Halt
from ppcli.hashing import Hashes
from ppcli.jobs import Job
from ppcli.model import ChunkState, JobState
from ppcli.pipeline.crew import Crew
from ppcli.pipeline.sending import Sender
from ppcli.target import Target
from ppcli.transport import Transport

FILES = 6
FIRST, LAST = "0", str(FILES - 1)


@pytest.fixture(autouse=True)
def _bursts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    for name in ("together", "batch"):
        monkeypatch.setattr(Crew, name, lambda crew, most: most)


class Told(Recording):
    """Waits until so many events of a kind were heard."""

    def __init__(self) -> None:
        super().__init__()
        self._more = threading.Condition()

    def hear(self, event: Event) -> None:
        with self._more:
            super().hear(event)
            self._more.notify_all()

    def until(self, kind: type[Event], count: int, seconds: float) -> bool:
        with self._more:
            return self._more.wait_for(lambda: len(self.of(kind)) >= count, seconds)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], tuple[Job, Target]]]:
    made: list[Transport] = []

    def http(base: str) -> Transport:
        made.append(Transport(base))
        return made[-1]

    def to(base: str) -> tuple[Job, Target]:
        place = Place(tmp_path, f"s3://box?endpoint={base}&region=us-east-1", 8 << 20, http)
        return place.job([place.source(str(n), bytes(100)) for n in range(FILES)], jobs=FILES), place.connect()

    yield to
    for transport in made:
        transport.close()


Make = Callable[[str], tuple[Job, Target]]


def stored(exchange: Exchange) -> None:
    """What S3 answers to a PUT."""
    exchange.send(message(200, etag=f'"{hashlib.md5(exchange.read()).hexdigest()}"'))


def but(name: str, before: Callable[[], object]) -> Act:
    """`before` is called before this one file is answered."""

    def act(exchange: Exchange) -> None:
        exchange.read()
        if exchange.path.endswith(f"/{name}"):
            before()
        stored(exchange)

    return act


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_slow_reply_holds_up_no_other(
    make: Make, encrypted: bool, certificate: Path, secure: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over TLS there is something to be read before any reply: the tickets of a new connection."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    told, others = Told(), []
    slow = but(FIRST, lambda: others.append(told.until(ChunkConfirmed, FILES - 1, 5)))
    with serving(slow, context=secure if encrypted else None) as server:
        job, target = make(server.base)
        assert run(job, target, told) is None
    assert others == [True]


def test_a_reply_that_comes_in_halves_holds_up_no_other(make: Make) -> None:
    told, others = Told(), []

    def act(exchange: Exchange) -> None:
        if not exchange.path.endswith(f"/{FIRST}"):
            return stored(exchange)
        whole = message(200, etag=f'"{hashlib.md5(exchange.read()).hexdigest()}"')
        exchange.send(whole[:20])
        others.append(told.until(ChunkConfirmed, FILES - 1, 5))
        return exchange.send(whole[20:])

    with serving(act) as server:
        job, target = make(server.base)
        assert run(job, target, told) is None
    assert others == [True]


def test_after_a_stop_every_reply_of_the_grace_counts(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the one worker that is left would wait for one that says nothing."""
    monkeypatch.setattr(importlib.import_module("ppcli.pipeline.run"), "GRACE", 0.9)
    halt, sent, go, end = Halt(), threading.Semaphore(0), threading.Event(), threading.Event()

    def act(exchange: Exchange) -> None:
        exchange.read()
        sent.release()
        (end if exchange.path.endswith(f"/{LAST}") else go).wait(10)
        stored(exchange)

    def stop() -> None:
        for _ in range(FILES):
            sent.acquire()
        halt.request(Interrupted(130, job=True))
        go.wait(0.5)  # longer than a burst has patience
        go.set()

    with serving(act) as server:
        job, target = make(server.base)
        with closing(job):
            job.record(steps.JobChanged(JobState.UPLOADING))
            stopping = threading.Thread(target=stop)
            stopping.start()
            pipeline.run(job, target, range(FILES), Recording(), halt, Hashes())
            assert job.manifest.totals.chunks[ChunkState.CONFIRMED] == FILES - 1
        end.set()
        stopping.join()


def test_where_no_connection_can_be_made_the_others_of_a_burst_do_not_wait_for_theirs(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[bool] = []
    begin = Sender.begin
    monkeypatch.setattr(Sender, "begin", lambda sender, unit: noted(begin(sender, unit)))

    def noted(one: object) -> object:
        begun.append(True)
        return one

    with socket.create_server(("127.0.0.1", 0)) as taken:
        base = f"http://127.0.0.1:{taken.getsockname()[1]}"
    job, target = make(base)
    with quick_retries():
        assert isinstance(run(job, target), Temporary)
    assert len(begun) <= FILES // 2  # one of each burst, of two at least
