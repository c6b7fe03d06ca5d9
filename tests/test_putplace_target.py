"""The PutPlace target on its own: exactly what it asks, and what it makes of replies, odd ones above all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppcli.errors import (
    Credentials,
    Damaged,
    Doubt,
    Loss,
    PpcliError,
    Rejected,
    SessionLost,
    StepFailure,
    Usage,
)
from ppcli.model import Evidence, FilePlan, Part, Receipt, Session
from ppcli.source import Source
from ppcli.target import Body
from ppcli.targets import Settings, connect
from ppcli.targets.putplace import PutPlaceTarget
from ppcli.transport import Reply, Request, Transport
from ppcli.transport.refusals import refusal

DATA = bytes(range(256)) * 8
SHA = hashlib.sha256(DATA).hexdigest()
PLAN = FilePlan("job", 0, "trip/a b.bin", len(DATA), 1700000000.0, 1024, 2, f"sha256:{SHA}")
SESSION = Session("u/1", 2e9, {"hostname": "box", "sha256": f"sha256:{SHA}"})
Answer = tuple[int, Any]


class Script(Transport):
    """Answers from a list, or from a function of the request; keeps what was asked, with the bytes of bodies."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__("http://127.0.0.1:1")
        self.answers = list(answers)
        self.asked: list[tuple[str, str, Any]] = []
        self.act: Callable[[Request], Answer] | None = None
        self.offer: Answer = (404, {"detail": "Not Found"})
        """What it says of itself: a putplace-server nothing."""

    def send(self, request: Request, body: Body | None = None) -> Reply:
        sent: Any = b"".join(bytes(piece) for piece in body) if body is not None else request.content
        if request.headers.get("Content-Type") == "application/json":
            sent = json.loads(sent)
        if request.path.endswith("/api/limits") and self.act is None:
            status, value = self.offer
        else:
            self.asked.append((request.method, request.path, sent))
            status, value = self.act(request) if self.act else self.answers.pop(0)
        reply = Reply(status, {"content-type": "application/json"}, json.dumps(value).encode())
        if 200 <= status < 300 or status in request.expect:
            return reply
        raise refusal(self.origin, reply)


def target(tmp_path: Path, script: Transport, url: str = "http://127.0.0.1:1/pp?hostname=box") -> PutPlaceTarget:
    settings = Settings(tmp_path / "data", tmp_path / "config", lambda path, fresh: "", http=lambda base: script)
    made = connect(url, settings)
    assert isinstance(made, PutPlaceTarget)
    return made


@pytest.fixture
def body(tmp_path: Path) -> Iterator[Body]:
    (tmp_path / "a").write_bytes(DATA)
    with Source(tmp_path / "a") as source:
        yield source.body(Part(1, 1024, 1024))


def stored(etag: str, received: int = 1024) -> Answer:
    return 200, {"chunk_num": 1, "etag": etag, "received_bytes": received, "uploaded_chunks": 1, "total_chunks": 2}


def entry(name: str = PLAN.name, host: str = "box", sha: str = SHA, **more: object) -> dict[str, object]:
    known = {"filepath": name, "hostname": host, "sha256": sha, "file_size": len(DATA), "has_file_content": True}
    return known | {"created_at": "2026-01-02T03:04:05"} | more


CHUNK_SHA = hashlib.sha256(DATA[1024:]).hexdigest()
PART = Part(1, 1024, 1024)


@pytest.mark.parametrize(
    ("given_url", "url", "base"),
    [
        ("https://Host.example", "https://host.example", "https://host.example"),
        ("https://host.example:443/", "https://host.example", "https://host.example"),
        ("putplace+http://h:8000/a//", "putplace+http://h:8000/a", "http://h:8000"),
        ("http://[::1]:8000?hostname=x%20y", "http://[::1]:8000?hostname=x+y", "http://[::1]:8000"),
    ],
)
def test_urls_have_one_form(tmp_path: Path, given_url: str, url: str, base: str) -> None:
    asked: list[str] = []

    def http(base: str) -> Transport:
        asked.append(base)
        return Script()

    settings = Settings(tmp_path, tmp_path, lambda path, fresh: "", http=http)
    assert connect(given_url, settings).url == url
    assert asked == [base]


