"""The S3 target on its own: exactly what it asks, and what it makes of replies, odd ones above all."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from s3_kit import KEYS

from ppcli import checksums
from ppcli.calls import Call
from ppcli.errors import Credentials, Damaged, Doubt, PpcliError, Rejected, SessionLost, StepFailure, Transient, Usage
from ppcli.model import Evidence, FilePlan, Part, Receipt, Remote, Session
from ppcli.source import Source
from ppcli.target import Body
from ppcli.targets import Settings, connect, s3_xml
from ppcli.targets.s3 import S3Target
from ppcli.targets.s3_proof import Trailing
from ppcli.targets.s3_signing import Key, query_of, signed
from ppcli.transport import Reply, Request, Transport

MIB = 1 << 20
DATA = bytes(range(256)) * 40960  # two parts of 5 MiB
PLAN = FilePlan("job", 0, "trip/a b.bin", len(DATA), 1700000000.0, 5 * MIB, 2)
SMALL = FilePlan("job", 0, "a.txt", 5, 1700000000.0, 8 * MIB, 1)
SESSION = Session("U1", detail={"checks": "md5"})
PARTS = [DATA[: 5 * MIB], DATA[5 * MIB :]]
MD5S = [hashlib.md5(data).hexdigest() for data in PARTS]
WHOLE = hashlib.md5(b"".join(bytes.fromhex(one) for one in MD5S)).hexdigest() + "-2"
RECEIPTS = [Receipt(n, 5 * MIB, n + 1, f"{n:032x}", MD5S[n], Evidence.CONTENT) for n in (0, 1)]
URL = "s3://box/pre?endpoint=http://127.0.0.1:1&region=us-east-1"
AWS = "s3://box/pre?region=eu-west-1"
Answer = tuple[int, Mapping[str, str], str]


def error(status: int, code: str, more: str = "", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, f"<Error><Code>{code}</Code><Message>told you so</Message>{more}</Error>"


def fine(content: str = "", **headers: str) -> Answer:
    return 200, {name.replace("_", "-"): value for name, value in headers.items()}, content


MISSING: Answer = (404, {}, "")
UPLOADS = fine("<ListMultipartUploadsResult/>")
BEGUN = fine("<InitiateMultipartUploadResult><UploadId>U1</UploadId></InitiateMultipartUploadResult>")
DONE = fine(f'<CompleteMultipartUploadResult><ETag>"{WHOLE}"</ETag></CompleteMultipartUploadResult>')
THERE = fine(etag=f'"{WHOLE}"', content_length=str(len(DATA)))


class Wire:
    """Every origin leads here: answers from a list, in order; `asked` keeps what was asked of whom."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, Request]] = []
        self.bodies: list[bytes] = []

    def transport(self, base: str) -> Transport:
        wire = self

        class Scripted(Transport):
            def sending(self, request: Request, body: Body | None = None) -> Call[Reply]:
                yield
                wire.bodies.append(b"".join(bytes(piece) for piece in body or ()))
                wire.asked.append((base, request))
                answer = wire.answers.pop(0)
                if isinstance(answer, Exception):
                    raise answer
                status, headers, content = answer
                assert 200 <= status < 300 or status in request.expect
                return Reply(status, headers, content.encode())

        return Scripted(base)

    @property
    def calls(self) -> list[str]:
        return [
            f"{request.method} {request.path.partition('?')[2].partition('=')[0]}".strip() for _, request in self.asked
        ]


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., tuple[S3Target, Wire]]:
    def made(*answers: Answer | Exception, url: str = URL) -> tuple[S3Target, Wire]:
        wire = Wire(*answers)
        settings = Settings(tmp_path / "data", tmp_path / "config", lambda path, fresh: "", http=wire.transport)
        target = connect(url, settings)
        assert isinstance(target, S3Target)
        return target, wire

    return made


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    (tmp_path / "a").write_bytes(DATA)
    with Source(tmp_path / "a") as opened:
        yield opened


Make = Callable[..., tuple[S3Target, Wire]]
PART = Part(0, 0, 5 * MIB)


def send(target: S3Target, source: Source, session: Session = SESSION) -> Receipt:
    return target.upload(session, PLAN, PART, 1, source.body(PART))


