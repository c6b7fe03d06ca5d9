"""Versions, references and reuse of pads: what survives which command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from cli_kit import fast_directory
from pads_kit import PAD, MemoryBody, Upload, audit, behind, closing, content, get, index, put, target  # noqa: F401
from server_kit import ServerProcess, running_server

from ppcli.errors import Rejected, SessionLost
from ppcli.model import Evidence, Receipt

V1 = content("v1", 3 * PAD + 10)
V2 = V1[:PAD] + content("v2", PAD) + V1[2 * PAD :]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with fast_directory() as root, running_server(root) as running:
        yield running


@pytest.fixture(params=["pads", "pads+http"])
def home(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Of a user whose pads are in a directory, or behind a server."""
    with behind(request.getfixturevalue("server")) if request.param == "pads+http" else nullcontext():
        yield tmp_path
    assert not list(tmp_path.rglob("*.corrupt-*")), "an index that nobody damaged was rebuilt"


def test_v1_is_readable_until_v2_is_complete_and_keeps_its_unchanged_pads(home: Path) -> None:
    pads = target(home)
    v1 = put(pads, "x", V1)
    upload = Upload(pads, "x", V2, "second").open().adopt()
    assert sorted(upload.receipts) == [0, 2, 3]
    assert all(receipt.evidence is Evidence.CONTENT for receipt in upload.receipts.values())
    upload.send()
    assert get(target(home), "x") == V1
    v2 = upload.complete()
    assert [a == b for a, b in zip(v1.slots, v2.slots, strict=True)] == [True, False, True, True]
    assert int(v2.version or 0) > int(v1.version or 0)
    assert get(target(home), "x") == V2
    state = index(home)
    audit(state)
    assert v1.slots[1] in state.free
    assert not state.owners


def test_cancel_of_a_half_sent_v2_leaves_v1(home: Path) -> None:
    pads = target(home)
    v1 = put(pads, "x", V1)
    before = index(home)
    Upload(pads, "x", V2, "second").open().adopt().send(1).abort()
    assert target(home).find("x") == v1
    assert get(pads, "x") == V1
    state = index(home)
    audit(state)
    assert state.names == before.names
    assert not state.owners


def test_rm_of_v1_while_v2_runs_loses_nothing_of_v2(home: Path) -> None:
    pads = target(home)
    put(pads, "x", V1)
    upload = Upload(pads, "x", V2, "second").open().adopt()
    assert target(home).remove(["x", "y"]) == ["x"]
    put(target(home), "other", content("other", 9 * PAD), "third")
    upload.send().complete()
    assert get(target(home), "x") == V2
    assert get(target(home), "other") == content("other", 9 * PAD)
    audit(index(home))


def test_freed_pads_are_taken_before_new_ones(home: Path) -> None:
    pads = target(home)
    put(pads, "x", V1)
    following = index(home).next
    pads.remove(["x"])
    put(pads, "y", V2)
    assert index(home).next == following
    audit(index(home))


def test_a_resumed_job_sends_only_what_is_missing(home: Path) -> None:
    upload = Upload(target(home), "x", V1).open().send(2)
    slots = {index: receipt.slot for index, receipt in upload.receipts.items()}
    upload.target = target(home)
    upload.open()
    assert {index: receipt.slot for index, receipt in upload.receipts.items()} == slots
    assert all(receipt.evidence is Evidence.CONTENT for receipt in upload.receipts.values())
    upload.send().complete()
    assert get(target(home), "x") == V1


def test_survey_releases_what_the_manifest_does_not_know(home: Path) -> None:
    upload = Upload(target(home), "x", V1).open().send(3)
    lost = upload.receipts.pop(1)
    upload.target = target(home)
    upload.open()
    state = index(home)
    audit(state)
    assert lost.slot in state.free
    assert sorted(upload.receipts) == [0, 2]


def test_survey_keeps_a_slot_that_is_only_reserved(home: Path) -> None:
    pads = target(home)
    upload = Upload(pads, "x", V1).open()
    assert upload.session
    slots = pads.reserve(upload.session, upload.plan, upload.parts)
    known = [Receipt(part.index, part.size, slot, "") for part, slot in zip(upload.parts, slots, strict=True)]
    survey = target(home).survey(upload.session, upload.plan, known[:2])
    assert (survey.held, survey.authoritative) == ({}, True)
    assert index(home).owners["job/0"].pads == set(slots[:2])


def test_survey_does_not_hold_what_was_overwritten(home: Path) -> None:
    upload = Upload(target(home), "x", V1).open().send()
    first = upload.parts[0]
    assert upload.session
    slot = upload.receipts[0].slot
    upload.target.upload(upload.session, upload.plan, first, slot, MemoryBody(b"x" * first.size))
    assert sorted(upload.open().receipts) == [1, 2, 3]