@pytest.mark.parametrize(
    "url", ["http://", "http://h:99999", "http://h?region=1", "http://h?hostname=", "putplace+http:h"]
)
def test_other_urls_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(Usage):
        target(tmp_path, Script(), url)


def test_a_session_is_asked_for_with_the_whole_digest(tmp_path: Path) -> None:
    script = Script((201, {"upload_id": "u-1", "expires_at": "2026-01-05T14:00:00", "message": "ok"}))
    session = target(tmp_path, script).open(PLAN, None, None)
    assert script.asked == [
        (
            "POST",
            "/pp/api/uploads/initiate",
            {
                "filepath": "trip/a b.bin",
                "hostname": "box",
                "sha256": SHA,
                "file_size": 2048,
                "chunk_size": 1024,
                "total_chunks": 2,
            },
        )
    ]
    assert session.id == "u-1" and not session.slides
    assert session.expires_at == 1767621600.0, "a time without a zone is UTC"


def test_other_content_needs_another_session(tmp_path: Path) -> None:
    with pytest.raises(SessionLost):
        target(tmp_path, Script()).open(replace(PLAN, digest="sha256:" + "0" * 64), SESSION, None)


def test_a_chunk_and_its_proof(tmp_path: Path, body: Body) -> None:
    script = Script(stored(CHUNK_SHA))
    receipt = target(tmp_path, script).upload(SESSION, PLAN, PART, 1, body)
    assert script.asked == [("PUT", "/pp/api/uploads/u%2F1/chunk/1", DATA[1024:])]
    assert (receipt.etag, receipt.evidence) == (CHUNK_SHA, Evidence.CONTENT)


def test_a_chunk_that_is_there_already_is_no_failure(tmp_path: Path, body: Body) -> None:
    receipt = target(tmp_path, Script(stored(CHUNK_SHA, 0))).upload(SESSION, PLAN, PART, 1, body)
    assert receipt.evidence is Evidence.CONTENT


def test_wrong_bytes_are_sent_once_more_and_then_the_session_is_lost(tmp_path: Path, body: Body) -> None:
    with pytest.raises(Damaged):
        target(tmp_path, Script(stored("f" * 64, 1024))).upload(SESSION, PLAN, PART, 1, body)
    with pytest.raises(SessionLost) as lost:
        target(tmp_path, Script(stored("f" * 64, 0))).upload(SESSION, PLAN, PART, 1, body)
    assert lost.value.loss is Loss.POISONED


def test_bytes_that_are_not_those_of_the_digest_end_the_file(tmp_path: Path, body: Body) -> None:
    """The digests were computed before: what is sent now is another revision of the source."""
    part = replace(PART, checksum="0" * 32, sha256=CHUNK_SHA)
    with pytest.raises(PpcliError) as caught:
        target(tmp_path, Script(stored("f" * 64))).upload(SESSION, PLAN, part, 1, body)
    assert (caught.value.exit_code, caught.value.reason) == (4, "changed")


@pytest.mark.parametrize(("status", "loss"), [(410, Loss.EXPIRED), (404, Loss.GONE)])
def test_a_session_that_has_ended(tmp_path: Path, body: Body, status: int, loss: Loss) -> None:
    with pytest.raises(SessionLost) as lost:
        target(tmp_path, Script((status, {"detail": "no"}))).upload(SESSION, PLAN, PART, 1, body)
    assert lost.value.loss is loss


def receipts(count: int = 2) -> list[Receipt]:
    return [Receipt(n, 1024, n, "x", f"e{n}", Evidence.CONTENT) for n in range(count)]


def test_an_expired_session_can_still_be_completed(tmp_path: Path) -> None:
    ended = replace(SESSION, expires_at=1.0)
    there = target(tmp_path, Script())
    assert not there.survey(ended, PLAN, receipts(2)).authoritative
    with pytest.raises(SessionLost) as lost:
        there.survey(ended, PLAN, receipts(1))
    assert lost.value.loss is Loss.EXPIRED


