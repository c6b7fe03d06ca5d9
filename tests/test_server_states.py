"""The table of session states, and the hash that runs along while chunks arrive."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ppcli.server.frontier import Frontier
from ppcli.server.refusal import Refused
from ppcli.server.states import FINAL, FOLLOWING, RECEIVING, SessionState, check, check_receiving

ALL = list(SessionState)


@pytest.mark.parametrize("old", ALL)
def test_a_final_state_stays(old: SessionState) -> None:
    assert (not FOLLOWING[old]) == (old in FINAL)
    for new in ALL:
        if new in FOLLOWING[old]:
            check(old, new)
        else:
            with pytest.raises(Refused):
                check(old, new)


@pytest.mark.parametrize("state", ALL)
def test_only_an_open_session_takes_chunks(state: SessionState) -> None:
    """One that is being completed does not, although it may become `uploading` again."""
    if state in RECEIVING:
        check_receiving(state)
    else:
        with pytest.raises(Refused):
            check_receiving(state)


@pytest.mark.parametrize(
    ("state", "status"),
    [("completed", 409), ("aborted", 410), ("expired", 410), ("completing", 503), ("assembled", 503)],
)
def test_409_means_that_the_file_is_there(state: str, status: int) -> None:
    """PutPlace's own uploader takes every 409 for success."""
    with pytest.raises(Refused) as raised:
        check_receiving(SessionState(state))
    assert raised.value.status == status


def test_every_state_that_is_not_final_can_end() -> None:
    reached = {SessionState.INITIATED}
    for _ in ALL:
        reached |= {new for old in reached for new in FOLLOWING[old]}
    assert reached == set(ALL)


# the frontier

CHUNK = 3 << 20


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.mark.parametrize("seed", range(4))
def test_chunks_in_any_order_give_the_digest(tmp_path: Path, executor: ThreadPoolExecutor, seed: int) -> None:
    data = random.Random(seed).randbytes(5 * CHUNK + 7)
    path = tmp_path / "file"
    path.write_bytes(data)
    frontier = Frontier(path, executor, lambda: False)
    order = list(range(6))
    random.Random(seed).shuffle(order)
    for number in order[: 6 - seed]:  # what an earlier process received is not told
        frontier.add(number, number * CHUNK, min(len(data), (number + 1) * CHUNK))
    assert frontier.finish(len(data)) == hashlib.sha256(data).hexdigest()


def test_a_chunk_that_changes_is_hashed_again(tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    data = bytearray(2 * CHUNK)
    path = tmp_path / "file"
    path.write_bytes(data)
    frontier = Frontier(path, executor, lambda: False)
    for number in range(2):
        frontier.add(number, number * CHUNK, (number + 1) * CHUNK)
    wrong = frontier.finish(len(data))
    frontier.forget(0)
    data[:CHUNK] = bytes([1]) * CHUNK
    path.write_bytes(data)
    frontier.add(0, 0, CHUNK)
    assert frontier.finish(len(data)) == hashlib.sha256(data).hexdigest() != wrong


def test_a_server_that_stops_gives_up(tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    (tmp_path / "file").write_bytes(bytes(CHUNK))
    with pytest.raises(InterruptedError):
        Frontier(tmp_path / "file", executor, lambda: True).finish(CHUNK)


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path, executor: ThreadPoolExecutor) -> None:
    (tmp_path / "file").write_bytes(bytes(10))
    with pytest.raises(OSError):
        Frontier(tmp_path / "file", executor, lambda: False).finish(11)
