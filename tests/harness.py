"""Jobs without the command line: plan files, run the pipeline, open the job again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ppcli import pipeline, planner, steps
from ppcli.calls import Call
from ppcli.digests import DigestCache
from ppcli.errors import PpcliError
from ppcli.events import Event
from ppcli.halt import Halt
from ppcli.hashing import Hashes
from ppcli.jobs import Job, JobStore
from ppcli.manifest import FileEntry, JobOptions, Manifest, now
from ppcli.model import FilePlan, JobState, Limits, Part, Receipt, Remote, Session, Slot, Survey
from ppcli.source import fingerprint
from ppcli.target import Body, Split, Target
from ppcli.targets import Settings, connect
from ppcli.transport import Transport

Fault = Callable[[str, str, int | None], None]


class Recording:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def hear(self, event: Event) -> None:
        self.events.append(event)

    def tick(self) -> None:
        pass

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


class Place:
    """A data dir, a config dir and a target in a temporary directory."""

    def __init__(self, root: Path, url: str, chunk_size: int, http: Callable[[str], Transport] | None = None) -> None:
        self.root, self.url, self.chunk_size = root, url, chunk_size
        self.http = http or Transport
        self.store = JobStore(root / "data")
        self.sources = root / "sources"
        self.sources.mkdir(parents=True, exist_ok=True)

    def connect(self) -> Target:
        cache = DigestCache(self.root / "data")
        settings = Settings(
            self.root / "data", self.root / "config", Hashes(cache).of_file, self.chunk_size, http=self.http
        )
        return connect(self.url, settings)

    def source(self, name: str, data: bytes) -> Path:
        path = self.sources / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def job(self, paths: Iterable[Path], *, jobs: int = 4, retries: int = 3, immutable: bool = False) -> Job:
        """A new job; names are those of the files."""
        files = []
        for path in paths:
            seen = fingerprint(path)
            chunks = planner.plan_chunks(seen.size, self.chunk_size)
            files.append(FileEntry(path.name, str(path), seen, self.chunk_size, chunks))
        draft = self.store.draft()
        options = JobOptions(jobs, jobs, retries, immutable=immutable)
        return draft.commit(Manifest(draft.id, self.url, options, files, now(), now()))


def run(job: Job, target: Target, listener: Recording | None = None, *, resumed: bool = False) -> PpcliError | None:
    """Run all unfinished files of a job; the job is folded and closed afterwards, its state as after a kill."""
    if job.manifest.state is not JobState.UPLOADING:
        job.record(steps.JobChanged(JobState.UPLOADING))
    files = [index for index, entry in enumerate(job.manifest.files) if not entry.state.finished]
    outcome = pipeline.run(job, target, files, listener or Recording(), Halt(), Hashes(), resumed=resumed)
    job.close()
    return outcome.error


@contextmanager
def quick_retries() -> Iterator[None]:
    """Backoff without the waiting."""
    real = Halt.sleep
    Halt.sleep = lambda self, seconds: real(self, 0)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Halt.sleep = real  # type: ignore[method-assign]


class Faulty:
    """Any target, with faults: `fault(step, name, chunk)` is called before a call, and with `lost:step` after it took
    effect; what it raises is what the pipeline sees. `received` counts the bytes that were uploaded, by chunk."""

    def __init__(self, target: Target, fault: Fault) -> None:
        self._target = target
        self._fault = fault
        self.received: list[tuple[str, int, int]] = []

    def __getattr__(self, name: str) -> object:
        found = getattr(self._target, name)  # what the target has not, this one has not
        return self._uploading if name == "uploading" else found

    @property
    def url(self) -> str:
        return self._target.url

    def limits(self, size: int) -> Limits:
        return self._target.limits(size)

    def find(self, name: str, digest: str | None = None) -> Remote | None:
        self._fault("find", name, None)
        return self._target.find(name, digest)

    def open(self, file: FilePlan, old: Session | None, base: Remote | None) -> Session:
        self._fault("open", file.name, None)
        session = self._target.open(file, old, base)
        self._fault("lost:open", file.name, None)
        return session

    def survey(self, session: Session, file: FilePlan, known: Sequence[Receipt]) -> Survey:
        self._fault("survey", file.name, None)
        return self._target.survey(session, file, known)

    def reserve(self, session: Session, file: FilePlan, parts: Sequence[Part]) -> Sequence[Slot]:
        self._fault("reserve", file.name, parts[0].index)
        slots = self._target.reserve(session, file, parts)
        self._fault("lost:reserve", file.name, parts[0].index)
        return slots

    def adopt(self, session: Session, file: FilePlan, part: Part, base: Slot, body: Body) -> Receipt | None:
        self._fault("adopt", file.name, part.index)
        return self._target.adopt(session, file, part, base, body)

    def upload(self, session: Session, file: FilePlan, part: Part, slot: Slot, body: Body) -> Receipt:
        self._fault("upload", file.name, part.index)
        receipt = self._target.upload(session, file, part, slot, body)
        self.received.append((file.name, part.index, part.size))
        self._fault("lost:upload", file.name, part.index)
        return receipt

    def _uploading(self, session: Session, file: FilePlan, part: Part, slot: Slot, body: Body) -> Call[Receipt]:
        assert isinstance(self._target, Split)
        self._fault("upload", file.name, part.index)
        receipt = yield from self._target.uploading(session, file, part, slot, body)
        self.received.append((file.name, part.index, part.size))
        self._fault("lost:upload", file.name, part.index)
        return receipt

    def confirm(self, session: Session, file: FilePlan, receipt: Receipt) -> Receipt:
        self._fault("confirm", file.name, receipt.index)
        return self._target.confirm(session, file, receipt)

    def complete(self, session: Session, file: FilePlan, receipts: Sequence[Receipt], *, doubtful: bool) -> Remote:
        self._fault("complete", file.name, None)
        remote = self._target.complete(session, file, receipts, doubtful=doubtful)
        self._fault("lost:complete", file.name, None)
        return remote