def test_our_own_server_is_asked_what_it_has(tmp_path: Path) -> None:
    told = {"state": "uploading", "received": [{"chunk_num": 0, "etag": "e0", "size": 1024}], "next": 1}
    more = {"state": "uploading", "received": [{"chunk_num": 1, "etag": "other", "size": 1024}], "next": None}
    script = Script((200, told), (200, more | {"expires_at": "2033-05-18T03:33:20Z"}))
    survey = target(tmp_path, script).survey(replace(SESSION, slides=True), PLAN, receipts())
    assert survey.authoritative and set(survey.held) == {0} and survey.expires_at == 2e9
    assert [path for _, path, _ in script.asked] == ["/pp/api/uploads/u%2F1?start=0", "/pp/api/uploads/u%2F1?start=1"]


def test_complete_names_every_part(tmp_path: Path) -> None:
    script = Script((200, {"file_id": "1", "sha256": SHA, "file_size": 2048, "status": "completed"}))
    remote = target(tmp_path, script).complete(SESSION, PLAN, receipts()[::-1], doubtful=False)
    parts = [{"chunk_num": 0, "etag": "e0"}, {"chunk_num": 1, "etag": "e1"}]
    assert script.asked == [("POST", "/pp/api/uploads/u%2F1/complete", {"parts": parts})]
    assert remote.location == "http://127.0.0.1:1/pp?hostname=box#trip/a%20b.bin"


@pytest.mark.parametrize(
    ("detail", "loss"),
    [
        ("Not all chunks uploaded: 1/2", Loss.GONE),
        ("Not all chunks uploaded: 3/2", Loss.POISONED),
        (f"SHA256 mismatch: expected {SHA}, got {'0' * 64}", Loss.POISONED),
        ("ETag mismatch for chunk 1", Loss.POISONED),
    ],
)
def test_what_can_never_be_completed_is_lost(tmp_path: Path, detail: str, loss: Loss) -> None:
    with pytest.raises(SessionLost) as lost:
        target(tmp_path, Script((400, {"detail": detail}))).complete(SESSION, PLAN, receipts(), doubtful=False)
    assert lost.value.loss is loss


def test_a_failed_complete_is_a_doubt_and_a_doubt_is_resolved_by_asking(tmp_path: Path) -> None:
    errno = {"detail": "Failed to complete upload: [Errno 2] No such file: '/tmp/u/assembled_file'"}
    with pytest.raises(Doubt):
        target(tmp_path, Script((500, errno))).complete(SESSION, PLAN, receipts(), doubtful=False)
    asked = Script((200, [entry()]))
    remote = target(tmp_path, asked).complete(SESSION, PLAN, receipts(), doubtful=True)
    assert remote.digest == PLAN.digest and len(asked.asked) == 1
    others = [entry(host="elsewhere"), entry(name="other"), entry(has_file_content=False, host="third")]
    lost = Script((200, others), (500, errno), (200, others))
    with pytest.raises(SessionLost):
        target(tmp_path, lost).complete(SESSION, PLAN, receipts(), doubtful=True)


def test_immutable_asks_before_it_completes(tmp_path: Path) -> None:
    script = Script((200, [entry(sha="0" * 64)]), (200, []))
    with pytest.raises(Rejected) as refused:
        target(tmp_path, script).complete(SESSION, replace(PLAN, immutable=True), receipts(), doubtful=False)
    assert refused.value.reason == "exists"
    assert not any("complete" in path for _, path, _ in script.asked)


def test_storage_on_s3_is_warned_of(tmp_path: Path) -> None:
    answer = (200, {"sha256": SHA, "storage_location": "s3://bucket/files/x"})
    there = target(tmp_path, Script(answer))
    there.complete(SESSION, PLAN, receipts(), doubtful=False)
    assert [notice.code for notice in there.notices()] == ["storage"]


