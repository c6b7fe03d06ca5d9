"""A crash between any two durable steps: every fsync in turn is the last thing that a process does.

What a finished call told is still true afterwards, the name has the old or the new content and nothing else, the next
process goes on, and no pad is lost or in two places.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import pads_kit
import pytest
from pads_kit import audit, behind, closing, content, get, index  # noqa: F401
from server_kit import running_server

from ppcli import disk
from ppcli.pads import ledger
from ppcli.target import Body
from ppcli.targets.pads import PadTarget
from ppcli.transport import Reply, Request, Transport

PAD = 512
"""So large that a record takes one pad: the steps are those of a real store."""

V1 = content("v1", 2 * PAD + 10)
V2 = V1[:PAD] + content("v2", PAD) + V1[2 * PAD :]


def target(home: Path) -> PadTarget:
    return pads_kit.target(home, chunk_size=PAD)


def begin(pads: PadTarget, name: str, data: bytes, job: str = "job") -> pads_kit.Upload:
    return pads_kit.Upload(pads, name, data, job, chunk_size=PAD)


class Crash(BaseException):
    """The process is dead."""


@dataclass
class Power:
    """Durable steps succeed `left` times; the next one is cut off, before or after it had its effect."""

    left: int
    effect: bool
    fsync: Callable[[int], None] = field(default=disk.fsync)

    def __call__(self, fd: int) -> None:
        if self.left < 0:
            raise Crash
        self.left -= 1
        if self.left >= 0 or self.effect:
            self.fsync(fd)
        if self.left < 0:
            raise Crash


Cut: TypeAlias = Callable[[int, bool], AbstractContextManager[None]]


@contextmanager
def power(left: int, effect: bool) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "fsync", Power(left, effect))
        yield


@dataclass
class Told:
    """What the life of the store has been told so far: the contents that may be under the name now."""

    allowed: tuple[bytes | None, ...] = (None,)
    upload: pads_kit.Upload | None = None


def _life(home: Path, told: Told) -> None:
    """v1, a cancelled try, v2 (which adopts), removal, v1 again."""
    for job, data in (("first", V1), ("second", V2)):
        told.upload = begin(target(home), "x", data, job).open().adopt().send()
        before = told.allowed
        told.allowed = (*before, data)
        told.upload.complete()
        told.allowed = (data,)
        told.upload = begin(target(home), "x", V1 + V2, "never").open().adopt().send(2)
        told.upload.abort()
    told.upload = None
    told.allowed = (None, V2)
    target(home).remove(["x"])
    told.allowed = (None,)


@contextmanager
def calls(left: int, effect: bool) -> Iterator[None]:
    """As `power`, but what is counted and cut off are calls to a server."""
    real, done = Transport.send, itertools.count()

    def send(transport: Transport, request: Request, body: Body | None = None) -> Reply:
        last = next(done) >= left
        if last and not effect:
            raise Crash
        reply = real(transport, request, body)
        if last:
            raise Crash
        return reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transport, "send", send)
        yield


def _check_life(home: Path, step: int, effect: bool, cut: Cut = power) -> bool:
    """Crash at this step, then look and go on. Gives whether the crash came."""
    told = Told()
    try:
        with cut(step, effect):
            _life(home, told)
        return False
    except Crash:
        pass
    pads = target(home)
    found = get(pads, "x")
    assert found in told.allowed
    made = list(home.glob("data/pads/store.json")) or list(home.glob("data/pads-http/*/index.jsonl"))
    assert not made or not index(home).stale, "the next look finishes the wiping"
    if told.upload and told.upload.session:
        told.upload.target = pads
        if told.upload.job == "never":
            told.upload.abort()
        else:
            told.upload.open().send().complete(doubtful=True)
            found = told.upload.data
    assert get(target(home), "x") == found
    begin(target(home), "y", V2 + V1, "later").put()
    for upload in list(pads.incomplete()):
        pads.discard(upload)
    state = index(home)
    audit(state)
    assert not state.owners
    assert not state.stale or made[0].name == "index.jsonl", "behind a server a few may wait"
    names = sorted(state.names)
    assert target(home).recover() == len(names)
    assert (get(target(home), "x"), get(target(home), "y")) == (found, V2 + V1)
    audit(index(home))
    pads_kit.close_targets()
    return True


@pytest.mark.parametrize("effect", [False, True])
def test_a_crash_at_every_durable_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, effect: bool) -> None:
    monkeypatch.setattr(ledger, "COMPACT_AT", 300)  # every few operations
    for step in itertools.count():
        if not _check_life(tmp_path / str(step), step, effect):
            break
    assert step > 50


@pytest.mark.sweep
@pytest.mark.timeout(600)
@pytest.mark.parametrize("effect", [False, True])
@pytest.mark.parametrize("cut", [power, calls])
def test_a_crash_at_every_step_of_a_store_behind_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: Cut, effect: bool
) -> None:
    monkeypatch.setattr(ledger, "COMPACT_AT", 300)
    with running_server(tmp_path) as server, behind(server):
        for step in itertools.count():
            if not _check_life(tmp_path / str(step), step, effect, cut):
                break
    assert step > 30


@pytest.mark.parametrize("effect", [False, True])
def test_a_crash_while_the_index_is_rebuilt(tmp_path: Path, effect: bool) -> None:
    for step in itertools.count():
        home = tmp_path / str(step)
        begin(target(home), "x", V1).put()
        path = home / "data" / "pads" / "index.json"
        path.write_bytes(b"damaged")
        try:
            with power(step, effect):
                target(home).find("x")
            break
        except Crash:
            assert get(target(home), "x") == V1
            audit(index(home))
    assert step >= 4


def test_a_full_disk_is_told_and_leaves_the_index_sound(tmp_path: Path) -> None:
    pads = target(tmp_path)
    begin(pads, "x", V1).put()
    upload = begin(pads, "x", V2, "second").open().adopt()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "fsync", full)
        with pytest.raises(Exception, match="the disk is full") as failed:
            upload.send()
    assert getattr(failed.value, "exit_code", None) == 11
    upload.target = target(tmp_path)
    upload.open().send().complete()
    assert get(target(tmp_path), "x") == V2
    audit(index(tmp_path))
