"""S3 and compatibles, straight from the client: `s3://bucket[/prefix][?endpoint=URL&region=R&...]` (see `s3_url`).

- A file of one chunk is one PUT: it is visible once its bytes are there, and completing it does nothing more.
- A larger one is a multipart upload, whose id is durable before the first byte. The server's list of parts says what it
  holds; parts that nobody here knows are adopted once their checksum or MD5 is that of the source's bytes.
- What a server checks is found out once per endpoint: it must refuse a wrong checksum. Where it does not, each part
  goes with Content-MD5, and its ETag is compared.
- `complete` may have happened when its reply is lost, and says NoSuchUpload the second time: the object is
  compared then.
- A changed file takes the unchanged parts of the object that it replaces by UploadPartCopy.
"""

from __future__ import annotations

import base64
import mimetypes
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from ppcli.calls import Call, outcome
from ppcli.errors import Damaged, Loss, PpcliError, SessionLost, other_content
from ppcli.model import Evidence, FilePlan, Limits, Notice, Part, Receipt, Remote, Session, Slot, Survey
from ppcli.target import Body
from ppcli.targets import Settings, s3_proof, s3_url, slots
from ppcli.targets.s3_api import Api
from ppcli.targets.s3_credentials import Identity
from ppcli.targets.s3_errors import Fault
from ppcli.targets.s3_memory import Memory, Parts
from ppcli.targets.s3_proof import MD5, Measured, Tag
from ppcli.targets.s3_store import Contents
from ppcli.targets.s3_wire import Wire

_LIMITS = Limits(
    chunk_min=5 << 20,
    chunk_max=5 << 30,
    chunk_default=8 << 20,
    max_chunks=10_000,
    evidence=Evidence.CONTENT,
    adopts=True,
    remote=True,
    digest_wanted=False,
)
_SMALL = replace(_LIMITS, adopts=False, open_leaves_trace=False)
_PUT = "put"
"""The id of a session that is a single request."""
_CHECKS = "checks"
_HERE = "here"


def connect(url: str, settings: Settings) -> S3Target:
    """Nothing is asked yet. Raises `Usage` where it is no such URL, or the extra is not installed."""
    wanted = s3_url.parse(url)
    identity = Identity(wanted.profile)
    identity.check_installed()
    if wanted.endpoint is None and (endpoint := identity.endpoint) is not None:
        wanted = wanted.at(endpoint)
    api = Api(Wire(wanted, identity, settings.http))
    memory = Memory(settings.data_dir, wanted.endpoint or "aws", wanted.bucket)
    return S3Target(wanted, api, memory)


