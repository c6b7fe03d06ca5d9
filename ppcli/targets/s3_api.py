"""The calls of the S3 API, one method each: what is sent, and what the replies mean. Nothing is decided here.

One attempt per call, but for what a reply teaches: the bucket's region, the server's clock, that the credentials have
expired. Each is learned once per call, and the same request goes out again, to the same family of hosts.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from ppcli.calls import Call
from ppcli.errors import Doubt, Rejected, SessionLost, Transient
from ppcli.target import Body
from ppcli.targets import s3_errors, s3_xml
from ppcli.targets.s3_errors import Fault
from ppcli.targets.s3_signing import encoded
from ppcli.targets.s3_times import when
from ppcli.targets.s3_wire import Wire
from ppcli.transport import Reply
from ppcli.transport.messages import PATIENCE
from ppcli.values import value

_ASSEMBLY_RATE = 50e6
"""Bytes per second at which a server is trusted to put a file together before it answers."""
_ANY = frozenset(range(300, 600))
_PAGE = 1000


@value(frozen=True, slots=True)
class Object:
    """What is under a key. `etag` is without its quotes; `headers` are those of a HEAD."""

    key: str
    size: int
    etag: str
    modified: float | None
    headers: Mapping[str, str]


@value(frozen=True, slots=True)
class StoredPart:
    """A part as the server lists it. `checksums` by algorithm, in base64."""

    number: int
    size: int
    etag: str
    modified: float | None
    checksums: Mapping[str, str]


@value(frozen=True, slots=True)
class Held:
    """The parts of an upload. `algorithm` is that of its checksums, empty where it has none or the server does not say
    so."""

    parts: Sequence[StoredPart]
    algorithm: str = ""


@value(frozen=True, slots=True)
class Upload:
    """A multipart upload that is open; `algorithm` is that of its checksums, empty where it has none."""

    id: str
    key: str
    initiated: float | None
    algorithm: str = ""


class Api:
    """One bucket. Any thread may call it."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._ask = wire.ask
        self._send = wire.send

    @property
    def splits(self) -> bool:
        return self._wire.splits

    @property
    def now(self) -> float:
        """By the server's clock, as far as it is known; seconds since the epoch."""
        return self._wire.now

    def head(self, key: str) -> Object | None:
        """Raises `Rejected` (`forbidden`) where it may not be looked at."""
        if not key:  # that would be the bucket
            return None
        headers = {"x-amz-checksum-mode": "ENABLED"}
        got = self._ask("HEAD", key, {}, headers)
        if isinstance(got, Fault) and got.status in (400, 403):  # a HEAD does not say why: ask in a way that does
            why = self._ask("GET", key, {}, {"Range": "bytes=0-0"})
            if isinstance(why, Fault) and why.status != 416:
                got = why
            else:
                got = self._ask("HEAD", key, {}, headers)
        if isinstance(got, Fault):
            if got.status == 404 and got.code in {"", *s3_errors.NO_KEY}:
                return None
            raise got.error()
        size = got.headers.get("content-length", "")
        if not (size.isdigit() and _etag(got)):
            raise Transient("the server does not tell the size and the ETag of an object")
        return Object(key, int(size), _etag(got), when(got.headers.get("last-modified")), got.headers)

    def part_size(self, key: str, etag: str) -> int | None:
        """The size of the first part of a multipart object; None where the server cannot say."""
        got = self._ask("HEAD", key, {"partNumber": "1"})
        if isinstance(got, Fault) and isinstance(error := got.error(), Transient):
            raise error
        if isinstance(got, Fault) or got.headers.get("x-amz-mp-parts-count") != etag.rpartition("-")[2]:
            return None
        size = got.headers.get("content-length", "")
        return int(size) if size.isdigit() and int(size) else None

    def put(self, key: str, headers: Mapping[str, str], body: Body) -> Call[Mapping[str, str] | Fault]:
        """The headers of the reply; the fault where a condition or a header was refused."""
        got = yield from self._wire.asking("PUT", key, {}, headers, body=body)
        if isinstance(got, Fault):
            if got.status in (400, 412, 501):
                return got
            raise got.error()
        return _stored(got)

    def create(self, key: str, headers: Mapping[str, str]) -> str | Fault:
        """The id of a new upload; the fault where one of the headers was refused."""
        got = self._ask("POST", key, {"uploads": ""}, headers)
        if isinstance(got, Fault):
            if got.status in (400, 501):
                return got
            raise got.error()
        return s3_xml.result(got.content).needed("UploadId")

    def part(
        self, key: str, upload: str, number: int, headers: Mapping[str, str], body: Body
    ) -> Mapping[str, str] | Fault:
        """The headers of the reply; the fault where it is 400 or 501. Raises `SessionLost`."""
        got = self._ask("PUT", key, {"partNumber": str(number), "uploadId": upload}, headers, body=body)
        if isinstance(got, Fault):
            if got.status == 404 and got.code in {"", "NotFound", *s3_errors.NO_UPLOAD, *s3_errors.NO_KEY}:
                raise SessionLost("the server no longer knows its upload")
            if got.status == 500:  # some say so of a part whose upload is gone
                self._check_open(key, upload)
            if got.status in (400, 501):
                return got
            raise got.error()
        return _stored(got)

    def _check_open(self, key: str, upload: str) -> None:
        """Raises `SessionLost` where the upload is certain to be gone."""
        got = self._ask("GET", key, {"uploadId": upload, "max-parts": "1"})
        if isinstance(got, Fault) and got.code in s3_errors.NO_UPLOAD:
            raise SessionLost("the server no longer knows its upload")

    def copy_part(self, key: str, upload: str, number: int, etag: str, first: int, last: int) -> StoredPart | None:
        """Bytes `first` to `last` of what is under `key` become a part; None where it is another object now, or the
        server cannot copy. Raises `SessionLost`."""
        headers = {
            "x-amz-copy-source": encoded(f"{self._wire.bucket}/{key}", path=True),
            "x-amz-copy-source-range": f"bytes={first}-{last}",
            "x-amz-copy-source-if-match": f'"{etag}"',
        }
        got = self._ask(
            "PUT", key, {"partNumber": str(number), "uploadId": upload}, headers, patience=_patience(last - first)
        )
        if isinstance(got, Fault):
            if got.code in s3_errors.NO_UPLOAD:
                raise SessionLost("the server no longer knows its upload")
            if got.status in (400, 403, 404, 405, 412, 416, 501):
                return None
            raise got.error()
        return _part(_successful(got, self._wire.host), number, last - first + 1)

    def parts(self, key: str, upload: str) -> Held | None:
        """All parts of an upload; None where the server does not list them. Raises `SessionLost`."""
        found: list[StoredPart] = []
        marker = 0
        while True:
            query = {"uploadId": upload, "max-parts": str(_PAGE)} | (
                {"part-number-marker": str(marker)} if marker else {}
            )
            got = self._ask("GET", key, query)
            if isinstance(got, Fault):
                if got.code in s3_errors.NO_UPLOAD | s3_errors.NO_KEY or got.status == 404:
                    raise SessionLost("the server no longer knows its upload")
                if got.unsupported or got.forbidden:
                    return None
                raise got.error()
            page = s3_xml.result(got.content)
            found += [_part(node, node.number("PartNumber"), node.number("Size")) for node in page.all("Part")]
            following = page.number("NextPartNumberMarker") if page.true("IsTruncated") else 0
            if following <= marker:
                return Held(found, (page.text("ChecksumAlgorithm") or "").strip())
            marker = following

    def complete(
        self, key: str, upload: str, content: bytes, headers: Mapping[str, str], size: int
    ) -> s3_xml.Node | Fault:
        """The server's record of the object; the fault where it refuses, also in a reply that is 200. Raises `Doubt`
        where it may have happened."""
        named = {"Content-Type": "application/xml", **headers}
        try:
            got = self._ask("POST", key, {"uploadId": upload}, named, content, patience=_patience(size))
        except Doubt:
            raise
        except Transient as error:
            raise Doubt(error.cause, retry_after=error.retry_after) from error
        if isinstance(got, Fault):
            return got
        if s3_xml.error_of(got.content) is not None:
            return Fault.of(got, self._wire.host)
        try:
            return s3_xml.result(got.content)
        except Transient as error:
            raise Doubt(error.cause) from error

    def abort(self, key: str, upload: str) -> None:
        """Repeatable; an unknown upload is no error."""
        got = self._ask("DELETE", key, {"uploadId": upload})
        if isinstance(got, Fault) and got.status != 404 and got.code not in s3_errors.NO_UPLOAD:
            raise got.error()

    def objects(self, prefix: str) -> Iterator[Object]:
        """In the order of the server, which is that of the keys' bytes."""
        query = {"list-type": "2", "prefix": prefix, "encoding-type": "url"}
        while True:
            page = s3_xml.result(self._send("GET", None, query).content)
            read = s3_xml.decoder(page)
            for node in page.all("Contents"):
                etag = (node.text("ETag") or "").strip('"')
                yield Object(read(node.needed("Key")), node.number("Size"), etag, when(node.text("LastModified")), {})
            token = page.text("NextContinuationToken") if page.true("IsTruncated") else None
            if not token:
                return
            query["continuation-token"] = token

    def uploads(self, prefix: str) -> Iterator[Upload]:
        """Open uploads whose key begins with `prefix`. Raises `Rejected` (`unsupported`, `forbidden`)."""
        query = {"uploads": "", "prefix": prefix, "encoding-type": "url"}
        while True:
            page = s3_xml.result(self._send("GET", None, query).content)
            read = s3_xml.decoder(page)
            for node in page.all("Upload"):
                initiated, algorithm = when(node.text("Initiated")), (node.text("ChecksumAlgorithm") or "").strip()
                yield Upload(node.needed("UploadId"), read(node.needed("Key")), initiated, algorithm)
            marker = page.text("NextKeyMarker") if page.true("IsTruncated") else None
            if not marker:
                return
            query |= {"key-marker": read(marker), "upload-id-marker": page.text("NextUploadIdMarker") or ""}

    def delete(self, keys: Iterable[str]) -> None:
        """At most 1,000. Raises for the first that cannot be removed."""
        content = s3_xml.deletion(keys)
        digest = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        headers = {"Content-Type": "application/xml", "Content-MD5": digest}
        reply = self._send("POST", None, {"delete": ""}, headers, content)
        for node in s3_xml.result(reply.content).all("Error"):
            code, words = node.text("Code") or "", node.text("Message") or ""
            status = 403 if code == "AccessDenied" else 409
            raise Fault(status, code, words, self._wire.host, None, {}).error()

    @contextmanager
    def content(self, key: str, first: int, size: int, etag: str | None) -> Iterator[Iterator[memoryview]]:
        """`size` bytes from `first` on, at least one, of exactly that object."""
        headers = {"Range": f"bytes={first}-{first + size - 1}"} | ({"If-Match": f'"{etag}"'} if etag else {})
        with self._wire.stream(key, headers) as stream:
            if stream.status >= 300:
                if stream.status == 412:
                    raise _replaced(key)
                said = b"".join(bytes(piece) for piece in stream.pieces())
                raise Fault.of(Reply(stream.status, stream.headers, said), self._wire.host).error()
            if stream.status != 206 and (first or stream.headers.get("content-length") != str(size)):
                raise Transient("the server does not give a part of an object")
            yield stream.pieces()


