"""The requests of the IETF resumable uploads draft (draft-ietf-httpbis-resumable-upload-11, interop version 8), one
method each. Nothing is decided here. An upload's URL comes with the final reply to an empty creation ("careful
creation"): interim replies (104) are not relied on, since proxies and libraries drop them.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from ppcli.errors import Doubt, Rejected, SessionLost, Transient
from ppcli.model import FilePlan
from ppcli.target import Body
from ppcli.targets.creation import GONE, CreationApi, still_there
from ppcli.targets.upload_url import number, path_of, resolve
from ppcli.transport import Reply, Request
from ppcli.transport.refusals import refusal

INTEROP = "8"
_FAILURES = frozenset(range(400, 600)) - {401, 407}
_INTEGER = re.compile(r"[a-z*][a-z0-9_.*-]*=-?\d{1,15}")
_ASSEMBLY_RATE = 50e6
"""Bytes per second at which a server is trusted to process a file before it answers."""


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload on the server. `age` is how long it still lives, in seconds."""

    url: str
    offset: int
    complete: bool = False
    age: int | None = None


class Api(CreationApi):
    def options(self) -> Mapping[str, int]:
        """The Upload-Limit of the place; empty where it tells none."""
        reply = self._send("OPTIONS", self._path, expect=frozenset({400, 403, 404, 405, 406, 415, 501}))
        return limits(reply.headers.get("upload-limit", "")) if reply.status < 300 else {}

    def create(self, file: FilePlan) -> Upload:
        """A new upload, empty as yet."""
        headers = {
            "Upload-Complete": "?0",
            "Upload-Length": str(file.size),
            "Content-Type": mimetypes.guess_type(file.name, strict=False)[0] or "application/octet-stream",
            "Content-Disposition": f"inline; filename*=UTF-8''{quote(file.name.encode('utf-8', 'replace'), safe='')}",
        }
        reply = self._send("POST", self._path, headers)
        hint = f"Check that it takes resumable uploads there, of interop version {INTEROP}."
        return Upload(self._location(reply, hint), 0, age=_age(reply))

    def ask(self, url: str) -> Upload:
        """Where an upload is. Raises `SessionLost` where it is gone."""
        reply = self._send("HEAD", path_of(self.origin, url), expect=GONE)
        still_there(reply)
        offset = number(reply.headers, "upload-offset")
        if offset is None:
            raise Transient("the server's reply to HEAD has no Upload-Offset")
        return Upload(url, offset, _complete(reply), _age(reply))

    def append(self, url: str, offset: int, body: Body) -> int:
        """Send bytes from `offset` on; gives the offset after them. Raises `Transient` where the server is at another
        one."""
        reply = self._patch(url, offset, complete=False, expect=GONE | {409}, body=body)
        still_there(reply)
        if reply.status == 409:
            raise Transient("the server is at another offset")
        after = number(reply.headers, "upload-offset")
        if after is not None:
            return after
        if "upload-complete" not in reply.headers:  # it may be a proxy's
            return self.ask(url).offset
        return offset + body.size

    def finish(self, url: str, size: int) -> str:
        """Mark an upload of `size` bytes as complete; gives where the server says the file is, else the upload's URL.
        Raises `Doubt` where it may be complete, `Rejected` where the server has all of it and cannot use it."""
        reply = self._patch(url, size, complete=True, expect=_FAILURES, patience=60.0 + size / _ASSEMBLY_RATE)
        if reply.status < 300:
            if not _complete(reply) and not self._over(url):
                raise Doubt("the server does not say that the upload is complete")
            location = reply.headers.get("location", "")
            return resolve(self.origin, path_of(self.origin, url), location) if location else url
        failure = refusal(self.origin, reply)
        if not _complete(reply):
            still_there(reply)
            if reply.status == 409 or isinstance(failure, Transient):
                raise Doubt(f"the server answers {reply.status} to the end of the upload")
        if isinstance(failure, Rejected):
            raise failure
        raise Rejected(
            f"{self.origin.netloc} has the whole file and could not process it ({reply.status}).",
            hint="Ask who runs the server; then send it with --fresh.",
            reason="processing",
        )

    def _over(self, url: str) -> bool:
        """After a success that does not tell and may be a proxy's: is it complete, or gone as what is over may be?"""
        try:
            return self.ask(url).complete
        except SessionLost:
            return True

    def cancel(self, url: str) -> None:
        """Repeatable; an upload that is gone is no error, nor is a server that cannot cancel."""
        self._send("DELETE", path_of(self.origin, url), expect=GONE | {405, 501})

    def _patch(
        self,
        url: str,
        offset: int,
        *,
        complete: bool,
        expect: frozenset[int],
        patience: float = 60.0,
        body: Body | None = None,
    ) -> Reply:
        headers = {
            "Content-Type": "application/partial-upload",
            "Upload-Offset": str(offset),
            "Upload-Complete": "?1" if complete else "?0",
        }
        return self._send("PATCH", path_of(self.origin, url), headers, expect=expect, patience=patience, body=body)

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
        named = {"Upload-Draft-Interop-Version": INTEROP, **(headers or {})}
        return self._transport.send(Request(method, path, named, expect=expect, patience=patience), body)


def limits(text: str) -> dict[str, int]:
    """Upload-Limit, a dictionary of integers (RFC 9651); parameters are ignored, and all of it where it is none."""
    members = [member.partition(";")[0].strip() for member in text.split(",")] if text.strip() else []
    if not all(_INTEGER.fullmatch(member) for member in members):
        return {}
    return {name: int(value) for name, _, value in (member.partition("=") for member in members)}


def _age(reply: Reply) -> int | None:
    return limits(reply.headers.get("upload-limit", "")).get("max-age")


def _complete(reply: Reply) -> bool:
    return reply.headers.get("upload-complete", "").partition(";")[0].strip() == "?1"
