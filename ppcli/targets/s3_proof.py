"""What proves a part on S3: a checksum that the server checks, or the MD5 that its ETag is. Pure."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence

from ppcli import checksums
from ppcli.errors import Damaged
from ppcli.model import Evidence, Receipt
from ppcli.target import Body
from ppcli.values import value

MD5 = "md5"
CHECKED = ("crc64nvme", "crc32c")
"""Checksums that a server may check, best first."""
ELEMENTS = {"crc64nvme": "ChecksumCRC64NVME", "crc32c": "ChecksumCRC32C"}
TRAILED = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
"""What the signature says of a body whose checksum follows it."""
_FRAME = 8 << 20
"""Bytes of a body between two of its sizes; some servers take no more than 16 MiB."""
_MD5_ETAG = re.compile(r"[0-9a-f]{32}")
_PARTS_ETAG = re.compile(r"[0-9a-f]{32}-[0-9]+")
_OPAQUE = ("aws:kms", "aws:kms:dsse", "aws:fsx")


@value(frozen=True, slots=True)
class Tag:
    """What a receipt keeps of a part: its ETag, and the checksum (base64) that was sent with it. As text, they are
    `ETAG` or `ETAG ALGORITHM:CHECKSUM`."""

    etag: str
    algorithm: str = MD5
    checksum: str = ""

    def __str__(self) -> str:
        return f"{self.etag} {self.algorithm}:{self.checksum}" if self.checksum else self.etag

    @classmethod
    def of(cls, receipt: Receipt) -> Tag:
        etag, _, rest = (receipt.etag or "").partition(" ")
        algorithm, _, checksum = rest.partition(":")
        return cls(etag, algorithm or MD5, checksum)


class Measured:
    """A body whose checksum is known before it goes out: it is read once more for that, from the system's cache. What a
    server that checks it does not repeat in its reply is not taken for proved."""

    def __init__(self, body: Body, algorithm: str) -> None:
        self._body = body
        self.algorithm = algorithm
        self.digest = digest(body, algorithm)

    @property
    def size(self) -> int:
        return self._body.size

    @property
    def checksum(self) -> str:
        return self._body.checksum

    def __iter__(self) -> Iterator[memoryview]:
        return iter(self._body)

    def quiet(self) -> Iterator[memoryview]:
        return self._body.quiet()

    @property
    def headers(self) -> dict[str, str]:
        """What tells the server."""
        value = base64.b64encode(self.digest).decode()
        if self.algorithm == MD5:
            return {"Content-MD5": value}
        return {f"x-amz-checksum-{self.algorithm}": value}

    def proved(self, reply: Mapping[str, str]) -> tuple[Tag, Evidence]:
        """What the reply to it proves. Raises `Damaged` where the server stored something else."""
        etag = reply.get("etag", "").removeprefix("W/").strip('"')
        if self.algorithm == MD5:
            return Tag(etag), judged(etag, self.digest, reply)
        value = base64.b64encode(self.digest).decode()
        stored = reply.get(f"x-amz-checksum-{self.algorithm}")
        if stored is None:
            return Tag(etag, self.algorithm, value), Evidence.ETAG
        if stored != value:
            raise Damaged(f"the server stored {self.algorithm} {stored}, {value} was sent")
        return Tag(etag, self.algorithm, value), Evidence.CONTENT


class Trailing(Measured):
    """A body that is read once: its checksum is computed on its way and follows it (`aws-chunked` with a trailer)."""

    def __init__(self, body: Body, algorithm: str) -> None:
        self._body = body
        self.algorithm = algorithm
        self._name = f"x-amz-checksum-{algorithm}"
        self.digest = checksums.hasher(algorithm).digest()

    @property
    def size(self) -> int:
        whole, rest = divmod(self._body.size, _FRAME)
        frames = whole * (_FRAME + len(_opening(_FRAME)) + 2) + (rest + len(_opening(rest)) + 2 if rest else 0)
        return frames + len(self._end())

    def __iter__(self) -> Iterator[memoryview]:
        hasher = checksums.hasher(self.algorithm)
        left, frame = self._body.size, 0
        for piece in self._body:
            at = 0
            while at < len(piece):
                if not frame:
                    frame = min(left, _FRAME)
                    yield memoryview(_opening(frame) if left == self._body.size else b"\r\n" + _opening(frame))
                going = piece[at : at + frame]
                hasher.update(going)
                yield going
                at, frame, left = at + len(going), frame - len(going), left - len(going)
        self.digest = hasher.digest()
        yield memoryview(b"\r\n" + self._end() if self._body.size else self._end())

    @property
    def headers(self) -> dict[str, str]:
        return {
            "Content-Encoding": "aws-chunked",
            "x-amz-content-sha256": TRAILED,
            "x-amz-decoded-content-length": str(self._body.size),
            "x-amz-trailer": self._name,
        }

    def _end(self) -> bytes:
        return f"0\r\n{self._name}:{base64.b64encode(self.digest).decode()}\r\n\r\n".encode()


def _opening(size: int) -> bytes:
    return b"%x\r\n" % size


def digest(body: Body, algorithm: str) -> bytes:
    hasher = checksums.hasher(algorithm)
    for piece in body.quiet():
        hasher.update(piece)
    return hasher.digest()


def judged(etag: str, md5: bytes, headers: Mapping[str, str]) -> Evidence:
    """An ETag that is an MD5 proves the content; another kind is only a mark of it. Raises `Damaged`."""
    if etag == md5.hex():
        return Evidence.CONTENT
    if _MD5_ETAG.fullmatch(etag) and not opaque(headers):
        raise Damaged(f"the server stored MD5 {etag}, {md5.hex()} was sent")
    return Evidence.ETAG


def opaque(headers: Mapping[str, str]) -> bool:
    """The encryption is one whose ETags are no MD5."""
    encrypted = headers.get("x-amz-server-side-encryption", "")
    return encrypted in _OPAQUE or "x-amz-server-side-encryption-customer-algorithm" in headers


def object_digest(etag: str, headers: Mapping[str, str], checks: str | None) -> str | None:
    """`algorithm:hex` of a whole object, from a HEAD; that of a multipart ETag is not among them. A checksum counts
    where the server was seen to check it (`checks`), or where there is nothing else."""
    checksum = headers.get("x-amz-checksum-crc64nvme")
    whole = (
        checksum is not None
        and "-" not in checksum
        and headers.get("x-amz-checksum-type", "FULL_OBJECT") == "FULL_OBJECT"
    )
    if whole and checksum and (checks == "crc64nvme" or opaque(headers)):
        try:
            return f"crc64nvme:{base64.b64decode(checksum, validate=True).hex()}"
        except ValueError:
            return None
    return f"md5:{etag}" if _MD5_ETAG.fullmatch(etag) and not opaque(headers) else None


def parts_digest(etag: str, headers: Mapping[str, str], part_size: int) -> str | None:
    """`md5-SIZE:hex` for the ETag of a multipart object."""
    told = _PARTS_ETAG.fullmatch(etag) and not opaque(headers)
    return f"md5-{part_size}:{etag.partition('-')[0]}" if told else None


def is_parts_etag(etag: str) -> bool:
    return _PARTS_ETAG.fullmatch(etag) is not None


def whole_checksum(receipts: Sequence[Receipt]) -> str | None:
    """The CRC64NVME (base64) of the file, from those of its parts; None where one is missing."""
    tags = [Tag.of(receipt) for receipt in receipts]
    if not all(tag.algorithm == "crc64nvme" and tag.checksum for tag in tags):
        return None
    pairs = [(base64.b64decode(tag.checksum), receipt.size) for tag, receipt in zip(tags, receipts, strict=True)]
    return base64.b64encode(checksums.joined_crc64nvme(pairs)).decode()


def whole_digest(receipts: Sequence[Receipt], etag: str, part_size: int) -> str | None:
    """`algorithm:hex` of a file that was put there as these parts and got this ETag; None where they do not tell."""
    if whole := whole_checksum(receipts):
        return f"crc64nvme:{base64.b64decode(whole).hex()}"
    if any(receipt.evidence is not Evidence.CONTENT or Tag.of(receipt).checksum for receipt in receipts):
        return None  # its ETags may be anything
    if len(receipts) == 1:
        return object_digest(etag, {}, None)
    return parts_digest(etag, {}, part_size) if etag == whole_etag(receipts) else None


def whole_etag(receipts: Sequence[Receipt]) -> str | None:
    """The ETag that a server which makes them of MD5s gives to the whole; None where those of the parts are none."""
    etags = [Tag.of(receipt).etag for receipt in receipts]
    if not all(_MD5_ETAG.fullmatch(etag) for etag in etags):
        return None
    return f"{hashlib.md5(bytes.fromhex(''.join(etags)), usedforsecurity=False).hexdigest()}-{len(etags)}"