def test_an_old_server_without_clones_is_asked_for_the_one_file(tmp_path: Path) -> None:
    script = Script((404, {"detail": "Not Found"}), (200, entry()))
    assert target(tmp_path, script).find(PLAN.name, PLAN.digest) is not None
    assert [path for _, path, _ in script.asked] == [f"/pp/api/clones/{SHA}", f"/pp/get_file/{SHA}"]


def test_the_newest_of_a_name_counts_and_other_hosts_do_not(tmp_path: Path) -> None:
    files = [entry("a", sha="1" * 64), entry("a", sha="2" * 64), entry("b", host="other"), entry("A")]
    found = list(target(tmp_path, Script((200, files), (200, []))).list(""))
    assert [(remote.name, remote.digest) for remote in found] == [("A", f"sha256:{SHA}"), ("a", "sha256:" + "1" * 64)]


def test_removal_goes_in_one_batch_or_one_by_one(tmp_path: Path) -> None:
    files = (200, [entry("a", status="active"), entry("b", status="active"), entry("c", status="deleted")])
    script = Script(files, (200, []), (200, {"files": []}))
    assert target(tmp_path, script).remove(["a", "b", "c"]) == ["a", "b"]
    assert [given["filepath"] for given in script.asked[-1][2]["files"]] == ["a", "b"]
    script = Script(files, (200, []), (404, {"detail": "Not Found"}), (200, {}), (404, {"detail": "gone"}))
    assert target(tmp_path, script).remove(["a", "b"]) == ["a", "b"]
    assert [method for method, _, _ in script.asked[-2:]] == ["DELETE", "DELETE"]


def test_what_an_old_server_goes_on_listing_is_gone_for_us(tmp_path: Path) -> None:
    """putplace-server up to 0.11 marks a removed file and does not tell the mark; stored again, it is another entry."""
    old, new = entry(_id="1"), entry(_id="2")
    page: list[Answer] = [(200, [old]), (200, [])]
    there = target(tmp_path, Script(*page, (200, {}), *page, (200, [old])))
    assert there.remove([PLAN.name]) == [PLAN.name]
    assert list(there.list("")) == []
    assert there.find(PLAN.name, PLAN.digest) is None
    assert there.link(PLAN) is None, "its content may go any day: it is sent again"
    assert target(tmp_path, Script((200, [old, new]))).find(PLAN.name, PLAN.digest) is not None


def test_a_refused_removal_can_be_repeated(tmp_path: Path) -> None:
    page: list[Answer] = [(200, [entry(_id="1")]), (200, [])]
    there = target(tmp_path, Script(*page, (403, {"detail": "no"}), *page, (200, {})))
    with pytest.raises(Rejected):
        there.remove([PLAN.name])
    assert there.remove([PLAN.name]) == [PLAN.name]


def test_content_under_another_name_is_linked(tmp_path: Path) -> None:
    script = Script((200, [entry("other", "elsewhere")]), (201, {"upload_required": False}))
    remote = target(tmp_path, script).link(PLAN)
    assert remote is not None and remote.name == PLAN.name
    asked = script.asked[-1][2]
    assert (asked["filepath"], asked["hostname"], asked["sha256"]) == (PLAN.name, "box", SHA)
    without = Script((200, [entry("other", has_file_content=False)]))
    assert target(tmp_path, without).link(PLAN) is None


def test_login_of_both_generations(tmp_path: Path) -> None:
    new = Script((200, {"access_token": "t", "token_type": "bearer"}))
    assert target(tmp_path, new).login("a@b", "pw") == "t"
    old = Script((404, {"detail": "Not Found"}), (200, {"access_token": "t"}))
    assert target(tmp_path, old).login("a@b", "pw") == "t"
    assert [path for _, path, _ in old.asked] == ["/pp/api/v2/auth/login", "/pp/api/login"]
    with pytest.raises(Credentials) as refused:
        target(tmp_path, Script((401, {"detail": "Bad credentials"}))).login("a@b", "secret-pw")
    assert "secret-pw" not in refused.value.message + refused.value.hint