def _replaced(key: str) -> Rejected:
    return Rejected(
        f"What is under {key} was replaced while it was read.",
        hint="Run the same command again to get what is there now.",
        reason="changed",
    )


def _etag(reply: Reply) -> str:
    return reply.headers.get("etag", "").removeprefix("W/").strip('"')


def _stored(reply: Reply) -> Mapping[str, str]:
    """The headers of the reply to bytes. Without an ETag it is not from S3, and nobody knows what became of them."""
    if not _etag(reply):
        raise Doubt("the server's reply has no ETag")
    return reply.headers


def _part(node: s3_xml.Node, number: int, size: int) -> StoredPart:
    checksums = {
        algorithm: value
        for algorithm, element in (("crc64nvme", "ChecksumCRC64NVME"), ("crc32c", "ChecksumCRC32C"))
        if (value := node.text(element))
    }
    etag = (node.text("ETag") or "").strip('"')
    return StoredPart(number, size, etag, when(node.text("LastModified")), checksums)


def _successful(reply: Reply, host: str) -> s3_xml.Node:
    """A copy, like a complete, may answer 200 with an error in its body."""
    if s3_xml.error_of(reply.content) is not None:
        error = Fault.of(reply, host).error()
        raise error if isinstance(error, Transient | SessionLost) else Transient(str(error))
    return s3_xml.result(reply.content)


def _patience(size: int) -> float:
    return PATIENCE + size / _ASSEMBLY_RATE
