"""Whatever is in a file of ours, in the configuration, or in a server's reply: a documented exit code, never a bug's,
never a traceback; and `status` lists what is sound and names what is not.

The default run tries a few examples; `pytest --sweep tests/sweeps/test_fuzz.py` hundreds of each kind."""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from cli_kit import CHUNK, Cli, Ran, fast_directory, make_cli
from http_kit import Exchange, serving
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from s3_kit import KEYS
from sweeps.network_kit import impatient

from ppcli import journal
from ppcli.errors import NotFound, PpcliError, StepFailure
from ppcli.targets import s3 as s3_target
from ppcli.targets.putplace_api import Api
from ppcli.transport import Transport

DEEP = "[" * 100_000
ODD_VALUES: list[Any] = [
    *(None, True, -1, 0, 1, 2**31, 2**63, 2**70, 1e308, float("nan"), float("inf"), 0.5),
    *("", "x", "\x00", "\ud800", "\x1b[31m", "a" * 5000, "9" * 5000, "../../etc/passwd", "2026-99-99T00:00:00Z"),
    *([], {}, [None], [[]], {"x": {}}, [-1], ["x"]),
]
LONG = pytest.param(250, marks=[pytest.mark.sweep, pytest.mark.timeout(1200)])
STATE = ("manifest.json", "journal.jsonl", "summary.json", "lock")
INDEX = ("index.json", "index.jsonl", "store.json")


