"""Multipart uploads of one bucket: making one with the best checksum that the server checks, finding one that somebody
left, and completing one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ppcli.errors import Doubt, Loss, PpcliError, Rejected, SessionLost, StepFailure, Transient
from ppcli.model import FilePlan, Receipt
from ppcli.target import Body
from ppcli.targets import s3_errors, s3_proof, s3_xml
from ppcli.targets.s3_api import Api, Held, Object, StoredPart, Upload
from ppcli.targets.s3_errors import Fault
from ppcli.targets.s3_memory import Checks, Memory
from ppcli.targets.s3_proof import ELEMENTS, MD5, Measured, Tag, Trailing
from ppcli.values import value

_POISONED = frozenset({"BadDigest", "InvalidPart", "InvalidPartOrder", "XAmzContentChecksumMismatch"})


@value(frozen=True, slots=True)
class Found:
    """An open upload that somebody left, the checksum it was made with, and what it holds of a file."""

    id: str
    checks: str
    parts: Sequence[StoredPart]


class Uploads:
    """Any thread may call it, for different files."""

    def __init__(self, api: Api, memory: Memory, known: Checks | None, *, trails: bool) -> None:
        """`known`: how the server is known to check; None: it is found out, once. `trails`: checksums may follow the
        bytes of parts, where the server takes them so."""
        self._api = api
        self._memory = memory
        self._known = known
        self._copies_checksums = known is not None  # AWS itself
        self._asked = False
        self._trails = trails

    @property
    def checks(self) -> str | None:
        """What is known by now of what the server checks: the name of a checksum, or `md5`."""
        if not self._asked:
            self._known, self._asked = self._known or self._memory.checks(), True
        return self._known.algorithm if self._known else None

    def send(
        self, key: str, upload: str, number: int, body: Body, algorithm: str
    ) -> tuple[Measured, Mapping[str, str] | Fault]:
        """Send a part with its proof; gives that, and the reply. A trailer that was taken once may not be taken today:
        there may be another server at this address, or something before it."""
        trailing = None
        if self._trails and self.checks == algorithm and self._known is not None and self._known.trailer:
            trailing = Trailing(body, algorithm)
            got = self._api.part(key, upload, number, trailing.headers, trailing)
            if not _declined(got, algorithm):
                return trailing, got
        measured = Measured(body, algorithm)
        got = self._api.part(key, upload, number, measured.headers, measured)
        if trailing is not None and not isinstance(got, Fault):
            self._learn(Checks(algorithm))
        return measured, got

    def create(self, key: str, headers: Mapping[str, str], *, copies: bool = False) -> tuple[str, str]:
        """The id of a new upload, and the checksum that its parts get. `copies`: parts of another object will be copied
        into it, which some servers do only where parts have no checksums of their own."""
        choice: Sequence[str] = s3_proof.CHECKED if self.checks is None else (self.checks,)
        if copies and not self._copies_checksums:
            choice = ()
        for algorithm in choice:
            if algorithm == MD5:
                break
            kind = "FULL_OBJECT" if algorithm == "crc64nvme" else "COMPOSITE"
            asked = {"x-amz-checksum-algorithm": algorithm.upper(), "x-amz-checksum-type": kind}
            upload = self._api.create(key, {**headers, **asked})
            if isinstance(upload, Fault):
                continue
            if self.checks is not None:
                return upload, algorithm
            if self._verifies(key, upload, algorithm):
                self._learn(Checks(algorithm, self._trails and self._verifies_trailers(key, upload, algorithm)))
                return upload, algorithm
            self._api.abort(key, upload)
        upload = self._api.create(key, headers)
        if isinstance(upload, Fault):
            raise upload.error()
        if choice:
            self._learn(Checks(MD5))
        return upload, MD5

    def left_behind(self, key: str, file: FilePlan, adopt_after: float) -> tuple[Found | None, Upload | None]:
        """The open upload of this key that fits the file best and that nobody works on; and one that somebody may be
        working on."""
        best: Found | None = None
        young: Upload | None = None
        for upload in self._open(key):
            held = self._held(key, upload.id)
            algorithm = (upload.algorithm or (held.algorithm if held else "")).lower() or MD5
            if held is None or algorithm not in (*s3_proof.CHECKED, MD5):
                continue
            newest = max([upload.initiated or 0.0, *(part.modified or 0.0 for part in held.parts)])
            if self._memory.job(upload.id) != file.job and self._api.now - newest < adopt_after:
                young = upload
                continue
            fitting = [part for part in held.parts if part.size == _size(file, part.number - 1)]
            if best is None or len(fitting) > len(best.parts):
                best = Found(upload.id, algorithm, fitting)
        return best, young

    def complete(
        self, key: str, session: str, checks: str, file: FilePlan, receipts: Sequence[Receipt], *, conditional: bool
    ) -> str | None:
        """The ETag of the object; None where somebody else's is there and must not be replaced. Raises `SessionLost`,
        and `Doubt` where it may have happened."""
        parts = [
            (receipt.index + 1, tag.etag, ELEMENTS.get(tag.algorithm), tag.checksum) for receipt, tag in _tags(receipts)
        ]
        headers: dict[str, str] = {}
        if checks == "crc64nvme" and (whole := s3_proof.whole_checksum(receipts)):
            headers = {"x-amz-checksum-crc64nvme": whole, "x-amz-checksum-type": "FULL_OBJECT"}
        asked = s3_xml.completion(parts)
        condition = {"If-None-Match": "*"} if conditional else {}
        got = self._api.complete(key, session, asked, headers | condition, file.size)
        if isinstance(got, Fault) and condition and got.unsupported:
            got = self._api.complete(key, session, asked, headers, file.size)
        if not isinstance(got, Fault):
            self._memory.forget_upload(session)
            return (got.text("ETag") or "").strip('"')
        if got.status == 412:
            return None
        raise _incomplete(got)

    def finished(self, key: str, file: FilePlan, receipts: Sequence[Receipt]) -> Object | None:
        """What is under the key, where it is proved to be these parts."""
        there = self._api.head(key)
        if there is None or there.size != file.size or len(receipts) != file.chunks:
            return None
        whole = s3_proof.whole_checksum(receipts) if self.checks == "crc64nvme" else None
        if whole is not None and there.headers.get("x-amz-checksum-crc64nvme") == whole:
            return there
        return there if there.etag == s3_proof.whole_etag(receipts) else None

    def _open(self, key: str) -> Iterator[Upload]:
        try:
            for upload in self._api.uploads(key):
                if upload.key == key:
                    yield upload
        except Rejected as error:
            if error.reason not in ("forbidden", "unsupported", "not_found"):
                raise

    def _held(self, key: str, upload: str) -> Held | None:
        try:
            return self._api.parts(key, upload)
        except SessionLost:
            return None

    def _verifies(self, key: str, upload: str, algorithm: str) -> bool:
        """Does the server take a right checksum and refuse a wrong one? Many take any, and check none. The part of one
        byte that this leaves is replaced by the first of the file."""
        right, wrong = Measured(_Byte(b"p"), algorithm), Measured(_Byte(b"p", quiet=b"q"), algorithm)
        return self._takes(key, upload, right) and not self._takes(key, upload, wrong)

    def _verifies_trailers(self, key: str, upload: str, algorithm: str) -> bool:
        """The same for one that follows the bytes. A server that knows no trailers may do anything."""
        right, wrong = Trailing(_Byte(b"p"), algorithm), _Mistaken(_Byte(b"p", quiet=b"q"), algorithm)
        try:
            return self._takes(key, upload, right) and not self._takes(key, upload, wrong)
        except (StepFailure, PpcliError):
            return False

    def _takes(self, key: str, upload: str, body: Measured) -> bool:
        """Raises `Transient`, and what ends the file."""
        try:
            return not isinstance(self._api.part(key, upload, 1, body.headers, body), Fault)
        except StepFailure as error:
            if isinstance(error, Transient):
                raise
            return False

    def _learn(self, known: Checks) -> None:
        if self._known != known:
            self._known = known
            self._memory.learn_checks(known)


class _Byte:
    """A body of one byte; one that is to be found wrong is hashed as another."""

    size = 1
    checksum = ""

    def __init__(self, data: bytes, *, quiet: bytes | None = None) -> None:
        self._data = data
        self._quiet = data if quiet is None else quiet

    def __iter__(self) -> Iterator[memoryview]:
        yield memoryview(self._data)

    def quiet(self) -> Iterator[memoryview]:
        yield memoryview(self._quiet)


class _Mistaken(Trailing):
    """Followed by the checksum of what its body is hashed as, which is not what goes out."""

    def _end(self) -> bytes:
        self.digest = s3_proof.digest(self._body, self.algorithm)
        return super()._end()


def _size(file: FilePlan, index: int) -> int | None:
    """The bytes that this chunk of a file has; None where there is no such chunk."""
    if not 0 <= index < file.chunks:
        return None
    return min(file.chunk_size, file.size - index * file.chunk_size)


def _tags(receipts: Sequence[Receipt]) -> list[tuple[Receipt, Tag]]:
    return [(receipt, Tag.of(receipt)) for receipt in sorted(receipts, key=lambda receipt: receipt.index)]


def _declined(got: Mapping[str, str] | Fault, algorithm: str) -> bool:
    """May a server that knows no trailers have answered this? One that says nothing of the checksum may have stored the
    frames; a SHA-256 that it finds wrong is no damage, since there was none."""
    if isinstance(got, Fault):
        return got.code == "XAmzContentSHA256Mismatch" or isinstance(got.error(), Rejected)
    return f"x-amz-checksum-{algorithm}" not in got


def _incomplete(fault: Fault) -> Exception:
    told = f"{fault.code or fault.status}: {fault.words}".rstrip(": .")
    if fault.code in s3_errors.NO_UPLOAD or (fault.status == 404 and fault.code != "NoSuchBucket"):
        return SessionLost("the server no longer knows its upload")
    if fault.code in _POISONED:
        return SessionLost(f"the server cannot complete it ({told})", Loss.POISONED)
    error = fault.error()
    if isinstance(error, Transient):
        return Doubt(error.cause, retry_after=error.retry_after)
    return error