@pytest.mark.parametrize(
    ("answer", "kind", "more"),
    [
        (error(503, "SlowDown", retry_after="7"), Transient, 7.0),
        (error(503, "ServiceUnavailable"), Transient, None),
        (error(400, "RequestTimeout"), Transient, None),
        ((429, {"retry-after": "3"}, ""), Transient, 3.0),
        ((502, {}, "<html>bad gateway</html>"), Transient, None),
        (error(403, "AccessDenied"), Rejected, "forbidden"),
        (error(403, "InvalidAccessKeyId"), Credentials, "refused"),
        (error(403, "SignatureDoesNotMatch"), Credentials, "refused"),
        (error(404, "NoSuchBucket"), Rejected, "bucket"),
        (error(400, "EntityTooLarge"), Rejected, "too_large"),
        (error(400, "BadDigest"), Damaged, None),
        (error(404, "NoSuchUpload"), SessionLost, None),
        ((404, {}, ""), SessionLost, None),
        (error(507, "QuotaExceeded"), Rejected, "quota"),
    ],
)
def test_refusals_are_classified(
    make: Make, source: Source, answer: Answer, kind: type[Exception], more: object
) -> None:
    target, wire = make(answer)
    with pytest.raises((PpcliError, StepFailure)) as caught:
        send(target, source)
    assert type(caught.value) is kind
    if isinstance(caught.value, Transient):
        assert caught.value.retry_after == more
    elif isinstance(caught.value, PpcliError):
        assert caught.value.reason == more
        assert "told you so" in caught.value.message
    assert len(wire.asked) == 1


def test_a_500_for_a_part_asks_whether_the_upload_is_still_there(make: Make, source: Source) -> None:
    target, _ = make((500, {}, ""), error(404, "NoSuchUpload"))
    with pytest.raises(SessionLost):
        send(target, source)
    target, _ = make((500, {}, ""), fine("<ListPartsResult/>"))
    with pytest.raises(Transient):
        send(target, source)


def test_a_wrong_clock_is_corrected_once(make: Make, source: Source) -> None:
    ahead = formatdate(time.time() + 7200, usegmt=True)
    skewed = error(403, "RequestTimeTooSkewed", date=ahead)
    target, wire = make(skewed, fine(etag=MD5S[0]))
    assert send(target, source).evidence is Evidence.CONTENT
    first, second = (request.headers["x-amz-date"] for _, request in wire.asked)
    assert second > first
    target, wire = make(skewed, skewed)
    with pytest.raises(Rejected) as caught:
        send(target, source)
    assert (caught.value.reason, len(wire.asked)) == ("clock", 2)


def test_expired_credentials_are_read_again(make: Make, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    target, wire = make(error(400, "ExpiredToken"), fine(etag=MD5S[0]))
    real = wire.answers.pop

    def renew(index: int = -1) -> Answer | Exception:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "newer")
        return real(index)

    wire.answers = type("Answers", (list,), {"pop": staticmethod(renew)})(wire.answers)
    send(target, source)
    assert "Credential=testing/" in wire.asked[0][1].headers["Authorization"]
    assert "Credential=newer/" in wire.asked[1][1].headers["Authorization"]


