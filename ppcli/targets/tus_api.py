"""The requests of tus 1.0 (https://tus.io/protocols/resumable-upload), one method each: what is sent, and what the
replies mean. Nothing is decided here. A reply that makes no sense is `Transient`: it may be a proxy's.
"""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from ppcli.errors import Damaged, Rejected, Transient
from ppcli.model import FilePlan
from ppcli.target import Body
from ppcli.targets.creation import GONE, CreationApi, still_there
from ppcli.targets.upload_url import number, path_of
from ppcli.transport import Reply, Request
from ppcli.transport.refusals import retry_after

VERSION = "1.0.0"
_LOCKED, _MISMATCH = 423, 460
_CHECKSUMS = ("sha256", "sha512", "sha1", "md5")
"""Those that hashlib computes, the ones to choose first before the others."""
_COPY_RATE = 50e6
"""Bytes per second at which a server is trusted to put parts together before it answers."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a server can do, as it answers OPTIONS. `checksum` is the algorithm to use."""

    extensions: frozenset[str] = frozenset()
    max_size: int | None = None
    checksum: str | None = None


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload on the server. `length` is None where the server does not say."""

    url: str
    offset: int
    length: int | None = None
    expires_at: float | None = None


class Api(CreationApi):
    def options(self) -> Offer:
        """What the server says it can do; nothing, where it does not answer OPTIONS. Raises `Rejected` for a server of
        other versions."""
        unanswered = frozenset({400, 403, 404, 405, 406, 415, 501})
        reply = self._transport.send(Request("OPTIONS", self._path, expect=unanswered | {412}))
        if reply.status in unanswered:
            return Offer()
        versions = _words(reply.headers.get("tus-version", VERSION))
        if reply.status == 412 or VERSION not in versions:
            raise self._other_version(reply)
        offered = set(_words(reply.headers.get("tus-checksum-algorithm", "")))
        extensions = frozenset(_words(reply.headers.get("tus-extension", "")))
        algorithm = next((name for name in _CHECKSUMS if name in offered), None) if "checksum" in extensions else None
        return Offer(extensions, number(reply.headers, "tus-max-size"), algorithm)

    def create(self, file: FilePlan, length: int, *, partial: bool = False) -> Upload:
        """A new upload of `length` bytes; `partial`: one to be put together with others."""
        headers = {"Upload-Length": str(length), "Upload-Metadata": metadata(file.name)}
        if partial:
            headers["Upload-Concat"] = "partial"
        return self._created(self._send("POST", self._path, headers))

    def concatenate(self, file: FilePlan, urls: Sequence[str]) -> Upload | None:
        """Put complete partial uploads together; None where the server does not know them any more."""
        parts = " ".join(path_of(self.origin, url) for url in urls)
        headers = {"Upload-Concat": f"final;{parts}", "Upload-Metadata": metadata(file.name)}
        reply = self._send("POST", self._path, headers, expect=GONE, patience=60.0 + file.size / _COPY_RATE)
        return None if reply.status in GONE else self._created(reply)

    def ask(self, url: str) -> Upload:
        """Where an upload is. Raises `SessionLost` where it is gone."""
        reply = self._send("HEAD", path_of(self.origin, url), expect=GONE)
        still_there(reply)
        offset = number(reply.headers, "upload-offset")
        if offset is None:
            raise Transient("the server's reply to HEAD has no Upload-Offset")
        return Upload(url, offset, number(reply.headers, "upload-length"), when(reply.headers.get("upload-expires")))

    def append(self, url: str, offset: int, body: Body, checksum: tuple[str, bytes] | None = None) -> int:
        """Send bytes from `offset` on; gives the offset after them. Raises `Transient` where the server is at another
        one, `Damaged` where the `checksum` (algorithm, digest) is not that of what arrived."""
        headers = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}
        if checksum is not None:
            headers["Upload-Checksum"] = f"{checksum[0]} {base64.b64encode(checksum[1]).decode()}"
        reply = self._send("PATCH", path_of(self.origin, url), headers, expect=GONE | {409, _MISMATCH}, body=body)
        still_there(reply)
        if reply.status == 409:
            raise Transient("the server is at another offset")
        if reply.status == _MISMATCH:
            raise Damaged("the server computed another checksum")
        after = number(reply.headers, "upload-offset")
        if after is None:
            raise Transient("the server's reply to PATCH has no Upload-Offset")
        return after

    def terminate(self, url: str) -> None:
        """Repeatable; an upload that is gone is no error, nor is a server that cannot terminate."""
        self._send("DELETE", path_of(self.origin, url), expect=GONE | {405, 501})

    def _send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        expect: frozenset[int] = frozenset(),
        patience: float = 60.0,
        body: Body | None = None,
    ) -> Reply:
        named = {"Tus-Resumable": VERSION, **(headers or {})}
        asked = Request(method, path, named, expect=expect | {412, _LOCKED}, patience=patience)
        reply = self._transport.send(asked, body)
        if reply.status == 412:
            raise self._other_version(reply)
        if reply.status == _LOCKED:
            wait = retry_after(reply.headers)
            raise Transient("the server is still busy with an earlier request for this upload", retry_after=wait)
        return reply

    def _created(self, reply: Reply) -> Upload:
        url = self._location(
            reply, "Check with who runs the server that this is the URL where tus uploads are created."
        )
        return Upload(url, 0, expires_at=when(reply.headers.get("upload-expires")))

    def _other_version(self, reply: Reply) -> Rejected:
        spoken = ", ".join(_words(reply.headers.get("tus-version", ""))) or "another version"
        return Rejected(
            f"{self.origin.netloc} speaks tus {ascii(spoken)[1:-1][:100]}; ppcli speaks {VERSION}.",
            hint="Use a server of that version.",
            reason="version",
        )


def metadata(name: str) -> str:
    """Upload-Metadata of a file: its name, and the media type that the name suggests."""
    kind = mimetypes.guess_type(name, strict=False)[0] or "application/octet-stream"
    return f"filename {_base64(name)},filetype {_base64(kind)}"


def when(text: str | None) -> float | None:
    """Seconds since the epoch of Upload-Expires, which is written as dates of HTTP are."""
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (ValueError, OverflowError):
        return None


def _words(text: str) -> list[str]:
    return [word for word in (word.strip().lower() for word in text.split(",")) if word]


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()
