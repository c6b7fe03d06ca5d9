"""What the pad store's tests share: a job's file driven step by step, and an audit of the index."""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest
import xxhash
from server_kit import ServerProcess

from ppcli.credentials import Tokens
from ppcli.errors import NotFound, SessionLost, Temporary
from ppcli.model import FilePlan, Part, Receipt, Remote, Session
from ppcli.origin import Origin
from ppcli.pads.index import State
from ppcli.pads.ledger import Ledger
from ppcli.targets import Settings, connect
from ppcli.targets.pads import PadTarget
from ppcli.transport import Transport

PAD = 64


class MemoryBody:
    """A chunk's bytes, given in small pieces."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self._data = data
        self._ended = False

    def __iter__(self) -> Iterator[memoryview]:
        for start in range(0, self.size, 40):
            yield memoryview(self._data)[start : start + 40]
        self._ended = True

    quiet = __iter__

    @property
    def checksum(self) -> str:
        assert self._ended, "asked for the checksum before the end"
        return xxhash.xxh3_128_hexdigest(self._data)


@dataclass
class Behind:
    """A server that the stores of a test are behind, unless a URL says otherwise."""

    url: str
    token: str
    transports: list[Transport] = field(default_factory=list)

    def http(self, base: str) -> Transport:
        self.transports.append(Transport(base, Tokens(Origin.parse(base), lambda: self.token)))
        return self.transports[-1]


_opened: list[PadTarget] = []
_behind: list[Behind] = []


@contextmanager
def behind(server: ServerProcess) -> Iterator[None]:
    """Within the block, `target` gives stores behind this server."""
    _behind.append(Behind(f"pads+{server.origin}", server.token))
    try:
        yield
    finally:
        close_targets()
        for transport in _behind.pop().transports:
            transport.close()


def settings(home: Path, chunk_size: int | None = PAD) -> Settings:
    made = Settings(home / "data", home / "config", lambda path, fresh: "", chunk_size)
    return replace(made, http=_behind[-1].http) if _behind else made


def target(home: Path, url: str | None = None, chunk_size: int | None = PAD) -> PadTarget:
    """A store as a new process sees it."""
    place = url or (_behind[-1].url if _behind else "pads:")
    _opened.append(cast(PadTarget, connect(place, settings(home, chunk_size))))
    return _opened[-1]


def close_targets() -> None:
    while _opened:
        _opened.pop().close()


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    """To be imported by every module that calls `target`."""
    yield
    close_targets()


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def content(seed: object, size: int) -> bytes:
    return random.Random(repr(seed)).randbytes(size)


@dataclass
class Upload:
    """One file of a job: what the pipeline and the manifest would know of it."""

    target: PadTarget
    name: str
    data: bytes
    job: str = "job"
    immutable: bool = False
    chunk_size: int = PAD
    session: Session | None = None
    base: Remote | None = None
    receipts: dict[int, Receipt] = field(default_factory=dict)

    @property
    def plan(self) -> FilePlan:
        size = len(self.data)
        chunks = max(1, -(-size // self.chunk_size))
        return FilePlan(
            self.job, 0, self.name, size, 12.5, self.chunk_size, chunks, sha256(self.data), immutable=self.immutable
        )

    @property
    def parts(self) -> list[Part]:
        cuts = range(0, max(1, len(self.data)), self.chunk_size)
        pieces = [self.data[cut : cut + self.chunk_size] for cut in cuts]
        sums = [xxhash.xxh3_128_hexdigest(piece) for piece in pieces]
        return [Part(i, cut, len(pieces[i]), sums[i]) for i, cut in enumerate(cuts)]

    def open(self) -> Upload:
        """Open or reattach; what the survey does not find is forgotten. A lost session means: from the start."""
        self.base = self.target.find(self.name)
        try:
            self.session = self.target.open(self.plan, self.session, self.base)
        except SessionLost:
            self.receipts.clear()
            self.session = self.target.open(self.plan, None, self.base)
        survey = self.target.survey(self.session, self.plan, list(self.receipts.values()))
        self.receipts = dict(survey.held)
        return self

    def adopt(self) -> Upload:
        assert self.session
        slots = self.base.slots if self.base else ()
        for part in self.parts[: len(slots)]:
            if part.index not in self.receipts:
                got = self.target.adopt(self.session, self.plan, part, slots[part.index], MemoryBody(b""))
                if got:
                    self.receipts[part.index] = got
        return self

    def send(self, count: int | None = None) -> Upload:
        """Reserve, upload and confirm what is missing, at most `count` chunks."""
        assert self.session
        missing = [part for part in self.parts if part.index not in self.receipts][:count]
        slots = self.target.reserve(self.session, self.plan, missing) if missing else []
        for part, slot in zip(missing, slots, strict=True):
            body = MemoryBody(self.data[part.offset : part.offset + part.size])
            got = self.target.upload(self.session, self.plan, part, slot, body)
            self.receipts[part.index] = self.target.confirm(self.session, self.plan, got)
        return self

    def complete(self, *, doubtful: bool = False) -> Remote:
        assert self.session
        return self.target.complete(self.session, self.plan, list(self.receipts.values()), doubtful=doubtful)

    def abort(self) -> None:
        assert self.session
        self.target.abort(self.session, self.plan)

    def put(self) -> Remote:
        return self.open().adopt().send().complete()


def put(pads: PadTarget, name: str, data: bytes, job: str = "job") -> Remote:
    return Upload(pads, name, data, job).put()


def get(pads: PadTarget, name: str, offset: int = 0) -> bytes | None:
    """What is stored under a name, None where nothing is."""
    remote = pads.find(name)
    return b"".join(bytes(piece) for piece in pads.read(remote, offset)) if remote else None


def index(home: Path, root: Path | None = None) -> State:
    """The index as it is on disk, which must be sound."""

    def refuse(old: State | None) -> State:
        raise AssertionError("the index on disk is damaged")

    only = root or (behind_root(home / "data") if _behind else home / "data" / "pads")
    ledger = Ledger(only, refuse)
    with ledger.transaction() as state:
        found = state
    ledger.close()
    return found


def behind_root(data: Path) -> Path:
    """Where the index of the one store behind a server is."""
    (only,) = [path for path in (data / "pads-http").iterdir() if path.is_dir()]
    return only


def audit(state: State) -> None:
    """Every pad below `next` is in exactly one place; what is referenced is counted rightly."""
    references = Counter(number for version in state.names.values() for number, _ in version.pads)
    references.update(number for owner in state.owners.values() for number in owner.pads)
    assert dict(references) == state._references
    places = [*state.free, *state.stale, *references]
    places += [number for version in state.names.values() for number in version.record]
    places += [number for owner in state.owners.values() for number in owner.records]
    assert sorted(places) == list(range(state.next))


def shuffle_operations(home: Path, seed: int, rounds: int, names: Sequence[str]) -> None:
    """One process of several: random puts, half puts, resumes, cancels, removals and reads. Runs in its own process."""
    rng = random.Random(seed)
    pads = target(home)
    begun: list[Upload] = []
    for number in range(rounds):
        name = rng.choice(names)
        match rng.randrange(6):
            case 0 | 1:
                put(pads, name, _variant(rng, name), job=f"p{seed}-{number}")
            case 2:
                upload = Upload(pads, name, _variant(rng, name), job=f"p{seed}-{number}")
                begun.append(upload.open().adopt().send(rng.randrange(4)))
            case 3 if begun:
                upload = begun.pop(rng.randrange(len(begun)))
                upload.target = target(home)
                upload.open().adopt().send().complete()
                upload.target.close()
            case 4:
                if begun and rng.random() < 0.5:
                    begun.pop().abort()
                else:
                    pads.remove([name])
            case _:
                _read_whole(pads, name)
    for upload in begun[::2]:
        upload.abort()
    pads.close()


def _variant(rng: random.Random, name: str) -> bytes:
    """A file of up to five chunks, each one of three: versions have many chunks in common."""
    chunks = [content((name, rng.randrange(3)), PAD) for _ in range(rng.randrange(5))]
    return b"".join(chunks) + content(name, rng.randrange(PAD))


def _read_whole(pads: PadTarget, name: str) -> None:
    for _ in range(50):
        with suppress(Temporary, NotFound):
            remote = pads.find(name)
            if remote:
                data = b"".join(bytes(piece) for piece in pads.read(remote, 0))
                assert remote.digest == sha256(data)
            return
        time.sleep(0.001)