def test_a_profile_is_asked_again_when_its_credentials_have_expired(
    make: Make, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By botocore: here, a profile whose keys come from a program."""
    program = tmp_path / "keys.sh"
    program.write_text(
        f"#!/bin/sh\necho x >> {tmp_path}/asked\nn=$(wc -l < {tmp_path}/asked)\n"
        'echo "{\\"Version\\":1,\\"AccessKeyId\\":\\"AK$((n))\\",\\"SecretAccessKey\\":\\"s\\"}"\n'
    )
    program.chmod(0o755)
    (tmp_path / "config").write_text(f"[profile ci]\ncredential_process = {program}\nregion = eu-north-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    url = "s3://box?endpoint=http://127.0.0.1:1&profile=ci"
    target, wire = make(error(400, "ExpiredToken"), fine(etag=MD5S[0]), url=url)
    send(target, source)
    first, second = (request.headers["Authorization"] for _, request in wire.asked)
    assert "Credential=AK1/" in first and "/eu-north-1/s3/" in first
    assert "Credential=AK2/" in second
    with pytest.raises(Credentials):
        send(make(url="s3://box?endpoint=http://127.0.0.1:1&profile=nobody")[0], source)


def test_the_endpoint_of_the_environment_is_part_of_the_place(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:2/")
    target, _ = make(url="s3://box/p?adopt_after=5&acl=private")
    assert target.url == "s3://box/p?acl=private&endpoint=http://127.0.0.1:2"


def test_what_is_checked_and_not_repeated_is_not_called_verified(make: Make, source: Source) -> None:
    target, _ = make(fine(etag="x"))
    assert send(target, source, Session("U1", detail={"checks": "crc64nvme"})).evidence is Evidence.ETAG


def test_credentials_that_stay_expired_pause_the_job(make: Make, source: Source) -> None:
    target, wire = make(error(400, "ExpiredToken"))
    with pytest.raises(Credentials) as caught:
        send(target, source)
    assert (caught.value.reason, caught.value.exit_code, len(wire.asked)) == ("expired", 3, 1)


def test_no_credentials(make: Make, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    target, wire = make()
    with pytest.raises(Credentials) as caught:
        send(target, source)
    assert (caught.value.reason, wire.asked) == ("missing", [])


@pytest.mark.parametrize(
    "answer",
    [
        error(301, "PermanentRedirect", "<Endpoint>evil.example</Endpoint>", x_amz_bucket_region="us-west-2"),
        error(307, "TemporaryRedirect", x_amz_bucket_region="us-west-2", location="https://evil.example/"),
        error(400, "AuthorizationHeaderMalformed", "<Region>us-west-2</Region>"),
    ],
)
def test_the_region_is_learned_and_no_other_family_of_hosts_is_asked(make: Make, answer: Answer) -> None:
    silent = [(400, {}, "")] if answer[0] == 400 else []  # a HEAD has no body to say it in
    target, wire = make(*silent, answer, MISSING, url=AWS)
    assert target.find("x") is None
    assert {base for base, _ in wire.asked} == {
        "https://box.s3.eu-west-1.amazonaws.com",
        "https://box.s3.us-west-2.amazonaws.com",
    }
    assert "/us-west-2/s3/" in wire.asked[-1][1].headers["Authorization"]


def test_a_redirect_without_a_region_or_for_ever_ends(make: Make) -> None:
    for region in ({}, {"x-amz-bucket-region": "evil.example/"}):
        target, wire = make((301, {**region, "location": "https://evil.example/"}, ""), url=AWS)
        with pytest.raises(Rejected) as caught:
            target.find("x")
        assert caught.value.reason == "redirect"
        assert {base for base, _ in wire.asked} == {"https://box.s3.eu-west-1.amazonaws.com"}


def test_an_endpoint_keeps_its_host(make: Make) -> None:
    target, wire = make((301, {"x-amz-bucket-region": "us-west-2"}, ""), MISSING)
    assert target.find("x") is None
    assert {base for base, _ in wire.asked} == {"http://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://box?region=eu-west-1", "https://box.s3.eu-west-1.amazonaws.com/a%20b"),
        ("s3://box.dot?region=eu-west-1", "https://s3.eu-west-1.amazonaws.com/box.dot/a%20b"),
        ("s3://box?region=cn-north-1", "https://box.s3.cn-north-1.amazonaws.com.cn/a%20b"),
        ("s3://box/p/q?endpoint=https://s3.example", "https://s3.example/box/p/q/a%20b"),
        ("s3://box?endpoint=https://s3.example/base&addressing=virtual", "https://box.s3.example/base/a%20b"),
    ],
)
def test_addresses(make: Make, url: str, place: str) -> None:
    target, wire = make(MISSING, url=url)
    target.find("a b")
    ((base, request),) = wire.asked
    assert base + request.path == place


def test_a_head_without_a_reason_is_asked_again_with_one(make: Make) -> None:
    target, wire = make((403, {}, ""), error(403, "AccessDenied"))
    assert target.find("x") is None
    assert [notice.code for notice in target.notices()] == ["forbidden"]
    assert wire.calls == ["HEAD", "GET"]
    target, _ = make((403, {}, ""), error(403, "InvalidAccessKeyId"))
    with pytest.raises(Credentials):
        target.find("x")


def bucket(*names: str, more: bool = True) -> Answer:
    keys = "".join(f"<Contents><Key>pre/{name}</Key><Size>1</Size><ETag>x</ETag></Contents>" for name in names)
    token = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>" if more else ""
    return fine(f"<ListBucketResult>{keys}{token}</ListBucketResult>")


NAMES = [f"d/{number:03}" for number in range(100)]


def test_one_listing_tells_which_names_are_new(make: Make) -> None:
    """Some servers list folder by folder, and not in the order of the keys."""
    target, wire = make(bucket("d/1/x", "d/000"), bucket("d/2", "d/050x", "d/005", more=False), *[MISSING] * 3)
    target.foresee(NAMES)
    assert len(wire.asked) == 2
    for name in ("d/001", "d/000", "d/005", "d/099", "d/001"):
        assert target.find(name) is None
    assert [request.path for _, request in wire.asked[2:]] == [f"/box/pre/d/{name}" for name in ("000", "005", "001")]


@pytest.mark.parametrize(
    "answer", [error(403, "AccessDenied"), error(501, "NotImplemented"), error(404, "NoSuchBucket"), (400, {}, "")]
)
def test_without_a_listing_each_name_is_asked_for(make: Make, answer: Answer) -> None:
    target, wire = make(answer, MISSING)
    target.foresee(NAMES)
    assert target.find(NAMES[0]) is None
    assert len(wire.asked) == 2


def test_a_listing_that_is_longer_than_the_questions_it_saves_is_given_up(make: Make) -> None:
    endless = [bucket(*(f"d/000-{number}" for number in range(1000))) for _ in range(9)]
    target, wire = make(*endless)
    target.foresee(NAMES)
    assert len(wire.asked) == 5
    wire.answers = [MISSING]
    assert target.find("d/001") is None
    assert len(wire.asked) == 6


def test_for_a_few_names_nothing_is_listed(make: Make) -> None:
    target, wire = make(MISSING)
    target.foresee(NAMES[:3])
    target.find(NAMES[0])
    assert wire.calls == ["HEAD"]


def checked(*trailer: Answer | Exception, verifies: bool) -> list[Answer | Exception]:
    """What the questions get that find out how a server checks; `trailer` is for those about trailers."""
    return [BEGUN, fine(etag="x"), error(400, "BadDigest") if verifies else fine(etag="x"), *trailer]


NO_TRAILER = error(400, "XAmzContentSHA256Mismatch")


def test_a_server_that_refuses_a_wrong_checksum_is_believed_from_then_on(make: Make, source: Source) -> None:
    target, wire = make(UPLOADS, *checked(NO_TRAILER, verifies=True))
    session = target.open(PLAN, None, None)
    assert session.detail == {"checks": "crc64nvme"}
    again, wire = make(UPLOADS, BEGUN)
    assert again.open(PLAN, None, None).detail == {"checks": "crc64nvme"}
    assert wire.asked[1][1].headers["x-amz-checksum-algorithm"] == "CRC64NVME"
    value = crc64nvme(PARTS[0])
    target, wire = make(fine(etag="opaque", **{"x-amz-checksum-crc64nvme": value}))
    receipt = send(target, source, session)
    assert receipt.evidence is Evidence.CONTENT
    assert wire.asked[0][1].headers["x-amz-checksum-crc64nvme"] == value
    target, _ = make(fine(etag="opaque", **{"x-amz-checksum-crc64nvme": "AAAA"}))
    with pytest.raises(Damaged):
        send(target, source, session)


def crc64nvme(data: bytes) -> str:
    hexadecimal = checksums.digest_of([memoryview(data)], "crc64nvme").partition(":")[2]
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


REFUSED = error(400, "XAmzContentChecksumMismatch")


def test_where_trailers_are_checked_a_part_is_read_once(make: Make, source: Source) -> None:
    target, wire = make(UPLOADS, *checked(fine(etag="x"), REFUSED, verifies=True))
    session = target.open(PLAN, None, None)
    value = crc64nvme(PARTS[0])
    right, wrong = wire.bodies[-2:]
    assert right == f"1\r\np\r\n0\r\nx-amz-checksum-crc64nvme:{crc64nvme(b'p')}\r\n\r\n".encode()
    assert wrong == right.replace(crc64nvme(b"p").encode(), crc64nvme(b"q").encode())
    target, wire = make(fine(etag="opaque", **{"x-amz-checksum-crc64nvme": value}))
    read: list[int] = []
    receipt = target.upload(session, PLAN, PART, 1, source.body(PART, on_bytes=read.append))
    assert (receipt.evidence, receipt.checksum) == (Evidence.CONTENT, source.checksum(PART))
    assert sum(read) == len(PARTS[0])
    headers, sent = wire.asked[0][1].headers, wire.bodies[0]
    assert headers["x-amz-content-sha256"] == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
    assert headers["x-amz-decoded-content-length"] == str(len(PARTS[0]))
    end = f"\r\n0\r\nx-amz-checksum-crc64nvme:{value}\r\n\r\n".encode()
    assert sent == b"500000\r\n" + PARTS[0] + end
    target, _ = make(fine(etag="opaque", **{"x-amz-checksum-crc64nvme": "AAAA"}))
    with pytest.raises(Damaged):
        send(target, source, session)


@pytest.mark.parametrize("answer", [NO_TRAILER, error(501, "NotImplemented"), fine(etag="frames")])
def test_where_trailers_are_not_taken_any_more_a_part_goes_again_without(
    make: Make, source: Source, answer: Answer
) -> None:
    """What answers without a word of the checksum may have stored the frames among the bytes."""
    target, _ = make(UPLOADS, *checked(fine(etag="x"), REFUSED, verifies=True))
    session = target.open(PLAN, None, None)
    stored = fine(etag="opaque", **{"x-amz-checksum-crc64nvme": crc64nvme(PARTS[0])})
    target, wire = make(answer, stored, stored)
    assert send(target, source, session).evidence is Evidence.CONTENT
    assert send(target, source, session).evidence is Evidence.CONTENT
    assert ["x-amz-trailer" in request.headers for _, request in wire.asked] == [True, False, False]
    assert wire.bodies[1] == PARTS[0]
    again, wire = make(stored)
    assert send(again, source, session).evidence is Evidence.CONTENT
    assert "x-amz-trailer" not in wire.asked[0][1].headers


@pytest.mark.parametrize("answer", [REFUSED, error(400, "BadDigest"), error(400, "RequestTimeout")])
def test_what_went_wrong_on_its_way_is_no_word_against_trailers(make: Make, source: Source, answer: Answer) -> None:
    target, _ = make(UPLOADS, *checked(fine(etag="x"), REFUSED, verifies=True))
    session = target.open(PLAN, None, None)
    target, wire = make(answer, fine(etag="x", **{"x-amz-checksum-crc64nvme": crc64nvme(PARTS[0])}))
    with pytest.raises(Transient):
        send(target, source, session)
    assert send(target, source, session).evidence is Evidence.CONTENT
    assert all("x-amz-trailer" in request.headers for _, request in wire.asked)


@pytest.mark.parametrize("size", [0, 1, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 20 * MIB])
@pytest.mark.parametrize("piece", [MIB, 3 * MIB // 7])
def test_the_frames_of_a_body_with_a_trailer(tmp_path: Path, size: int, piece: int) -> None:
    data = (DATA * 2)[:size]
    (tmp_path / "b").write_bytes(data)
    with Source(tmp_path / "b") as opened:
        body = Trailing(opened.body(Part(0, 0, size), piece=piece), "crc64nvme")
        sent = b"".join(bytes(one) for one in body)
    assert len(sent) == body.size
    read = b""
    while frame := int(sent.partition(b"\r\n")[0], 16):
        sent = sent.partition(b"\r\n")[2]
        read, sent = read + sent[:frame], sent[frame:].removeprefix(b"\r\n")
    assert read == data
    assert sent == f"0\r\nx-amz-checksum-crc64nvme:{crc64nvme(data)}\r\n\r\n".encode()


@pytest.mark.parametrize("answer", [error(403, "SignatureDoesNotMatch"), error(500, "InternalError"), Transient("cut")])
def test_a_server_that_knows_no_trailers_is_not_asked_again(make: Make, source: Source, answer: Answer) -> None:
    more = [fine("<ListPartsResult/>")] if isinstance(answer, tuple) and answer[0] == 500 else []
    target, _ = make(UPLOADS, *checked(answer, *more, verifies=True))
    session = target.open(PLAN, None, None)
    target, wire = make(fine(etag="x", **{"x-amz-checksum-crc64nvme": crc64nvme(PARTS[0])}))
    assert send(target, source, session).evidence is Evidence.CONTENT
    assert "x-amz-trailer" not in wire.asked[0][1].headers


def test_elsewhere_than_on_aws_parts_are_copied_into_an_upload_without_checksums(make: Make) -> None:
    """MinIO refuses to copy into one with checksums."""
    base = Remote("a", "s3://box/a", len(DATA), slots=("there x y",))
    target, wire = make(UPLOADS, BEGUN)
    assert target.open(PLAN, None, base).detail == {"checks": "md5"}
    assert not any("checksum" in name for name in wire.asked[1][1].headers)
    target, wire = make(UPLOADS, BEGUN, url=AWS)
    assert target.open(PLAN, None, base).detail == {"checks": "crc64nvme"}


def test_the_checksums_of_an_upload_that_was_left_are_learned_from_its_parts(make: Make) -> None:
    """MinIO tells them there alone."""
    open_ = fine(
        "<ListMultipartUploadsResult><Upload><Key>pre/trip/a b.bin</Key><UploadId>U9</UploadId></Upload>"
        "</ListMultipartUploadsResult>"
    )
    parts = fine("<ListPartsResult><ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm></ListPartsResult>")
    target, _ = make(open_, parts, url=URL + "&adopt_after=0")
    session = target.open(PLAN, None, None)
    assert (session.id, session.detail, session.taken_over) == ("U9", {"checks": "crc64nvme"}, True)


def test_the_bucket_itself_is_never_removed_as_a_name(make: Make) -> None:
    target, wire = make()
    assert target.remove([""]) == []
    assert wire.asked == []


def test_a_server_that_checks_nothing_gets_no_checksum_headers(make: Make, source: Source) -> None:
    gone: Answer = (204, {}, "")
    target, wire = make(
        UPLOADS, *checked(verifies=False), gone, error(400, "InvalidRequest"), BEGUN, fine(etag=MD5S[0])
    )
    session = target.open(PLAN, None, None)
    assert session.detail == {"checks": "md5"}
    receipt = send(target, source, session)
    sent = wire.asked[-1][1].headers
    assert not any("checksum" in name for name in sent)
    assert base64.b64decode(sent["Content-MD5"]).hex() == MD5S[0]
    assert (receipt.etag, receipt.evidence) == (MD5S[0], Evidence.CONTENT)


@pytest.mark.parametrize(
    ("headers", "evidence"),
    [
        ({"etag": "0" * 32, "x-amz-server-side-encryption": "aws:kms"}, Evidence.ETAG),
        ({"etag": "opaque"}, Evidence.ETAG),
        ({"etag": "0" * 32}, None),
    ],
)
def test_an_etag_that_is_no_md5_is_only_a_mark(
    make: Make, source: Source, headers: Mapping[str, str], evidence: Evidence | None
) -> None:
    target, _ = make((200, headers, ""))
    if evidence is None:
        with pytest.raises(Damaged):
            send(target, source)
    else:
        assert send(target, source).evidence is evidence


def listing(*parts: tuple[int, int, str], following: int = 0) -> Answer:
    told = "".join(
        f'<Part><PartNumber>{n}</PartNumber><Size>{size}</Size><ETag>"{etag}"</ETag></Part>' for n, size, etag in parts
    )
    more = (
        f"<IsTruncated>true</IsTruncated><NextPartNumberMarker>{following}</NextPartNumberMarker>" if following else ""
    )
    return fine(f'<ListPartsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{more}{told}</ListPartsResult>')


def test_the_survey_reads_every_page_and_compares_part_by_part(make: Make) -> None:
    target, wire = make(listing((1, 5 * MIB, MD5S[0]), following=1), listing((2, 5 * MIB, "f" * 32)))
    survey = target.survey(SESSION, PLAN, RECEIPTS)
    assert survey.authoritative
    assert list(survey.held) == [0]
    assert dict(parse_qsl(wire.asked[1][1].path.partition("?")[2]))["part-number-marker"] == "1"


def test_lists_are_read_page_by_page(make: Make) -> None:
    def page(key: str, more: str) -> Answer:
        told = f"<Contents><Key>pre/{key}</Key><Size>1</Size><ETag>&quot;x&quot;</ETag></Contents>"
        return fine(f"<ListBucketResult><EncodingType>url</EncodingType>{more}{told}</ListBucketResult>")

    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t/1+</NextContinuationToken>"
    target, wire = make(page("a%20b%2Bc", more), page("%C3%BC", ""))
    assert [remote.name for remote in target.list("")] == ["a b+c", "ü"]
    assert dict(parse_qsl(wire.asked[1][1].path.partition("?")[2]))["continuation-token"] == "t/1+"


def test_open_uploads_are_read_page_by_page(make: Make) -> None:
    def page(upload: str, more: str) -> Answer:
        told = (
            f"<Upload><Key>pre/a</Key><UploadId>{upload}</UploadId><Initiated>2026-01-02T03:04:05Z</Initiated></Upload>"
        )
        return fine(f"<ListMultipartUploadsResult>{more}{told}</ListMultipartUploadsResult>")

    more = (
        "<IsTruncated>true</IsTruncated><NextKeyMarker>pre/a</NextKeyMarker><NextUploadIdMarker>U1</NextUploadIdMarker>"
    )
    target, wire = make(page("U1", more), listing((1, 5, "x")), page("U2", ""), error(404, "NoSuchUpload"))
    (found,) = target.incomplete()
    assert (found.id, found.name, found.size, found.modified) == ("U1", "a", 5, 1767323045.0)
    assert "upload-id-marker=U1" in wire.asked[2][1].path


def test_what_cannot_be_removed_is_told(make: Make) -> None:
    refused = fine(
        "<DeleteResult><Error><Key>pre/a</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>"
    )
    target, wire = make(THERE, MISSING, refused)
    with pytest.raises(Rejected) as caught:
        target.remove(["a", "b"])
    assert caught.value.reason == "forbidden"
    keys = [node.text("Key") for node in s3_xml.parse(wire.asked[-1][1].content).all("Object")]
    assert keys == ["pre/a"]


def test_a_server_that_lists_no_parts_is_no_authority(make: Make) -> None:
    for answer in ((405, {}, ""), error(501, "NotImplemented"), error(403, "AccessDenied")):
        survey = make(answer)[0].survey(SESSION, PLAN, RECEIPTS)
        assert (survey.held, survey.authoritative) == ({}, False)


def test_a_lost_upload_may_have_been_completed(make: Make) -> None:
    target, _ = make(error(404, "NoSuchUpload"), THERE)
    assert len(target.survey(SESSION, PLAN, RECEIPTS).held) == 2
    for there in (MISSING, fine(etag="f" * 32, content_length=str(len(DATA))), fine(etag=WHOLE, content_length="3")):
        target, _ = make(error(404, "NoSuchUpload"), there)
        with pytest.raises(SessionLost):
            target.survey(SESSION, PLAN, RECEIPTS)


def complete(target: S3Target, *, doubtful: bool = False, plan: FilePlan = PLAN) -> str | None:
    return target.complete(SESSION, plan, RECEIPTS, doubtful=doubtful).version


def test_complete(make: Make) -> None:
    target, wire = make(DONE)
    assert complete(target) == WHOLE
    node = s3_xml.parse(wire.asked[0][1].content)
    assert [(part.number("PartNumber"), part.text("ETag")) for part in node.all("Part")] == [
        (1, f'"{MD5S[0]}"'),
        (2, f'"{MD5S[1]}"'),
    ]


@pytest.mark.parametrize("code", ["InternalError", "SlowDown"])
def test_an_error_in_a_complete_that_is_200_is_a_doubt(make: Make, code: str) -> None:
    with pytest.raises(Doubt):
        complete(make(error(200, code))[0])


def test_a_lost_complete_is_resolved_by_looking(make: Make) -> None:
    with pytest.raises(Doubt):
        complete(make(Transient("no whole reply"))[0])
    with pytest.raises(Doubt):
        complete(make(fine("<html>"))[0])
    target, wire = make(THERE)
    assert complete(target, doubtful=True) == WHOLE
    assert wire.calls == ["HEAD"]
    target, wire = make(MISSING, DONE)
    assert complete(target, doubtful=True) == WHOLE


def test_a_complete_that_knows_no_upload_looks_at_the_object(make: Make) -> None:
    target, _ = make(error(404, "NoSuchUpload"), THERE)
    assert complete(target) == WHOLE
    target, _ = make(error(404, "NoSuchUpload"), MISSING)
    with pytest.raises(SessionLost):
        complete(target)


@pytest.mark.parametrize("told", ["", WHOLE, f"&quot;{WHOLE}&quot;"], ids=["empty", "unquoted", "quoted"])
def test_ceph_says_the_etag_of_a_completed_upload_later_or_without_quotes(make: Make, told: str) -> None:
    done = fine(f"<CompleteMultipartUploadResult><ETag>{told}</ETag></CompleteMultipartUploadResult>")
    target, wire = make(done, *([] if told else [THERE]))
    assert complete(target) == WHOLE
    assert len(wire.asked) == (1 if told else 2)


def test_ceph_knows_no_key_where_others_know_no_upload(make: Make, source: Source) -> None:
    assert len(make(error(404, "NoSuchKey"), THERE)[0].survey(SESSION, PLAN, RECEIPTS).held) == 2
    with pytest.raises(SessionLost):
        send(make(error(404, "NoSuchKey"))[0], source)


def test_a_complete_that_can_never_succeed(make: Make) -> None:
    with pytest.raises(SessionLost):
        complete(make(error(400, "InvalidPart"))[0])
    with pytest.raises(Rejected):
        complete(make(error(403, "AccessDenied"))[0])


def test_immutable_is_a_condition_where_it_is_known_and_a_question_where_not(make: Make) -> None:
    plan = replace(PLAN, immutable=True)
    target, wire = make(MISSING, DONE)
    complete(target, plan=plan)
    assert wire.asked[-1][1].headers["If-None-Match"] == "*"
    for answers in ((THERE,), (MISSING, error(412, "PreconditionFailed"))):
        with pytest.raises(Rejected) as caught:
            complete(make(*answers)[0], plan=plan)
        assert caught.value.reason == "exists"
    target, wire = make(MISSING, error(501, "NotImplemented"), DONE)
    assert complete(target, plan=plan) == WHOLE


def test_a_small_file_is_one_put(make: Make, source: Source) -> None:
    part = Part(0, 0, 5)
    md5 = hashlib.md5(DATA[:5]).hexdigest()
    target, wire = make(fine(etag=md5), url=URL + "&acl=private&meta.a=b")
    session = target.open(SMALL, None, None)
    (slot,) = target.reserve(session, SMALL, [part])
    receipt = target.upload(session, SMALL, part, slot, source.body(part))
    done = target.complete(session, SMALL, [receipt], doubtful=False)
    assert (done.digest, done.size, wire.calls) == (f"md5:{md5}", 5, ["PUT"])
    headers = wire.asked[0][1].headers
    assert (headers["Content-Type"], headers["x-amz-acl"], headers["x-amz-meta-a"]) == ("text/plain", "private", "b")


@pytest.mark.parametrize(
    "content",
    [
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>',
        b"\xff\xfe<\0x\0>\0",
        b"<html><body>",
        b"<a>" * 200_000,
        b"",
    ],
)
def test_xml_that_is_none_of_ours(content: bytes) -> None:
    with pytest.raises(Transient):
        s3_xml.parse(content)


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3://b/x?what=1",
        "s3://b?adopt_after=soon",
        "s3://b?endpoint=ftp://x",
        "s3://b?endpoint=https://u:p@x",
        "s3://b?region=",
        "s3://b?sign_payload=yes",
        "s3://b?region=a&region=b",
        "s3://b?acl=a%0Ab",
    ],
)
def test_urls_that_are_refused(make: Make, url: str) -> None:
    with pytest.raises(Usage):
        make(url=url)


def test_a_missing_extra_is_one_sentence(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Usage) as caught:
        make()
    assert "pip install '.[s3]'" in caught.value.hint


def test_signatures_are_those_of_botocore(monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials as Theirs

    key = Key("AKID", "secret/+", "token")
    for method, path, query, more in (
        ("PUT", "/a%20b/%C3%BC~%2B", {}, {"Content-MD5": "x", "x-amz-meta-a": "b   c"}),
        ("GET", "/", {"list-type": "2", "prefix": "ä b/", "encoding-type": "url"}, {}),
        ("POST", "/k", {"uploads": ""}, {"Content-Type": "text/plain"}),
    ):
        now = time.time()
        ours = signed(key, "eu-west-1", method, "box.example", path, query_of(query), more, "UNSIGNED-PAYLOAD", now)
        asked = AWSRequest(method, f"https://box.example{path}", {**more, "host": "box.example"}, None, query)
        asked.context["client_config"] = None
        auth = S3SigV4Auth(Theirs(key.access, key.secret, key.token), "s3", "eu-west-1")
        stamp = ours["x-amz-date"]
        asked.headers["X-Amz-Content-SHA256"] = "UNSIGNED-PAYLOAD"
        asked.headers["X-Amz-Date"] = stamp
        asked.headers["X-Amz-Security-Token"] = "token"
        asked.context["timestamp"] = stamp
        monkeypatch.setattr(auth, "payload", lambda request: "UNSIGNED-PAYLOAD")
        theirs = auth.signature(auth.string_to_sign(asked, auth.canonical_request(asked)), asked)
        assert ours["Authorization"].endswith(f"Signature={theirs}"), (method, auth.canonical_request(asked))


PAGE = fine("<html>Please log in</html>")


def test_a_page_of_a_proxy_is_no_reply_of_s3(make: Make, source: Source) -> None:
    """With status 200, also where it happens to be XML."""
    part = Part(0, 0, 5)
    with pytest.raises(Transient):
        make(fine("<html/>", content_length="7"))[0].find("a.txt")
    for ask in (lambda target: list(target.list("")), lambda target: list(target.incomplete())):
        with pytest.raises(Transient):
            ask(make(PAGE)[0])
    with pytest.raises(Doubt):
        make(PAGE)[0].upload(Session("U1", detail={"checks": "md5"}), PLAN, part, 1, source.body(part))
    with pytest.raises(Doubt):
        make(PAGE)[0].complete(SESSION, PLAN, RECEIPTS, doubtful=False)
