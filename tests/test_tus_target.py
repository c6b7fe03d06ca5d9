"""The tus target on its own: exactly what it asks, and what it makes of replies, odd ones above all."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from scripted_transport import BASE, Answer, Script

from ppcli.bodies import ChunkBody
from ppcli.errors import (
    Credentials,
    Damaged,
    Doubt,
    Further,
    Loss,
    PpcliError,
    Rejected,
    SessionLost,
    SourceError,
    StepFailure,
    Transient,
    Usage,
)
from ppcli.model import Evidence, FilePlan, Part, Receipt, Session
from ppcli.source import Source
from ppcli.target import Store
from ppcli.targets import Settings, connect
from ppcli.targets.tus import TusTarget
from ppcli.targets.tus_api import metadata, when
from ppcli.targets.upload_url import number
from ppcli.transport import Transport

DATA = bytes(range(256)) * 16
SIZE = 1024
PLAN = FilePlan("job", 0, "trip/ä.jpg", len(DATA), 1.7e9, SIZE, 4)
URL = f"{BASE}/files/u1"
SESSION = Session(URL, None, {"length": str(len(DATA))}, in_order=True)
PARTS = replace(SESSION, id="job/0", detail=SESSION.detail | {"parts": "1"}, in_order=False)
PART = Part(1, SIZE, SIZE)
SUM = xxhash.xxh3_128_hexdigest(DATA[SIZE : 2 * SIZE])


def at(offset: int, status: int = 204) -> Answer:
    return status, {"Upload-Offset": str(offset), "Tus-Resumable": "1.0.0"}


def target(script: Transport, url: str = f"tus+{BASE}/files/") -> TusTarget:
    settings = Settings(Path(), Path(), lambda path, fresh: "", http=lambda base: script)
    made = connect(url, settings)
    assert isinstance(made, TusTarget)
    return made


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    (tmp_path / "a").write_bytes(DATA)
    with Source(tmp_path / "a") as source:
        yield source


@pytest.fixture
def body(source: Source) -> ChunkBody:
    return source.body(PART)


def receipt(index: int, evidence: Evidence | None = Evidence.OFFSET) -> Receipt:
    return Receipt(index, SIZE, index * SIZE, f"{index}" * 32, None, evidence)


@pytest.mark.parametrize(
    ("given_url", "url", "base"),
    [
        ("TUS+https://Host.example/files/", "tus+https://host.example/files/", "https://host.example"),
        ("tus+http://h:80", "tus+http://h/", "http://h"),
        ("tus+http://h:1080/a b/%7Ex", "tus+http://h:1080/a%20b/~x", "http://h:1080"),
        ("tus+http://[::1]:8000/files", "tus+http://[::1]:8000/files", "http://[::1]:8000"),
    ],
)
def test_urls_have_one_form(given_url: str, url: str, base: str) -> None:
    asked: list[str] = []

    def http(base: str) -> Transport:
        asked.append(base)
        return Script()

    assert connect(given_url, Settings(Path(), Path(), lambda path, fresh: "", http=http)).url == url
    assert asked == [base]


@pytest.mark.parametrize(
    "url", ["tus+http://", "tus+http://h:99999/", "tus+http://h/?a=1", "tus+http://h/#x", "tus+http://u@h/"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(Usage):
        target(Script(), url)


# --- What the server offers


def test_options_are_asked_once_and_before_anything_is_planned() -> None:
    script = Script()
    there = target(script)
    assert there.find("a") is None and there.find("b") is None
    script.offer = Transient("asked again")
    assert there.find("c") is None
    assert not isinstance(there, Store)


@pytest.mark.parametrize("status", [400, 403, 404, 405, 501])
def test_a_server_that_does_not_answer_options_is_taken_for_the_core(status: int) -> None:
    script = Script((201, {"Location": "u1"}))
    script.offer = (status, {})
    assert target(script).open(PLAN, None, None).in_order


def test_a_server_that_cannot_be_asked_is_asked_again() -> None:
    script = Script()
    script.offer = Transient("503")
    there = target(script)
    with pytest.raises(Transient):
        there.find("a")
    script.offer = (204, {"Tus-Extension": "creation,concatenation"})
    there.find("a")
    assert there.open(PLAN, None, None).detail["parts"]


def test_too_large_for_the_server() -> None:
    there = target(Script(offer={"Tus-Max-Size": "4000"}))
    there.find("a")
    with pytest.raises(Rejected) as refused:
        there.limits(4001)
    assert refused.value.reason == "too_large" and "4000" in refused.value.message
    assert there.limits(4000)


@pytest.mark.parametrize("status", [204, 412])
def test_a_server_of_other_versions(status: int) -> None:
    script = Script(offer={"Tus-Version": "0.2.2,2.0.0"})
    script.offer = (status, {"Tus-Version": "0.2.2,2.0.0"})
    with pytest.raises(Rejected) as refused:
        target(script).find("a")
    assert (refused.value.reason, "0.2.2, 2.0.0" in refused.value.message) == ("version", True)


@pytest.mark.parametrize(("size", "chunks"), [(1, 1), (64 << 23, 64), ((64 << 23) + 1, 33), (5 << 40, 40)])
def test_chunks_that_are_put_together_are_few(size: int, chunks: int) -> None:
    there = target(Script(offer={"Tus-Extension": "concatenation"}))
    there.find("a")
    assert -(-size // there.limits(size).chunk_default) == chunks


# --- Creation


def test_an_upload_is_created_with_its_length_and_metadata() -> None:
    expires = "Wed, 18 May 2033 03:33:20 GMT"
    script = Script((201, {"Location": "/files/u1", "Upload-Expires": expires}))
    session = target(script).open(PLAN, None, None)
    ((method, path, headers, sent),) = script.asked
    assert (method, path, sent) == ("POST", "/files/", b"")
    named = dict(pair.split(" ") for pair in headers["Upload-Metadata"].split(","))
    assert {key: base64.b64decode(value).decode() for key, value in named.items()} == {
        "filename": "trip/ä.jpg",
        "filetype": "image/jpeg",
    }
    assert (headers["Upload-Length"], headers["Tus-Resumable"]) == ("4096", "1.0.0")
    assert session == replace(SESSION, expires_at=2e9)


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("u1", f"{BASE}/files/u1"),
        ("/other/u1?k=v", f"{BASE}/other/u1?k=v"),
        (f"{BASE}/x", f"{BASE}/x"),
        ("//127.0.0.1:1/y", f"{BASE}/y"),
    ],
)
def test_locations_are_resolved(location: str, url: str) -> None:
    assert target(Script((201, {"Location": location}))).open(PLAN, None, None).id == url


@pytest.mark.parametrize(
    "location", ["https://127.0.0.1:1/files/key", "http://evil.example/key", "http://[/key", "x:y"]
)
def test_an_upload_at_another_origin_is_refused_and_its_path_is_not_told(location: str) -> None:
    with pytest.raises(Rejected) as refused:
        target(Script((201, {"Location": location}))).open(PLAN, None, None)
    assert refused.value.reason == "redirect"
    assert "key" not in refused.value.message + refused.value.hint


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((201, {}), "protocol"),
        ((200, {}), "protocol"),
        ((413, {}), "too_large"),
        ((403, {}), "forbidden"),
        ((404, {}), "not_found"),
        ((412, {"Tus-Version": "0.2"}), "version"),
        ((507, {}), "quota"),
    ],
)
def test_what_creation_refuses(answer: Answer, reason: str) -> None:
    with pytest.raises(Rejected) as refused:
        target(Script(answer)).open(PLAN, None, None)
    assert refused.value.reason == reason


def test_an_old_session_is_taken_up_without_a_request_and_lost_for_another_size() -> None:
    script = Script()
    assert target(script).open(PLAN, SESSION, None) == SESSION
    with pytest.raises(SessionLost):
        target(script).open(replace(PLAN, size=5), SESSION, None)
    assert script.asked == []


# --- Where the server is


def survey(*answers: Answer, known: int = 3, evidence: Evidence | None = None) -> set[int]:
    return set(
        target(Script(*answers)).survey(SESSION, PLAN, [receipt(index, evidence) for index in range(known)]).held
    )


@pytest.mark.parametrize(
    ("offset", "held"), [(0, set()), (1023, set()), (1024, {0}), (2047, {0}), (2048, {0, 1}), (4096, {0, 1, 2})]
)
def test_the_offset_tells_which_chunks_are_there(offset: int, held: set[int]) -> None:
    assert survey(at(offset)) == held


def test_a_chunk_that_no_checksum_was_recorded_for_is_not_held() -> None:
    there = target(Script(at(4096)))
    assert not there.survey(SESSION, PLAN, [replace(receipt(0), checksum="")]).held


@pytest.mark.parametrize(("status", "loss"), [(404, Loss.GONE), (410, Loss.EXPIRED)])
def test_an_upload_that_is_gone(status: int, loss: Loss) -> None:
    with pytest.raises(SessionLost) as lost:
        survey((status, {}))
    assert lost.value.loss is loss


def test_a_file_that_was_acknowledged_whole_may_have_been_taken_away() -> None:
    assert survey((404, {}), known=4, evidence=Evidence.OFFSET) == {0, 1, 2, 3}
    with pytest.raises(SessionLost):
        survey((404, {}), known=4)


@pytest.mark.parametrize(
    "answer", [(500, {}), (503, {}), (423, {}), (429, {}), (200, {}), at(-1), (204, {"Upload-Offset": "x"})]
)
def test_a_failed_head_never_costs_the_upload(answer: Answer) -> None:
    with pytest.raises(Transient):
        survey(answer)


def test_a_forbidden_head_is_for_a_person_to_look_at() -> None:
    """The specification lets a server say so for an upload that is gone; a firewall says so too."""
    with pytest.raises(Rejected) as refused:
        survey((403, {}))
    assert refused.value.reason == "forbidden"


def test_the_end_of_a_session_moves_with_what_the_server_says() -> None:
    told = (200, {"Upload-Offset": "0", "Upload-Expires": "Wed, 18 May 2033 03:33:20 GMT"})
    assert target(Script(told)).survey(SESSION, PLAN, []).expires_at == 2e9


# --- Sending


def test_a_chunk_is_appended_at_its_offset(body: ChunkBody) -> None:
    script = Script(at(1024, 200), at(2048))
    got = target(script).upload(SESSION, PLAN, PART, 1024, body)
    head, patch = script.asked
    assert head[:2] == ("HEAD", "/files/u1")
    assert (patch[0], patch[1], patch[3]) == ("PATCH", "/files/u1", DATA[1024:2048])
    assert patch[2] == {
        "Tus-Resumable": "1.0.0",
        "Content-Type": "application/offset+octet-stream",
        "Upload-Offset": "1024",
    }
    assert got == Receipt(1, SIZE, 1024, SUM, None, Evidence.OFFSET)


def test_no_head_where_the_offset_is_certain(source: Source) -> None:
    script = Script((201, {"Location": "u1"}), *(at(SIZE * n) for n in (1, 2, 3, 4)))
    there = target(script)
    session = there.open(PLAN, None, None)
    for index in range(4):
        part = Part(index, index * SIZE, SIZE)
        there.upload(session, PLAN, part, part.offset, source.body(part))
    assert [asked[0] for asked in script.asked] == ["POST", *["PATCH"] * 4]


def test_only_what_the_server_lacks_goes_and_the_checksum_is_that_of_the_chunk(body: ChunkBody) -> None:
    script = Script(at(1500), at(2048))
    got = target(script).upload(SESSION, PLAN, PART, 1024, body)
    assert script.asked[1][3] == DATA[1500:2048]
    assert script.asked[1][2]["Upload-Offset"] == "1500"
    assert got.checksum == SUM


def test_a_lost_reply_is_answered_by_the_offset(body: ChunkBody) -> None:
    script = Script(at(1024), Doubt("the reply was lost"), at(2048))
    there = target(script)
    with pytest.raises(Doubt):
        there.upload(SESSION, PLAN, PART, 1024, body)
    got = there.upload(SESSION, PLAN, PART, 1024, body)
    assert [asked[0] for asked in script.asked] == ["HEAD", "PATCH", "HEAD"], "nothing went twice"
    assert (got.checksum, got.evidence) == (SUM, Evidence.OFFSET)


def test_a_call_that_failed_and_got_further_renews_the_attempts(body: ChunkBody) -> None:
    there = target(Script(at(1024), Doubt("cut"), at(1300), Doubt("cut"), at(1300), at(2048)))
    with pytest.raises(Doubt):
        there.upload(SESSION, PLAN, PART, 1024, body)
    with pytest.raises(Further):
        there.upload(SESSION, PLAN, PART, 1024, body)
    with pytest.raises(Doubt):
        there.upload(SESSION, PLAN, PART, 1024, body)
    assert there.upload(SESSION, PLAN, PART, 1024, body).checksum == SUM, "no progress, no renewal"


def test_an_answer_that_acknowledges_less_than_was_sent(body: ChunkBody) -> None:
    script = Script(at(1024), at(1100), at(2048))
    there = target(script)
    with pytest.raises(Further):
        there.upload(SESSION, PLAN, PART, 1024, body)
    there.upload(SESSION, PLAN, PART, 1024, body)
    assert script.asked[2][3] == DATA[1100:2048]


@pytest.mark.parametrize("offset", [1024, 1000])
def test_an_answer_that_acknowledges_nothing_is_no_progress(body: ChunkBody, offset: int) -> None:
    with pytest.raises(Transient) as failed:
        target(Script(at(1024), at(offset))).upload(SESSION, PLAN, PART, 1024, body)
    assert not isinstance(failed.value, Further)


@pytest.mark.parametrize("answers", [(at(2049),), (at(1024), at(2049))])
def test_an_offset_beyond_what_was_sent_is_no_proof_of_anything(body: ChunkBody, answers: tuple[Answer, ...]) -> None:
    with pytest.raises(SessionLost) as lost:
        target(Script(*answers)).upload(SESSION, PLAN, PART, 1024, body)
    assert lost.value.loss is Loss.POISONED


def test_an_offset_behind_what_was_acknowledged(body: ChunkBody) -> None:
    with pytest.raises(SessionLost) as lost:
        target(Script(at(1023))).upload(SESSION, PLAN, PART, 1024, body)
    assert lost.value.loss is Loss.BEHIND


@pytest.mark.parametrize(
    ("answer", "raised"),
    [
        ((409, {}), Transient),
        ((423, {}), Transient),
        ((429, {"Retry-After": "7"}), Transient),
        ((500, {}), Transient),
        ((204, {}), Transient),
        ((204, {"Upload-Offset": "1e3"}), Transient),
        ((460, {}), Damaged),
        ((404, {}), SessionLost),
        ((410, {}), SessionLost),
        ((400, {}), Rejected),
        ((403, {}), Rejected),
        ((412, {}), Rejected),
        ((413, {}), Rejected),
        ((415, {}), Rejected),
        (Credentials("401"), Credentials),
    ],
)
def test_what_a_patch_may_be_answered(body: ChunkBody, answer: Answer, raised: type[Exception]) -> None:
    script = Script(at(1024), answer, at(1024), at(2048))
    there = target(script)
    with pytest.raises(raised):
        there.upload(SESSION, PLAN, PART, 1024, body)
    there.upload(SESSION, PLAN, PART, 1024, body)
    assert [asked[0] for asked in script.asked] == ["HEAD", "PATCH", "HEAD", "PATCH"], "ask before going on"


def test_the_checksum_extension(source: Source, body: ChunkBody) -> None:
    offer = {"Tus-Extension": "creation,checksum", "Tus-Checksum-Algorithm": "crc32,md5,sha1"}
    script = Script(at(1024), at(2048), at(2100), at(3072), offer=offer)
    there = target(script)
    got = there.upload(SESSION, PLAN, PART, 1024, body)
    digest = base64.b64encode(hashlib.sha1(DATA[1024:2048]).digest()).decode()
    assert script.asked[1][2]["Upload-Checksum"] == f"sha1 {digest}"
    assert got.evidence is Evidence.CONTENT is there.limits(1).evidence
    there._frontiers.forget(URL)
    rest = there.upload(SESSION, PLAN, Part(2, 2048, SIZE), 2048, source.body(Part(2, 2048, SIZE)))
    digest = base64.b64encode(hashlib.sha1(DATA[2100:3072]).digest()).decode()
    assert script.asked[3][2]["Upload-Checksum"] == f"sha1 {digest}"
    assert rest.evidence is Evidence.OFFSET, "its beginning was sent by another request"


def test_other_bytes_than_were_hashed_before_are_another_revision(body: ChunkBody) -> None:
    with pytest.raises(SourceError) as changed:
        target(Script(at(1024), at(2048))).upload(SESSION, PLAN, replace(PART, checksum="0" * 32), 1024, body)
    assert changed.value.reason == "changed"


def test_an_empty_file_is_there_when_it_is_created(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    script = Script((201, {"Location": "u1"}))
    there = target(script)
    plan, part = replace(PLAN, size=0, chunks=1), Part(0, 0, 0)
    with Source(tmp_path / "empty") as empty:
        session = there.open(plan, None, None)
        got = there.upload(session, plan, part, 0, empty.body(part))
    assert [asked[0] for asked in script.asked] == ["POST"]
    assert got.evidence is Evidence.OFFSET and got.checksum == xxhash.xxh3_128_hexdigest(b"")


def test_complete_asks_nothing_and_the_url_is_the_location() -> None:
    script = Script()
    assert target(script).complete(SESSION, PLAN, [], doubtful=True).location == URL
    assert script.asked == []


@pytest.mark.parametrize("status", [204, 404, 405, 410, 501])
def test_termination(status: int) -> None:
    script = Script((status, {}))
    there = target(script)
    there.abort(SESSION, PLAN)
    there.abort(None, PLAN)
    assert [asked[:2] for asked in script.asked] == [("DELETE", "/files/u1")]


# --- Concatenation

OFFER = {"Tus-Extension": "creation,concatenation"}


def test_parts_are_uploads_of_their_own_and_are_put_together_by_their_paths(body: ChunkBody) -> None:
    script = Script((201, {"Location": "p1"}), at(1024), (201, {"Location": "whole"}), offer=OFFER)
    there = target(script)
    session = there.open(PLAN, None, None)
    assert not session.in_order and script.asked == []
    (slot,) = there.reserve(session, PLAN, [PART])
    got = there.upload(session, PLAN, PART, slot, body)
    remote = there.complete(session, PLAN, [got], doubtful=False)
    created, sent, final = script.asked
    assert (created[2]["Upload-Concat"], created[2]["Upload-Length"]) == ("partial", "1024")
    assert (sent[1], sent[2]["Upload-Offset"], sent[3]) == ("/files/p1", "0", DATA[1024:2048])
    assert final[2]["Upload-Concat"] == "final;/files/p1" and "Upload-Length" not in final[2]
    assert (slot, remote.location) == (f"{BASE}/files/p1", f"{BASE}/files/whole")


def test_a_file_of_one_chunk_or_of_many_goes_in_order() -> None:
    for chunks in (1, 65):
        script = Script((201, {"Location": "u1"}), offer=OFFER)
        assert target(script).open(replace(PLAN, chunks=chunks), None, None).in_order


def test_each_part_is_asked_where_it_is() -> None:
    script = Script(at(1024), at(7), (404, {}))
    known = [replace(receipt(index), slot=f"{BASE}/files/p{index}", evidence=None) for index in range(3)]
    never_sent = replace(receipt(3), slot=f"{BASE}/files/p3", checksum="")
    assert set(target(script).survey(PARTS, PLAN, [*known, never_sent]).held) == {0}
    assert len(script.asked) == 3


def test_a_part_that_is_gone_is_made_again_and_the_others_stay(body: ChunkBody) -> None:
    with pytest.raises(Damaged):
        target(Script((404, {}))).upload(PARTS, PLAN, PART, f"{BASE}/files/p1", body)


def test_parts_that_are_gone_cannot_be_put_together() -> None:
    receipts = [replace(receipt(index), slot=f"{BASE}/files/p{index}") for index in range(4)]
    with pytest.raises(SessionLost):
        target(Script((404, {}))).complete(PARTS, PLAN, receipts, doubtful=True)


def test_aborting_terminates_every_part_that_is_recorded() -> None:
    script = Script((204, {}), (404, {}))
    target(script).abort(PARTS, PLAN, [f"{BASE}/files/p0", f"{BASE}/files/p1"])
    assert [asked[1] for asked in script.asked] == ["/files/p0", "/files/p1"]


def test_a_manifest_from_elsewhere_leads_nowhere_else() -> None:
    with pytest.raises(Rejected):
        target(Script()).survey(replace(SESSION, id="http://evil.example/files/u1"), PLAN, [])


# --- Parsers


@given(st.text())
def test_metadata_says_what_the_name_is(name: str) -> None:
    if any("\ud800" <= c <= "\udfff" for c in name):
        return
    first, second = metadata(name).split(",")
    assert base64.b64decode(first.split(" ")[1]).decode() == name
    assert "/" in base64.b64decode(second.split(" ")[1]).decode()


@given(st.text() | st.integers().map(str))
def test_counts_of_bytes(text: str) -> None:
    found = number({"n": text}, "n")
    assert found is None or (found >= 0 and str(found) == text.strip().lstrip("0").rjust(1, "0"))


@given(st.text() | st.datetimes().map(str))
def test_dates_never_stumble(text: str) -> None:
    assert when(text) is None or isinstance(when(text), float)


JUNK = st.text("aZ09 -:;,/%?#[]@\xe9\x7f", max_size=8) | st.integers(-3, 1 << 70).map(str)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["Location", "Upload-Offset", "Upload-Length", "Upload-Expires", "Tus-Version", "Tus-Extension", "Tus-Max-Size"]
    ),
    JUNK | st.sampled_from(["checksum", "concatenation", "0.2", "/x", "http://[", "2048", "1024"]),
)


@given(st.sampled_from([200, 201, 204, 400, 404, 409, 410, 412, 413, 423, 429, 460, 500]), HEADERS)
def test_no_reply_makes_it_stumble(
    tmp_path_factory: pytest.TempPathFactory, status: int, headers: Mapping[str, str]
) -> None:
    """Whatever a server says, what comes of it is an error of ours, or a result."""
    path = tmp_path_factory.getbasetemp() / "data"
    path.write_bytes(DATA)
    with Source(path) as source:

        def calls(there: TusTarget) -> list[Callable[[], object]]:
            return [
                lambda: there.find("a"),
                lambda: there.limits(100),
                lambda: there.open(PLAN, None, None),
                lambda: there.reserve(PARTS, PLAN, [PART]),
                lambda: there.survey(SESSION, PLAN, [receipt(0)]),
                lambda: there.upload(SESSION, PLAN, PART, 1024, source.body(PART)),
                lambda: there.complete(PARTS, PLAN, [replace(receipt(0), slot=URL)], doubtful=True),
                lambda: there.abort(SESSION, PLAN),
            ]

        for number in range(8):
            script = Script(*[(status, headers)] * 8, offer=headers)
            with contextlib.suppress(PpcliError, StepFailure):
                calls(target(script))[number]()