def test_opening_the_same_file_anew_sweeps_what_was_left(home: Path) -> None:
    Upload(target(home), "x", V1).open().send(2)
    Upload(target(home), "x", V1).open()
    assert not index(home).owners
    audit(index(home))


def test_a_new_session_is_needed_when_the_store_is_another(home: Path) -> None:
    upload = Upload(target(home), "x", V1).open().send(2)
    other = Upload(target(home, f"pads://{home}/other"), "x", V1).open()
    assert upload.session
    with pytest.raises(SessionLost):
        other.target.open(upload.plan, upload.session, None)
    with pytest.raises(SessionLost):
        target(home, f"pads://{home}/nothing").open(upload.plan, upload.session, None)


def test_a_job_that_lost_its_session_can_still_be_aborted(home: Path) -> None:
    pads = target(home)
    upload = Upload(pads, "x", V1).open().send(2)
    pads.abort(None, upload.plan)
    upload.abort()
    target(home / "other").abort(None, upload.plan)
    state = index(home)
    assert len(state.free) == state.next


def test_what_is_incomplete_is_listed_and_can_be_discarded(home: Path) -> None:
    upload = Upload(target(home), "x", V1, "job-1").open().send(2)
    pads = target(home)
    (found,) = pads.incomplete()
    assert (found.name, found.job, found.size) == ("x", "job-1", 2 * PAD)
    pads.discard(found)
    assert not list(pads.incomplete())
    audit(index(home))
    with pytest.raises(SessionLost):
        upload.send().complete()
    upload.target = target(home)  # its pads are free and still hold its bytes: they are taken back
    upload.open().send().complete()
    assert get(pads, "x") == V1
    audit(index(home))


def test_only_a_pad_of_its_own_is_written(home: Path) -> None:
    pads = target(home)
    v1 = put(pads, "x", V1)
    upload = Upload(pads, "x", V2, "second").open().adopt()
    assert upload.session
    with pytest.raises(SessionLost):
        pads.upload(upload.session, upload.plan, upload.parts[0], v1.slots[0], MemoryBody(bytes(PAD)))
    assert get(pads, "x") == V1


def test_complete_twice_gives_the_same(home: Path) -> None:
    upload = Upload(target(home), "x", V1).open().send()
    first = upload.complete()
    assert upload.complete(doubtful=True) == first == upload.complete()


@pytest.mark.parametrize("doubtful", [False, True])
def test_a_completion_whose_reply_was_lost(home: Path, doubtful: bool) -> None:
    upload = Upload(target(home), "x", V1).open().send()
    first = upload.complete()
    upload.target = target(home)
    assert len(upload.open().receipts) == upload.plan.chunks
    assert upload.complete(doubtful=doubtful) == first
    state = index(home)
    audit(state)
    assert not state.owners


def test_complete_refuses_a_pad_that_was_written_again(home: Path) -> None:
    upload = Upload(target(home), "x", V1).open().send()
    first = upload.parts[0]
    assert upload.session
    body = MemoryBody(V1[: first.size])
    upload.target.upload(upload.session, upload.plan, first, upload.receipts[0].slot, body)
    with pytest.raises(SessionLost):
        upload.complete()


def test_immutable_refuses_other_content_only(home: Path) -> None:
    pads = target(home)
    put(pads, "x", V1)
    with pytest.raises(Rejected) as refused:
        Upload(pads, "x", V2, "second", immutable=True).put()
    assert refused.value.reason == "exists"
    assert get(pads, "x") == V1
    Upload(pads, "x", V1, "third", immutable=True).put()
    audit(index(home))


@pytest.mark.parametrize("home", ["pads"], indirect=True)
def test_a_torn_write_is_not_there(home: Path) -> None:
    pads = target(home)
    upload = Upload(pads, "x", V1[:PAD]).open().send()
    (receipt,) = upload.receipts.values()

    class Cut(MemoryBody):
        def __iter__(self) -> Iterator[memoryview]:
            yield memoryview(b"half")
            raise KeyboardInterrupt

    assert upload.session
    with pytest.raises(KeyboardInterrupt):
        pads.upload(upload.session, upload.plan, upload.parts[0], receipt.slot, Cut(V1[:PAD]))
    assert not upload.open().receipts
    upload.send().complete()
    assert get(pads, "x") == V1[:PAD]


@pytest.mark.parametrize("home", ["pads"], indirect=True)
def test_a_store_that_vanished_is_a_lost_session(home: Path) -> None:
    upload = Upload(target(home), "x", V1).open().send(2)
    (home / "data").rename(home / "gone")
    assert upload.session
    with pytest.raises(SessionLost):
        upload.target.open(upload.plan, upload.session, None)
    upload.put()
    assert get(target(home), "x") == V1