def examples(seed: int, count: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Have hypothesis look for what breaks `check`."""
    wanted = settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    hypothesis.seed(seed)(wanted(hypothesis.given(strategy)(check)))()


@dataclass(frozen=True)
class Damage:
    """What becomes of a file's bytes; `number` says where, and what else is left to chance."""

    how: str
    number: int
    value: Any

    def __call__(self, data: bytes) -> bytes:
        rng, new = random.Random(self.number), data
        at = rng.randrange(len(data) + 1)
        match self.how:
            case "flip":
                new = data[:at] + bytes(byte ^ (1 << rng.randrange(8)) for byte in data[at : at + 1]) + data[at + 1 :]
            case "cut":
                new = data[:at]
            case "zeros":
                new = data[:at] + bytes(len(data) - at)
            case "deep":
                new = DEEP.encode()
            case "noise":
                new = rng.randbytes(rng.choice([0, 1, 700]))
            case "value":
                new = self._other_value(data, rng)
        return new

    def _other_value(self, data: bytes, rng: random.Random) -> bytes:
        """JSON in which one value is another; where lines have checksums, these are right."""
        lines = data.splitlines()
        try:
            if not lines or b'"crc"' not in lines[0]:
                return json.dumps(self._changed(json.loads(data), rng)).encode()
            at = rng.randrange(len(lines))
            record = self._changed(json.loads(lines[at]), rng)
            record.pop("crc", None)
            lines[at] = journal.encode(json.dumps(record)[:-1])[:-1]
        except ValueError:
            return data
        return b"\n".join(lines) + b"\n"

    def _changed(self, value: Any, rng: random.Random) -> Any:
        places = list(_places(value))
        if not places:
            return self.value
        holder, key = rng.choice(places)
        if rng.random() < 0.1 and isinstance(holder, dict) and len(holder) > 1:
            del holder[key]
        else:
            holder[key] = self.value
        return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


DAMAGES = st.builds(
    Damage,
    st.sampled_from(["flip", "cut", "zeros", "deep", "noise", "value", "value", "value", "value"]),
    st.integers(0, 1 << 30),
    st.sampled_from(ODD_VALUES),
)


@pytest.fixture(scope="module", params=["pads", "file"])
def template(request: pytest.FixtureRequest) -> Iterator[Cli]:
    """A data dir with two paused jobs, one completed and one cancelled; the first has a journal."""
    with fast_directory() as root:
        cli = make_cli(root, request.param)
        for name in ("a", "b", "c"):
            cli.source(name)
            assert cli("put", name, "missing", "--name", f"{name}/").code == 10
            (cli.root / "missing").unlink(missing_ok=True)
        (job,) = [one["job"] for one in cli.json("status").of("job") if one["sources"][0].endswith("/c")]
        assert cli("cancel", job, "--yes").code == 0
        unfold(cli)
        yield cli


def unfold(cli: Cli) -> None:
    """A killed run: its journal is not folded."""
    (first, *_) = sorted(one["job"] for one in cli.json("status").of("job"))
    (cli.root / "missing").write_bytes(bytes(9 * CHUNK))
    words = ("resume", first, "--json")
    process = cli.start(*words)
    assert process.stdout is not None
    for line in process.stdout:
        if b"chunk_confirmed" in line:
            break
    process.kill()
    process.communicate()
    (cli.root / "missing").unlink()


def sane(ran: Ran, words: tuple[str, ...]) -> Ran:
    assert ran.code not in (1, 130), (words, ran.result["error"]["message"])
    assert ran.err == "", words
    assert ran.result["exit_code"] == ran.code
    return ran


@pytest.mark.parametrize("count", [6, LONG])
def test_any_damage_to_the_data_dir(template: Cli, count: int, seed: int) -> None:
    jobs = sorted(path.name for path in (template.data / "jobs").iterdir() if not path.name.startswith("."))
    targets = [f"jobs/{job}/{name}" for job in jobs for name in STATE]
    targets += [f"pads/{name}" for name in INDEX] + ["digests.sqlite"]
    known = {one["job"]: one["state"] for one in template.json("status", "--all").of("job")}
    assert set(known) == set(jobs)

    def check(case: tuple[str, Damage]) -> None:
        name, damage = case
        with fast_directory() as root:
            cli = Cli(root, template.to if template.to == "pads:" else f"file://{root}/store")
            shutil.copytree(template.root, root, dirs_exist_ok=True, symlinks=True)
            path = cli.data / name
            if not path.exists():
                return
            path.write_bytes(damage(path.read_bytes()))
            told = sane(cli("status", "--all", "--json"), ("status",))
            shown = {one["job"]: one["state"] for one in told.of("job")}
            job = name.split("/")[1] if name.startswith("jobs/") else "digests"
            sound = set(jobs) - {job}
            assert {one: shown.get(one) for one in sound} == {one: known[one] for one in sound}, "a sound job is gone"
            if set(jobs) - set(shown):
                assert any(job in one["message"] for one in told.of("warning")), told.events
            for words in (("status", "--exit-code", jobs[0]), ("resume", "--all"), ("put", "kept"), ("ls",)):
                sane(cli(*words, "--json"), words)
            sane(cli("cancel", "--all", "--yes", "--json"), ("cancel",))

    examples(seed, count, st.tuples(st.sampled_from(targets), DAMAGES), check)


CONFIG = """default_target = "nas"
keep_jobs = 30
[targets.nas]
url = "file:///tmp"
token_command = "true"
plain_http_token = false
[server]
quota = "50GB"
"""


@pytest.mark.parametrize("count", [10, LONG])
def test_any_configuration(root: Path, count: int, seed: int) -> None:
    cli = make_cli(root, "file")
    names = {"config.toml": CONFIG.encode(), "user.key": b"x" * 32, "logins.json": b'{"http://127.0.0.1:9":"t"}'}

    def check(case: tuple[str, Damage, Any]) -> None:
        name, damage, value = case
        cli.config.mkdir(exist_ok=True)
        data = names[name]
        if name == "config.toml" and damage.how == "value":
            lines = data.splitlines()
            at = damage.number % len(lines)
            written = json.dumps(value, ensure_ascii=True).encode()
            lines[at] = lines[at].partition(b"=")[0] + b"= " + written
            data = b"\n".join(lines)
        else:
            data = damage(data)
        (cli.config / name).write_bytes(data)
        for words in (
            ("status",),
            ("put", "kept"),
            ("ls", "--to", "http://127.0.0.1:9"),
            ("put", "kept", "--to", "pads:"),
        ):
            with impatient():
                sane(cli(*words, "--json"), words)
        (cli.config / name).unlink()

    examples(seed, count, st.tuples(st.sampled_from(list(names)), DAMAGES, st.sampled_from(ODD_VALUES)), check)


# What servers say

KEYS_OF_RECORDS = [
    *(
        "upload_id",
        "expires_at",
        "expiry",
        "etag",
        "received_bytes",
        "received",
        "chunk_num",
        "state",
        "next",
        "sha256",
    ),
    *(
        "storage_location",
        "filepath",
        "hostname",
        "file_size",
        "has_file_content",
        "file_mtime",
        "created_at",
        "status",
    ),
    *("_id", "uploaded_by_user_id", "upload_required", "access_token", "detail", "message", "error", "msg", "loc"),
]
ELEMENTS = [
    *("UploadId", "Key", "Size", "ETag", "LastModified", "PartNumber", "Part", "Upload", "Contents", "IsTruncated"),
    *("NextPartNumberMarker", "NextContinuationToken", "NextKeyMarker", "Initiated", "EncodingType", "Code", "Message"),
    *("ChecksumCRC64NVME", "ChecksumAlgorithm", "Error", "Region"),
]
ROOTS = [
    *("InitiateMultipartUploadResult", "ListPartsResult", "CompleteMultipartUploadResult", "ListBucketResult"),
    *("ListMultipartUploadsResult", "DeleteResult", "CopyPartResult", "Error", "html"),
]
HEADERS = [
    *("ETag", "Content-Length", "Location", "Retry-After", "Date", "Upload-Offset", "Upload-Length", "Upload-Complete"),
    *(
        "Upload-Limit",
        "Upload-Expires",
        "Upload-Metadata",
        "Tus-Resumable",
        "Tus-Extension",
        "Tus-Version",
        "Tus-Max-Size",
    ),
    *("Tus-Checksum-Algorithm", "Last-Modified", "x-amz-checksum-crc64nvme", "x-amz-mp-parts-count", "Content-Range"),
    *(
        "x-amz-bucket-region",
        "Transfer-Encoding",
        "Content-Type",
        "Connection",
        "WWW-Authenticate",
        "x-amz-checksum-type",
    ),
]
WORDS = [
    *(
        "",
        "0",
        "1",
        "-1",
        "4096",
        "8192",
        "12293",
        "99999999999999999999",
        "1e9",
        "?0",
        "?1",
        "1.0.0",
        "chunked",
        "bytes 0-1/2",
    ),
    *(
        "/files/1",
        "http://127.0.0.1:9/x",
        "//elsewhere/x",
        "ftp://x",
        "https://[",
        "creation,checksum,concatenation",
        "sha1,md5",
    ),
    *(
        "max-size=1",
        "max-age=99999999999",
        '"0123456789abcdef0123456789abcdef"',
        '"x-2"',
        "Thu, 01 Jan 1970 00:00:00 GMT",
    ),
    *(
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "99 Foo 99999",
        "2026-11-25T00:00:00Z",
        "eu-west-1",
        "\xff",
        "AAAA",
        "us east\x01",
    ),
]
STATUSES = [
    *([200] * 8),
    201,
    204,
    206,
    204,
    301,
    307,
    400,
    401,
    403,
    404,
    409,
    410,
    412,
    413,
    416,
    423,
    429,
    500,
    501,
    503,
    507,
]


@dataclass(frozen=True)
class Speaker:
    """A server that says anything; `number` is what it draws from."""

    number: int

    def replies(self) -> Iterator[bytes]:
        rng = random.Random(self.number)
        kind = rng.choice(["json", "json", "xml", "xml", "none", "noise"])
        while True:
            yield self._reply(rng, rng.choice([kind, kind, kind, "none", "noise"]))

    def _reply(self, rng: random.Random, kind: str) -> bytes:
        body = {
            "json": _json,
            "xml": _xml,
            "none": lambda rng: b"",
            "noise": lambda rng: rng.randbytes(rng.randrange(99)),
        }[kind](rng)
        headers = {"Content-Length": str(len(body)), "Tus-Resumable": "1.0.0", "Date": formatdate(usegmt=True)}
        for _ in range(rng.randrange(7)):
            headers[rng.choice(HEADERS)] = rng.choice(WORDS)
        if rng.random() < 0.9:
            headers |= {"Content-Length": str(len(body))}
            headers.pop("Transfer-Encoding", None)
        if headers.get("Retry-After", "") not in ("", "0", "-1"):
            headers["Retry-After"] = rng.choice(["99999999999999999999", "nan", "Thu, 01 Jan 1970 00:00:00 GMT"])
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {rng.choice(STATUSES)} Said\r\n{lines}\r\n".encode("latin-1") + body


def _json(rng: random.Random) -> bytes:
    def value(depth: int) -> Any:
        if depth and rng.random() < 0.6:
            record = {rng.choice(KEYS_OF_RECORDS): value(depth - 1) for _ in range(rng.randrange(12))}
            return [record] * rng.randrange(3) if rng.random() < 0.3 else record
        return rng.choice([*ODD_VALUES, *WORDS, "a" * 64, "x"])

    return rng.choice([json.dumps(value(3)).encode(), json.dumps(value(2)).encode(), DEEP.encode()])


def _xml(rng: random.Random) -> bytes:
    def inside(depth: int) -> str:
        if not depth or rng.random() < 0.3:
            return rng.choice([word.replace("<", "") for word in WORDS if word.isascii()])
        names = [rng.choice(ELEMENTS) for _ in range(rng.randrange(8))]
        return "".join(f"<{name}>{inside(depth - 1)}</{name}>" for name in names)

    root = rng.choice(ROOTS)
    return f"<{root}>{inside(3)}</{root}>".encode()


TALKS = {
    "putplace": (
        "http://{}?hostname=here",
        [("put", "a"), ("ls",), ("get", "a", "copy"), ("rm", "-r", "x", "--yes"), ("cancel", "--all", "--yes")],
    ),
    "tus": ("tus+http://{}/files/", [("put", "a"), ("cancel", "--all", "--yes")]),
    "rufh": ("rufh+http://{}/files", [("put", "a"), ("cancel", "--all", "--yes")]),
    "s3": (
        "s3://box?endpoint=http://{}&region=us-east-1",
        [
            ("put", "a"),
            ("ls",),
            ("ls", "--incomplete"),
            ("get", "a", "copy"),
            ("rm", "a"),
            ("cancel", "--incomplete", "--yes"),
        ],
    ),
}


@pytest.mark.parametrize("count", [6, LONG])
@pytest.mark.parametrize("scheme", TALKS)
def test_any_reply_of_a_server(root: Path, scheme: str, count: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3_target, "_LIMITS", replace(s3_target._LIMITS, chunk_min=1))
    url, talk = TALKS[scheme]
    spoken: list[Iterator[bytes]] = []
    one_at_a_time = threading.Lock()

    def speak(exchange: Exchange) -> None:
        exchange.read()
        with one_at_a_time:
            said = next(spoken[0])
        exchange.send(said)

    def check(number: int) -> None:
        shutil.rmtree(root / "data", ignore_errors=True)
        spoken[:] = [Speaker(number).replies()]
        for words in talk:
            more = ("--chunk-size", str(CHUNK), "--retries", "2") if words[0] == "put" else ()
            sane(cli(*words, *more, "--json"), (*words, str(number)))
            (root / "copy").unlink(missing_ok=True)
        if scheme == "putplace":
            with pytest.raises((PpcliError, StepFailure)), closing(Transport(f"http://{place}")) as transport:
                assert Api(transport, "").login("e@example.com", "secret")
                raise NotFound("it gave a token")

    with serving(speak) as server, impatient():
        place = f"127.0.0.1:{server.port}"
        cli = Cli(root, url.format(place))
        cli.source("a")
        examples(seed, count, st.integers(0, 1 << 40), check)