@pytest.mark.parametrize("status", [404, 405])
def test_a_putplace_server_does_not_list_unfinished_uploads(tmp_path: Path, status: int) -> None:
    with pytest.raises(Rejected) as refused:
        list(target(tmp_path, Script((status, {"detail": "no"}))).incomplete())
    assert refused.value.reason == "unsupported"
    assert "putplace-server" in refused.value.message


KEYS = (
    *("upload_id", "expires_at", "etag", "received_bytes", "received", "state", "next", "chunk_num", "detail"),
    *("filepath", "hostname", "sha256", "file_size", "status", "created_at", "file_mtime", "access_token"),
)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 1 << 70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from([200, 201, 400, 404, 410, 422, 429, 500]), JUNK)
def test_no_reply_makes_it_stumble(tmp_path_factory: pytest.TempPathFactory, status: int, value: object) -> None:
    """Whatever a server says, what comes of it is an error of ours, or a result."""
    script = Script()
    there = target(tmp_path_factory.getbasetemp(), script)
    left = [0]

    def act(request: Request) -> Answer:
        left[0] += 1
        return (status, value) if left[0] < 4 else (200, [])

    script.act = act
    calls: list[Callable[[], object]] = [
        lambda: there.open(PLAN, None, None),
        lambda: there.survey(replace(SESSION, slides=True), PLAN, receipts()),
        lambda: there.complete(SESSION, PLAN, receipts(), doubtful=True),
        lambda: there.find(PLAN.name, PLAN.digest),
        lambda: list(there.list("")),
        lambda: there.link(PLAN),
        lambda: there.abort(SESSION, PLAN),
        lambda: there.login("a", "b"),
        lambda: list(there.incomplete()),
        lambda: target(tmp_path_factory.getbasetemp(), script).learn(),
    ]
    for call in calls:
        left[0] = 0
        with contextlib.suppress(PpcliError, StepFailure):
            call()


def test_the_end_of_a_session_is_told_by_our_clock(tmp_path: Path) -> None:
    """The server's clock is two hours behind."""

    class Behind(Script):
        def send(self, request: Request, body: Body | None = None) -> Reply:
            reply = super().send(request, body)
            return replace(reply, headers={"date": formatdate(time.time() - 7200, usegmt=True)})

    ends = datetime.fromtimestamp(time.time() - 3600, UTC).isoformat()
    session = target(tmp_path, Behind((201, {"upload_id": "u", "expires_at": ends}))).open(PLAN, None, None)
    assert session.expires_at is not None
    assert 3500 < session.expires_at - time.time() < 3700


def test_entries_of_other_accounts_are_not_ours(tmp_path: Path) -> None:
    theirs = entry(uploaded_by_user_id="them", _id="1")
    alone = target(tmp_path, Script((200, [theirs]), (200, []), (201, {"upload_required": False})))
    assert alone.find(PLAN.name, PLAN.digest) is None
    assert alone.link(PLAN) is not None, "its content is there, and now we have an entry too"
    ours = entry(uploaded_by_user_id="us", _id="2")
    both = target(tmp_path, Script((200, [theirs, ours]), (200, [entry("x", uploaded_by_user_id="us")])))
    assert both.find(PLAN.name, PLAN.digest) is not None


@pytest.mark.parametrize("stamp", [1.7e18, -1, "x", None, True])
def test_odd_times_are_no_times(tmp_path: Path, stamp: object) -> None:
    files = [entry("a", file_mtime=stamp, created_at="9999-12-31T23:59:59")]
    (found,) = target(tmp_path, Script((200, files), (200, []))).list("")
    assert found.modified is None


def test_a_list_of_chunks_without_an_end_ends(tmp_path: Path) -> None:
    script = Script()
    script.act = lambda request: (200, {"state": "uploading", "received": [], "next": len(script.asked)})
    target(tmp_path, script).survey(replace(SESSION, slides=True), PLAN, receipts())
    assert len(script.asked) <= PLAN.chunks
