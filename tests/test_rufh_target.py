"""The target of the IETF draft on its own: what it asks, and what it makes of replies."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_transport import BASE, Answer, Script

from ppcli.bodies import ChunkBody
from ppcli.errors import Doubt, Further, Loss, PpcliError, Rejected, SessionLost, StepFailure, Transient, Usage
from ppcli.model import Evidence, FilePlan, Part, Receipt, Session
from ppcli.source import Source
from ppcli.target import Store
from ppcli.targets import Settings, connect
from ppcli.targets.rufh import RufhTarget
from ppcli.targets.rufh_api import limits

DATA = bytes(range(256)) * 16
SIZE = 1024
PLAN = FilePlan("job", 0, "trip/ä b.jpg", len(DATA), 1.7e9, SIZE, 4)
URL = f"{BASE}/uploads/u1"
SESSION = Session(URL, None, {"length": str(len(DATA))}, in_order=True)
PART = Part(1, SIZE, SIZE)
KNOWN = [Receipt(index, SIZE, index * SIZE, f"{index}" * 32) for index in range(4)]


def target(script: Script, url: str = f"rufh+{BASE}/files") -> RufhTarget:
    made = connect(url, Settings(Path(), Path(), lambda path, fresh: "", http=lambda base: script))
    assert isinstance(made, RufhTarget) and not isinstance(made, Store)
    return made


@pytest.fixture
def body(tmp_path: Path) -> Iterator[ChunkBody]:
    (tmp_path / "a").write_bytes(DATA)
    with Source(tmp_path / "a") as source:
        yield source.body(PART)


def at(offset: int, complete: str = "?0") -> Answer:
    return 204, {"Upload-Offset": str(offset), "Upload-Complete": complete}


def test_an_upload_is_created_empty() -> None:
    script = Script((201, {"Location": "/uploads/u1", "Upload-Limit": "max-age=3600, max-size=5000"}))
    session = target(script).open(PLAN, None, None)
    ((method, path, headers, sent),) = script.asked
    assert (method, path, sent) == ("POST", "/files", b"")
    assert headers == {
        "Upload-Draft-Interop-Version": "8",
        "Upload-Complete": "?0",
        "Upload-Length": "4096",
        "Content-Type": "image/jpeg",
        "Content-Disposition": "inline; filename*=UTF-8''trip%2F%C3%A4%20b.jpg",
    }
    assert (session.id, session.in_order) == (URL, True) and session.expires_at is not None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((200, {}), "protocol"),
        ((201, {"Location": "https://elsewhere/u"}), "redirect"),
        ((403, {}), "forbidden"),
        ((413, {}), "too_large"),
    ],
)
def test_what_creation_refuses(answer: Answer, reason: str) -> None:
    with pytest.raises(Rejected) as refused:
        target(Script(answer)).open(PLAN, None, None)
    assert refused.value.reason == reason


def test_the_limits_are_those_of_the_server() -> None:
    there = target(
        Script(offer={"Upload-Limit": "max-size=9000, min-size=2, max-append-size=4096, min-append-size=10"})
    )
    there.find("a")
    found = there.limits(9000)
    assert (found.chunk_min, found.chunk_default, found.chunk_max) == (10, 4096, 4096)
    for size, reason in ((9001, "too_large"), (1, "too_small")):
        with pytest.raises(Rejected) as refused:
            there.limits(size)
        assert refused.value.reason == reason


def test_only_what_the_server_lacks_is_appended(body: ChunkBody) -> None:
    script = Script(at(1500), (204, {"Upload-Complete": "?0"}))
    got = target(script).upload(SESSION, PLAN, PART, 1024, body)
    head, patch = script.asked
    assert head[:2] == ("HEAD", "/uploads/u1")
    assert patch[3] == DATA[1500:2048] and patch[2]["Content-Type"] == "application/partial-upload"
    assert (patch[2]["Upload-Offset"], patch[2]["Upload-Complete"]) == ("1500", "?0")
    assert got.evidence is Evidence.OFFSET


@pytest.mark.parametrize(
    ("answer", "raised"),
    [
        (at(1100), Further),
        ((409, {"Upload-Offset": "7"}), Transient),
        ((503, {}), Transient),
        ((404, {}), SessionLost),
        ((410, {}), SessionLost),
        ((400, {}), Rejected),
        (Doubt("lost"), Doubt),
    ],
)
def test_what_an_append_may_be_answered(body: ChunkBody, answer: Answer, raised: type[Exception]) -> None:
    with pytest.raises(raised):
        target(Script(at(1024), answer)).upload(SESSION, PLAN, PART, 1024, body)


def test_the_offset_tells_what_is_there() -> None:
    assert set(target(Script(at(2050))).survey(SESSION, PLAN, KNOWN).held) == {0, 1}
    with pytest.raises(SessionLost) as lost:
        target(Script((410, {}))).survey(SESSION, PLAN, KNOWN)
    assert lost.value.loss is Loss.EXPIRED
    for answer in ((500, {}), (204, {}), (204, {"Upload-Offset": "-1"})):
        with pytest.raises(Transient):
            target(Script(answer)).survey(SESSION, PLAN, KNOWN)


@pytest.mark.parametrize(("headers", "location"), [({}, URL), ({"Location": "/files/9"}, f"{BASE}/files/9")])
def test_an_empty_append_marks_the_end(headers: Mapping[str, str], location: str) -> None:
    script = Script((200, {"Upload-Complete": "?1", **headers}))
    assert target(script).complete(SESSION, PLAN, KNOWN, doubtful=False).location == location
    ((method, _, sent, content),) = script.asked
    assert (method, content, sent["Upload-Offset"], sent["Upload-Complete"]) == ("PATCH", b"", "4096", "?1")


def test_a_doubtful_end_is_asked_for_first() -> None:
    script = Script(at(4096, "?1"))
    assert target(script).complete(SESSION, PLAN, KNOWN, doubtful=True).location == URL
    script = Script(at(4096), (200, {"Upload-Complete": "?1"}))
    target(script).complete(SESSION, PLAN, KNOWN, doubtful=True)
    assert [asked[0] for asked in script.asked] == ["HEAD", "PATCH"]
    with pytest.raises(SessionLost):
        target(Script((404, {}))).complete(SESSION, PLAN, KNOWN, doubtful=True)


@pytest.mark.parametrize(
    ("answer", "raised"),
    [
        ((500, {}), Doubt),
        ((409, {}), Doubt),
        ((404, {}), SessionLost),
        ((403, {}), Rejected),
        ((500, {"Upload-Complete": "?1"}), Rejected),
        ((422, {"Upload-Complete": "?1"}), Rejected),
    ],
)
def test_what_the_end_may_be_answered(answer: Answer, raised: type[Exception]) -> None:
    with pytest.raises(raised):
        target(Script(answer)).complete(SESSION, PLAN, KNOWN, doubtful=False)


def test_a_success_that_says_nothing_of_uploads_is_asked_about(body: ChunkBody) -> None:
    """It may be the page of a proxy."""
    with pytest.raises(Transient):
        target(Script(at(1024), (200, {}), at(1024))).upload(SESSION, PLAN, PART, 1024, body)
    with pytest.raises(Further):
        target(Script(at(1024), (200, {}), at(1100))).upload(SESSION, PLAN, PART, 1024, body)
    assert target(Script(at(1024), (200, {}), at(2048))).upload(SESSION, PLAN, PART, 1024, body).evidence
    for there in (at(4096, "?1"), (404, {})):
        assert target(Script((200, {}), there)).complete(SESSION, PLAN, KNOWN, doubtful=False).location == URL
    with pytest.raises(Doubt):
        target(Script((200, {}), at(4096))).complete(SESSION, PLAN, KNOWN, doubtful=False)


@pytest.mark.parametrize("status", [204, 404, 410, 405])
def test_cancelling(status: int) -> None:
    script = Script((status, {}))
    target(script).abort(SESSION, PLAN)
    target(script).abort(None, PLAN)
    assert [asked[:2] for asked in script.asked] == [("DELETE", "/uploads/u1")]


def test_other_urls_are_refused() -> None:
    for url in ("rufh+http://", "rufh+http://h/?q", "rufh+http://u:p@h/"):
        with pytest.raises(Usage):
            target(Script(), url)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("max-size=5, min-size=0", {"max-size": 5, "min-size": 0}),
        ("max-size=5;why=1 ,max-age=7", {"max-size": 5, "max-age": 7}),
        ("max-size=5.5", {}),
        ("max-size=5, , x", {}),
    ],
)
def test_upload_limit(text: str, found: Mapping[str, int]) -> None:
    assert limits(text) == found


HEADERS = st.dictionaries(
    st.sampled_from(["Location", "Upload-Offset", "Upload-Complete", "Upload-Length", "Upload-Limit"]),
    st.text("aZ09 -:;,/%?=#[]@\xe9\x7f", max_size=8) | st.sampled_from(["?1", "?0", "1024", "2048", "max-size=0"]),
)


@given(st.sampled_from([200, 201, 204, 400, 404, 409, 410, 413, 429, 500]), HEADERS)
def test_no_reply_makes_it_stumble(
    tmp_path_factory: pytest.TempPathFactory, status: int, headers: Mapping[str, str]
) -> None:
    path = tmp_path_factory.getbasetemp() / "rufh-data"
    path.write_bytes(DATA)

    def calls(there: RufhTarget) -> list[Callable[[], object]]:
        return [
            lambda: there.find("a"),
            lambda: there.open(PLAN, None, None),
            lambda: there.survey(SESSION, PLAN, KNOWN),
            lambda: there.upload(SESSION, PLAN, PART, 1024, source.body(PART)),
            lambda: there.complete(SESSION, PLAN, KNOWN, doubtful=True),
            lambda: there.abort(SESSION, PLAN),
        ]

    with Source(path) as source:
        for number in range(6):
            script = Script(*[(status, headers)] * 4, offer=headers)
            with contextlib.suppress(PpcliError, StepFailure):
                calls(target(script))[number]()
