"""What is written in fewer lines says the same."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppcli import folding, planner, steps
from ppcli.compaction import compact
from ppcli.manifest import FileEntry, JobOptions, Manifest
from ppcli.model import Action, Evidence, Fingerprint, JobState, Session

SIZE, CHUNK = 20, 10


def manifest() -> Manifest:
    files = [
        FileEntry(str(n), f"/{n}", Fingerprint(SIZE, 1, 1, n, 1), CHUNK, planner.plan_chunks(SIZE, CHUNK))
        for n in (0, 1)
    ]
    return Manifest("job", "memory:", JobOptions(1, 1, 1), files, "then", "then", state=JobState.UPLOADING)


def folded(batch: list[steps.Step]) -> Manifest:
    plan = manifest()
    for step in batch:
        folding.apply(plan, 1, step)
    return plan


FILES, CHUNKS, WORDS = st.sampled_from([0, 1]), st.sampled_from([0, 1]), st.sampled_from(["a", "b"])
STEPS = st.one_of(
    st.builds(steps.Opening, st.sampled_from([(0,), (1,), (0, 1)])),
    st.builds(steps.Opened, FILES, st.builds(Session, WORDS)),
    st.builds(lambda file, slot: steps.Opened(file, Session("s"), (0,), (slot,)), FILES, st.integers(1, 9)),
    st.builds(lambda file, chunk, slot: steps.Reserved(file, (chunk,), (slot,)), FILES, CHUNKS, st.integers(1, 9)),
    st.builds(steps.Uploaded, FILES, CHUNKS, WORDS, st.none() | WORDS),
    st.builds(
        steps.Confirmed, FILES, CHUNKS, st.integers(1, 9), WORDS, st.none() | WORDS, st.sampled_from(list(Evidence))
    ),
    st.builds(steps.Completing, FILES, st.none() | WORDS),
    st.builds(steps.Completed, FILES, WORDS, st.none() | WORDS, st.sampled_from(list(Action)), st.just(1)),
    st.builds(lambda file, chunk, lost: steps.Reset(file, (chunk,), "why", lost), FILES, CHUNKS, st.booleans()),
    st.builds(steps.Failed, FILES, st.just(steps.Failure("source", None, "m", "h", 4))),
    st.builds(steps.FileCancelled, FILES),
    st.just(steps.JobChanged(JobState.PAUSED)),
    st.just(steps.JobChanged(JobState.UPLOADING)),
)


@given(st.lists(STEPS, max_size=12))
def test_a_batch_is_folded_to_the_same_state(batch: list[steps.Step]) -> None:
    assert folded(list(compact(batch))) == folded(batch)
    assert folded(list(compact(batch))).totals == folded(batch).totals


@given(st.lists(STEPS, max_size=6))
def test_what_was_written_is_read_back(batch: list[steps.Step]) -> None:
    for step in compact(batch):
        read = steps.from_record(json.loads(steps.to_body(1, step) + "}"))
        assert read == step


def test_the_end_of_a_small_file_takes_one_line() -> None:
    confirmed = steps.Confirmed(0, 0, 1, "ab", "tag", Evidence.CONTENT)
    completed = steps.Completed(0, "s3://b/0", "md5:cd", Action.SENT, 10)
    other = steps.Hashed(1, 0, "ab")
    assert compact([confirmed, other, steps.Completing(0, None), completed]) == [
        steps.ConfirmedCompleted(0, 0, 1, "ab", "tag", Evidence.CONTENT, "s3://b/0", "md5:cd", Action.SENT),
        other,
    ]


def test_a_step_that_a_later_one_of_its_batch_says_again_is_left_out() -> None:
    uploaded, confirmed = steps.Uploaded(0, 1, "ab", None), steps.Confirmed(0, 1, 7, "ab", None, Evidence.CONTENT)
    reset, other = steps.Reset(0, (1,), "damaged"), steps.Uploaded(0, 2, "cd", None)
    assert compact([uploaded, other, confirmed]) == [other, confirmed]
    assert compact([uploaded, reset, confirmed]) == [reset, confirmed]
    later = [confirmed, reset, uploaded]
    assert compact(later) == later, "what comes after says something new"


def test_the_journal_of_an_older_version_is_read() -> None:
    """0.1.0 had a line for each file that was about to be opened; builds after it had another word."""
    assert steps.from_record({"seq": 2, "step": "opening", "file": 3}) == steps.Opening((3,))
    opened = steps.from_record({"seq": 3, "step": "opened", "file": 3, "session": {"id": "s", "detail": {}}})
    assert opened == steps.Opened(3, Session("s"))
    line = {"seq": 4, "step": "opened+reserved", "file": 3, "session": {"id": "s"}, "chunks": [0], "slots": [7]}
    assert steps.from_record(line) == steps.Opened(3, Session("s"), (0,), (7,))
    for bad in ({}, {"file": None}, {"file": "3"}, {"files": 3}):
        with pytest.raises(ValueError):
            steps.from_record({"seq": 2, "step": "opening", **bad})
