"""Our own time per chunk and per file: plan, run against a target in memory, load for a resume.

    python tests/benchmarks/core.py [CHUNKS]

Journals go to a directory in memory where there is one, so that the disk's fsync is not measured. Prints wall and
processor seconds, and the cost per chunk at CHUNKS (100,000) over that at 1,000.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from memory import DEFAULT_LIMITS
from xxhash import xxh3_128_hexdigest

from ppcli import pipeline, planner, steps
from ppcli.cli.json_lines import JsonLines
from ppcli.cli.streams import Stream
from ppcli.events import ChunkConfirmed, Event
from ppcli.halt import Halt
from ppcli.hashing import Hashes
from ppcli.jobs import JobStore
from ppcli.manifest import FileEntry, JobOptions, Manifest, now
from ppcli.model import Evidence, FilePlan, JobState, Limits, Notice, Part, Receipt, Remote, Session, Slot, Survey
from ppcli.source import fingerprint
from ppcli.target import ChunkBytes

CHUNK = 64
MEMORY = Path("/dev/shm")


class Store:
    """A target in memory that does as little as one can and still keeps the bytes and proves them: what is measured is
    ours."""

    url = "memory:"

    def __init__(self) -> None:
        self.stored: dict[tuple[int, int], bytes] = {}
        self.objects: dict[str, int] = {}

    def limits(self, size: int) -> Limits:
        return DEFAULT_LIMITS

    def find(self, name: str, digest: str | None = None) -> Remote | None:
        return None

    def digest(self, remote: Remote, *, fresh: bool = False) -> str | None:
        return None

    def open(self, file: FilePlan, old: Session | None, base: Remote | None) -> Session:
        return Session(f"s{file.key}")

    def survey(self, session: Session, file: FilePlan, known: Sequence[Receipt]) -> Survey:
        return Survey({receipt.index: receipt for receipt in known}, authoritative=False)

    def reserve(self, session: Session, file: FilePlan, parts: Sequence[Part]) -> Sequence[Slot]:
        return [part.index for part in parts]

    def adopt(self, session: Session, file: FilePlan, part: Part, base: Slot, body: ChunkBytes) -> Receipt | None:
        return None

    def upload(self, session: Session, file: FilePlan, part: Part, slot: Slot, body: ChunkBytes) -> Receipt:
        self.stored[file.key, part.index] = b"".join([bytes(piece) for piece in body])
        return Receipt(part.index, part.size, slot, body.checksum)

    def confirm(self, session: Session, file: FilePlan, receipt: Receipt) -> Receipt:
        assert xxh3_128_hexdigest(self.stored[file.key, receipt.index]) == receipt.checksum
        return Receipt(receipt.index, receipt.size, receipt.slot, receipt.checksum, None, Evidence.CONTENT)

    def complete(self, session: Session, file: FilePlan, receipts: Sequence[Receipt], *, doubtful: bool) -> Remote:
        self.objects[file.name] = file.key
        return Remote(file.name, f"memory:{file.name}", file.size)

    def abort(self, session: Session | None, file: FilePlan, slots: Sequence[Slot] = ()) -> None:
        pass

    def notices(self) -> Sequence[Notice]:
        return ()

    def close(self) -> None:
        pass


class Deaf:
    def hear(self, event: Event) -> None:
        pass

    def tick(self) -> None:
        pass


@dataclass(frozen=True)
class Cost:
    wall: float
    cpu: float


def timed(work: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def sources(root: Path, chunks: int, *, one_file: bool) -> list[Path]:
    if one_file:
        (root / "big").write_bytes(bytes(CHUNK) * chunks)
        return [root / "big"]
    for number in range(chunks):
        (root / f"{number:06}").write_bytes(bytes(CHUNK))
    return [root / f"{number:06}" for number in range(chunks)]


def entry(path: Path) -> FileEntry:
    seen = fingerprint(path)
    return FileEntry(path.name, str(path), seen, CHUNK, planner.plan_chunks(seen.size, CHUNK))


def measure(chunks: int, *, one_file: bool) -> dict[str, Cost]:
    root = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
    try:
        paths = sources(root, chunks, one_file=one_file)
        store = JobStore(root / "data")
        draft, files = store.draft(), []
        costs = {"plan": timed(lambda: files.extend(entry(path) for path in paths))}
        plan = Manifest(draft.id, "memory:", JobOptions(20, 20, 5), files, now(), now())
        job = draft.commit(plan)
        job.record(steps.JobChanged(JobState.UPLOADING))
        target = Store()
        costs["run"] = timed(lambda: pipeline.run(job, target, range(len(files)), Deaf(), Halt(), Hashes()))
        assert all(file.state is JobState.COMPLETED for file in plan.files)
        job.close()
        costs["load"] = timed(lambda: store.open(job.id).close())
        return costs
    finally:
        shutil.rmtree(root)


def told_as_json(chunks: int) -> Cost:
    """The JSON stream of so many confirmed chunks."""
    with Path(os.devnull).open("w") as sink, contextlib.redirect_stdout(sink):
        listener = JsonLines(Stream("stdout"))

        def tell() -> None:
            for number in range(chunks):
                listener.hear(ChunkConfirmed("job", "big", number, number + 1, chunks, Evidence.CONTENT))

        return timed(tell)


def main() -> None:
    many = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    for one_file in (True, False):
        few, all_of_them = measure(1_000, one_file=one_file), measure(many, one_file=one_file)
        sys.stdout.write(f"{many} chunks in one file\n" if one_file else f"{many} files of one chunk\n")
        for step, cost in all_of_them.items():
            ratio = (cost.cpu / many) / (few[step].cpu / 1_000)
            sys.stdout.write(
                f"  {step:5} {cost.wall:7.2f} s wall {cost.cpu:7.2f} s cpu"
                f" {cost.cpu / many * 1e6:7.1f} us each, {ratio:.2f} of that at 1,000\n"
            )
    cost = told_as_json(many)
    sys.stdout.write(f"{many} chunks told as JSON\n  {cost.wall:13.2f} s wall {cost.cpu:7.2f} s cpu\n")


if __name__ == "__main__":
    main()
