"""A target in memory, with a script of faults: what the pipeline's tests and benchmarks run against.

It keeps its rules strictly (a chunk that was never reserved, a slot used twice, a completion with a chunk missing are
errors of the test), counts every byte it receives, and outlives "crashes" of the pipeline: a new pipeline may use the
same `MemoryTarget` again.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import xxhash

from ppcli.calls import Call, outcome
from ppcli.errors import Damaged, SessionLost
from ppcli.model import Evidence, FilePlan, Limits, Notice, Part, Receipt, Remote, Session, Slot, Survey
from ppcli.target import Body

DEFAULT_LIMITS = Limits(
    chunk_min=1, chunk_max=1 << 40, chunk_default=8 << 20, open_leaves_trace=True, adopts=False, replan=True
)


@dataclass
class Upload:
    """One session: reserved slots and what was stored in them."""

    name: str
    reserved: set[Slot] = field(default_factory=set)
    stored: dict[Slot, bytes] = field(default_factory=dict)


class MemoryTarget:
    """`fault(step, name, chunk)` is called before (and, with step "lost:...", after) every call; what it raises is what
    the pipeline sees. `mangle(name, chunk, data)` may change what is stored. `keep` False drops the bytes."""

    url = "memory:"

    def __init__(self, limits: Limits = DEFAULT_LIMITS, *, keep: bool = True) -> None:
        self.allowed = limits
        self.keep = keep
        self.fault: Callable[[str, str, int | None], None] = lambda step, name, chunk: None
        self.mangle: Callable[[str, int, bytes], bytes] = lambda name, chunk, data: data
        self.uploads: dict[str, Upload] = {}
        self.objects: dict[str, bytes] = {}
        self.received: Counter[tuple[str, int]] = Counter()
        self.in_flight = 0
        self.most_in_flight = 0
        self._slots = itertools.count(1)
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self.calls: defaultdict[str, int] = defaultdict(int)

    def limits(self, size: int) -> Limits:
        return self.allowed

    def find(self, name: str, digest: str | None = None) -> Remote | None:
        return self._remote(name) if name in self.objects else None

    def digest(self, remote: Remote, *, fresh: bool = False) -> str | None:
        return remote.digest

    def open(self, file: FilePlan, old: Session | None, base: Remote | None) -> Session:
        with self._call("open", file.name, None):
            if old is not None:
                if old.id not in self.uploads:
                    raise SessionLost("no such session")
                return old
            session = Session(f"s{next(self._ids)}")
            self.uploads[session.id] = Upload(file.name)
            return session

    def survey(self, session: Session, file: FilePlan, known: Sequence[Receipt]) -> Survey:
        with self._call("survey", file.name, None):
            upload = self._upload(session)
            upload.reserved = {receipt.slot for receipt in known}
            held = {r.index: r for r in known if r.slot in upload.stored}
            return Survey(held, authoritative=True)

    def reserve(self, session: Session, file: FilePlan, parts: Sequence[Part]) -> Sequence[Slot]:
        with self._call("reserve", file.name, parts[0].index):
            slots = [next(self._slots) for _ in parts]
            self._upload(session).reserved.update(slots)
            return slots

    def adopt(self, session: Session, file: FilePlan, part: Part, base: Slot, body: Body) -> Receipt | None:
        return None

    def upload(self, session: Session, file: FilePlan, part: Part, slot: Slot, body: Body) -> Receipt:
        return outcome(self._uploading(session, file, part, slot, body))

    def _uploading(self, session: Session, file: FilePlan, part: Part, slot: Slot, body: Body) -> Call[Receipt]:
        with self._call("upload", file.name, part.index):
            with self._lock:
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
            try:
                data = b"".join(bytes(piece) for piece in body) if self.keep else self._drop(body)
            finally:
                with self._lock:
                    self.in_flight -= 1
            yield -1
            upload = self._upload(session)
            assert slot in upload.reserved, "a slot that was never reserved"
            self.received[file.name, part.index] += 1
            upload.stored[slot] = self.mangle(file.name, part.index, data)
            return Receipt(part.index, part.size, slot, body.checksum)

    def confirm(self, session: Session, file: FilePlan, receipt: Receipt) -> Receipt:
        with self._call("confirm", file.name, receipt.index):
            stored = self._upload(session).stored[receipt.slot]
            if self.keep and xxhash.xxh3_128_hexdigest(stored) != receipt.checksum:
                raise Damaged("other bytes are stored")
            return replace(receipt, evidence=Evidence.CONTENT)

    def complete(self, session: Session, file: FilePlan, receipts: Sequence[Receipt], *, doubtful: bool) -> Remote:
        with self._call("complete", file.name, None):
            if session.id not in self.uploads:
                assert doubtful, "completed twice without a doubt"
                return self._remote(file.name)
            upload = self.uploads[session.id]
            assert [r.index for r in receipts] == list(range(file.chunks)), "chunks are missing"
            self.objects[file.name] = b"".join(upload.stored[r.slot] for r in receipts)
            del self.uploads[session.id]
            return self._remote(file.name)

    def abort(self, session: Session, file: FilePlan, slots: Sequence[Slot] = ()) -> None:
        with self._call("abort", file.name, None):
            self.uploads.pop(session.id, None)

    def notices(self) -> Sequence[Notice]:
        return ()

    def close(self) -> None:
        pass

    def _remote(self, name: str) -> Remote:
        return Remote(name, f"memory:{name}", len(self.objects[name]))

    def _upload(self, session: Session) -> Upload:
        if session.id not in self.uploads:
            raise SessionLost("no such session")
        return self.uploads[session.id]

    def _call(self, step: str, name: str, chunk: int | None) -> _Call:
        self.calls[step] += 1
        return _Call(self, step, name, chunk)

    @staticmethod
    def _drop(body: Body) -> bytes:
        for _ in body:
            pass
        return b""


class SplitTarget(MemoryTarget):
    """Files of one chunk go by a single request, which makes them visible, and whose reply may be left for later.
    `waiting` tells of how many chunks it was at most. Of those that are `silent` it comes once it `speaks`."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS, *, keep: bool = True) -> None:
        super().__init__(limits, keep=keep)
        self.waiting = 0
        self.splits = True
        self.silent: set[str] = set()
        self.speaks = threading.Event()
        self._unanswered = 0

    def open(self, file: FilePlan, old: Session | None, base: Remote | None) -> Session:
        return replace(super().open(file, old, base), whole=file.chunks == 1)

    def uploading(self, session: Session, file: FilePlan, part: Part, slot: Slot, body: Body) -> Call[Receipt]:
        call = self._uploading(session, file, part, slot, body)
        next(call)
        self._unanswered += 1
        self.waiting = max(self.waiting, self._unanswered)
        answer, server = socket.socketpair()
        with answer, server:
            if file.name not in self.silent:
                server.send(b"!")
            try:
                yield answer.fileno()
                if file.name in self.silent:
                    self.speaks.wait()
                receipt = outcome(call)
            finally:
                self._unanswered -= 1
        if not session.whole:
            return receipt
        self.objects[file.name] = self.uploads[session.id].stored[slot]
        return replace(receipt, evidence=Evidence.CONTENT)  # the reply is the proof

    def upload(self, session: Session, file: FilePlan, part: Part, slot: Slot, body: Body) -> Receipt:
        return outcome(self.uploading(session, file, part, slot, body))

    def complete(self, session: Session, file: FilePlan, receipts: Sequence[Receipt], *, doubtful: bool) -> Remote:
        if not session.whole:
            return super().complete(session, file, receipts, doubtful=doubtful)
        return self._remote(file.name)


class _Call:
    def __init__(self, target: MemoryTarget, step: str, name: str, chunk: int | None) -> None:
        self._target, self._of = target, (step, name, chunk)

    def __enter__(self) -> None:
        self._target.fault(*self._of)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            step, name, chunk = self._of
            self._target.fault(f"lost:{step}", name, chunk)
