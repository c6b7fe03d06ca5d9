"""Several processes and threads on one store at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

from pads_kit import (  # noqa: F401
    PAD,
    MemoryBody,
    Upload,
    audit,
    closing,
    content,
    get,
    index,
    put,
    sha256,
    shuffle_operations,
    target,
)

NAMES = [f"name-{number}" for number in range(6)]
PROCESSES = 4
ROUNDS = 250


def test_a_thousand_random_operations_by_four_processes(tmp_path: Path) -> None:
    put(target(tmp_path), NAMES[0], b"x", "before")
    context = get_context("spawn")
    workers = [
        context.Process(target=shuffle_operations, args=(tmp_path, seed, ROUNDS, NAMES)) for seed in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    state = index(tmp_path)
    audit(state)
    assert not state.stale
    pads = target(tmp_path)
    before = {remote.name: get(pads, remote.name) for remote in pads.list("")}
    assert all(sha256(data or b"") == state.names[name].digest for name, data in before.items())
    for upload in list(pads.incomplete()):
        pads.discard(upload)
    assert pads.recover() == len(before)
    assert {remote.name: get(pads, remote.name) for remote in pads.list("")} == before
    pads.remove(list(before))
    state = index(tmp_path)
    assert len(state.free) == state.next


def _first_put(home: Path, number: int, gate: Barrier) -> None:
    pads = target(home)
    gate.wait(30)
    put(pads, f"x{number}", content(number, 100), f"job-{number}")


def test_processes_that_make_the_store_and_the_key_at_once(tmp_path: Path) -> None:
    context = get_context("spawn")
    gate = context.Barrier(PROCESSES)
    workers = [context.Process(target=_first_put, args=(tmp_path, number, gate)) for number in range(PROCESSES)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    for number in range(PROCESSES):
        assert get(target(tmp_path), f"x{number}") == content(number, 100)
    assert sorted(path.name for path in (tmp_path / "config").iterdir()) == [".user.key.lock", "user.key"]


def test_twenty_threads_on_one_file(tmp_path: Path) -> None:
    data = content("threads", 60 * PAD)
    upload = Upload(target(tmp_path), "x", data).open()
    session = upload.session
    assert session
    started = threading.Barrier(20, timeout=30)

    def send(thread: int) -> None:
        started.wait()
        for part in upload.parts[thread::20]:
            (slot,) = upload.target.reserve(session, upload.plan, [part])
            body = MemoryBody(data[part.offset : part.offset + part.size])
            receipt = upload.target.upload(session, upload.plan, part, slot, body)
            upload.receipts[part.index] = upload.target.confirm(session, upload.plan, receipt)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(send, range(20)))
    upload.complete()
    assert get(target(tmp_path), "x") == data
    audit(index(tmp_path))