class S3Target(Contents):
    """A `Target` and a `Store`. A slot is a part's number; a name is a key below the prefix."""

    def limits(self, size: int) -> Limits:
        return _LIMITS if size > _LIMITS.chunk_min else _SMALL

    def open(self, file: FilePlan, old: Session | None, base: Remote | None) -> Session:
        if old is not None:
            if old.id == _PUT and file.chunks > 1:
                raise SessionLost("it is sent in parts now")
            return replace(old, taken_over=False)
        if file.chunks == 1:
            return Session(_PUT, whole=True)
        key = self._wanted.key(file.name)
        if not file.fresh and (taken := self._taken_over(key, file)) is not None:
            return taken
        copies = base is not None and bool(base.slots)
        upload, checks = self._uploads.create(key, self._headers(file), copies=copies)
        self._memory.learn_upload(upload, file.job)
        return Session(upload, detail={_CHECKS: checks})

    def survey(self, session: Session, file: FilePlan, known: Sequence[Receipt]) -> Survey:
        key = self._wanted.key(file.name)
        if session.id == _PUT:
            there = self._api.head(key) if any(receipt.etag for receipt in known) else None
            same = {r.index: r for r in known if there and there.size == r.size and there.etag == Tag.of(r).etag}
            return Survey(same, authoritative=True)
        try:
            stored = self._api.parts(key, session.id)
        except SessionLost:
            if self._uploads.finished(key, file, known):
                return Survey({receipt.index: receipt for receipt in known}, authoritative=True)
            raise
        if stored is None:
            return Survey({}, authoritative=False)
        ours = {receipt.index: receipt for receipt in known if receipt.etag is not None}
        held: dict[int, Receipt] = {}
        for part in stored.parts:
            index, checks = part.number - 1, session.detail.get(_CHECKS, MD5)
            mine = ours.get(index)
            if mine is not None and (mine.size, Tag.of(mine).etag) == (part.size, part.etag):
                held[index] = mine
            elif mine is None and 0 <= index < file.chunks:
                tag = Tag(part.etag, checks, part.checksums.get(checks, ""))
                held[index] = Receipt(index, part.size, f"{_HERE} {tag}", "", str(tag))
        return Survey(held, authoritative=True)

    def reserve(self, session: Session, file: FilePlan, parts: Sequence[Part]) -> Sequence[Slot]:
        return [part.index + 1 for part in parts]

    def adopt(self, session: Session, file: FilePlan, part: Part, base: Slot, body: Body) -> Receipt | None:
        """A part that is in the session, proved by its checksum or MD5; or one of the object that is there, copied."""
        if session.id == _PUT or part.checksum is None:
            return None
        where, _, said = str(base).partition(" ")
        checks = session.detail.get(_CHECKS, MD5)
        if where == _HERE:
            return self._proved(Tag.of(Receipt(0, 0, 0, "", said)), part, s3_proof.digest(body, checks), checks)
        etag, _, checksum = said.partition(" ")
        if checksum != part.checksum or not part.size:
            return None
        key, last = self._wanted.key(file.name), part.offset + part.size - 1
        copied = self._api.copy_part(key, session.id, part.index + 1, etag, part.offset, last)
        if copied is None:
            return None
        tag = Tag(copied.etag, checks, copied.checksums.get(checks, ""))
        return self._proved(tag, part, s3_proof.digest(body, checks), checks)

    def upload(self, session: Session, file: FilePlan, part: Part, slot: Slot, body: Body) -> Receipt:
        return outcome(self.uploading(session, file, part, slot, body))

    @property
    def splits(self) -> bool:
        try:
            return self._api.splits
        except PpcliError:  # it cannot be reached at all, as the first call will tell
            return False

    def uploading(self, session: Session, file: FilePlan, part: Part, slot: Slot, body: Body) -> Call[Receipt]:
        key = self._wanted.key(file.name)
        checks = session.detail.get(_CHECKS) or self._uploads.checks or MD5
        if session.id == _PUT:
            measured = Measured(body, checks)
            got = yield from self._put(key, file, measured)
        else:
            measured, got = self._uploads.send(key, session.id, slots.number(slot), body, checks)
        if isinstance(got, Fault):
            raise got.error()
        tag, evidence = measured.proved(got)
        return Receipt(part.index, part.size, slot, body.checksum, str(tag), evidence)

    def confirm(self, session: Session, file: FilePlan, receipt: Receipt) -> Receipt:
        """What the server answered was compared when the part was sent."""
        if receipt.etag is None:
            raise Damaged(f"chunk {receipt.index} was stored without a proof")
        return receipt if receipt.evidence else replace(receipt, evidence=Evidence.ETAG)

    def complete(self, session: Session, file: FilePlan, receipts: Sequence[Receipt], *, doubtful: bool) -> Remote:
        key, ordered = self._wanted.key(file.name), sorted(receipts, key=lambda receipt: receipt.index)
        if session.id == _PUT:
            tag = Tag.of(ordered[0])
            return self._completed(key, file, tag.etag, ordered)
        if doubtful and (there := self._uploads.finished(key, file, ordered)):
            return self._completed(key, file, there.etag, ordered)
        if file.immutable:
            self._refuse_to_replace(file)
        checks = session.detail.get(_CHECKS, MD5)
        try:
            etag = self._uploads.complete(key, session.id, checks, file, ordered, conditional=file.immutable)
        except SessionLost as lost:
            if lost.loss is Loss.GONE and (there := self._uploads.finished(key, file, ordered)):
                return self._completed(key, file, there.etag, ordered)
            raise
        if etag is None:
            raise other_content(file.name)
        if not etag:  # Ceph says it later
            there = self._api.head(key)
            etag = there.etag if there else ""
        return self._completed(key, file, etag, ordered)

    def abort(self, session: Session | None, file: FilePlan, slots: Sequence[Slot] = ()) -> None:
        """An upload whose reply was lost has no id that we know: 'ls --incomplete' shows it."""
        if session is not None and session.id != _PUT:
            self._api.abort(self._wanted.key(file.name), session.id)
            self._memory.forget_upload(session.id)

    def _taken_over(self, key: str, file: FilePlan) -> Session | None:
        found, young = self._uploads.left_behind(key, file, self._wanted.adopt_after)
        if young is not None:
            said = (
                f"Another upload of {file.name} is open and was added to in the last {self._wanted.adopt_after:.0f} s"
            )
            self._notice(Notice("upload_open", f"{said}; it was left alone ('ppcli ls --incomplete' shows it)."))
        if found is None:
            return None
        self._memory.learn_upload(found.id, file.job)
        return Session(found.id, detail={_CHECKS: found.checks}, taken_over=True)

    def _proved(self, tag: Tag, part: Part, digest: bytes, checks: str) -> Receipt | None:
        """The receipt for a part that is there, where it is proved to be these bytes."""
        value = base64.b64encode(digest).decode()
        same = tag.etag == digest.hex() if checks == MD5 else tag.checksum == value
        if not same:
            return None
        proof = Tag(tag.etag) if checks == MD5 else Tag(tag.etag, checks, value)
        assert part.checksum is not None
        return Receipt(part.index, part.size, part.index + 1, part.checksum, str(proof), Evidence.CONTENT)

    def _put(self, key: str, file: FilePlan, measured: Measured) -> Call[Mapping[str, str] | Fault]:
        """One PUT. With `immutable` it is asked for first, since not every server knows the condition."""
        headers = {**self._headers(file), **measured.headers}
        if not file.immutable:
            return (yield from self._api.put(key, headers, measured))
        if (same := self._same(key, file, measured)) is not None:
            return same
        got = yield from self._api.put(key, {**headers, "If-None-Match": "*"}, measured)
        if not isinstance(got, Fault):
            return got
        if got.status == 412:
            if (same := self._same(key, file, measured)) is not None:  # a reply that was lost
                return same
            raise other_content(file.name)
        return (yield from self._api.put(key, headers, measured)) if got.unsupported else got

    def _same(self, key: str, file: FilePlan, measured: Measured) -> Mapping[str, str] | None:
        """The headers of what is there, where it is exactly these bytes; else raises `Rejected` (`exists`)."""
        there = self._api.head(key)
        if there is None:
            return None
        digest = s3_proof.object_digest(there.etag, there.headers, self._uploads.checks)
        if there.size != measured.size or digest != f"{measured.algorithm}:{measured.digest.hex()}":
            raise other_content(file.name)
        return there.headers

    def _refuse_to_replace(self, file: FilePlan) -> None:
        if self._api.head(self._wanted.key(file.name)) is not None:
            raise other_content(file.name)

    def _headers(self, file: FilePlan) -> dict[str, str]:
        """What a new object gets besides its content."""
        return {"Content-Type": _content_type(posixpath.splitext(file.name)[1]), **self._wanted.headers}

    def _completed(self, key: str, file: FilePlan, etag: str, receipts: Sequence[Receipt]) -> Remote:
        digest = s3_proof.whole_digest(receipts, etag, file.chunk_size)
        if len(receipts) > 1:
            self._memory.learn_parts(key, etag, Parts(file.chunk_size, [receipt.checksum for receipt in receipts]))
        return Remote(file.name, self._location(key), file.size, digest, self._api.now, etag)


@lru_cache(maxsize=256)
def _content_type(suffix: str) -> str:
    guessed, encoding = mimetypes.guess_type(f"name{suffix}", strict=False)
    return guessed if guessed and not encoding else "application/octet-stream"
