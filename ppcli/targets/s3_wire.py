"""Requests to one bucket: where it is, signed, and what replies teach: the bucket's region, the server's clock, that
the credentials have expired. Each is learned at most once per request, which then goes out again, to the same family of
hosts: an endpoint's own host, or those of AWS."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from urllib.parse import urlsplit

from ppcli.calls import Call, outcome
from ppcli.target import Body
from ppcli.targets import s3_errors
from ppcli.targets.s3_credentials import Identity
from ppcli.targets.s3_errors import Fault
from ppcli.targets.s3_signing import UNSIGNED, Key, encoded, query_of, signed
from ppcli.targets.s3_times import when
from ppcli.targets.s3_url import Wanted
from ppcli.transport import Reply, Request, Transport
from ppcli.transport.messages import PATIENCE
from ppcli.transport.transport import Stream

_ANY = frozenset(range(300, 600))


class Wire:
    """Any thread may ask."""

    def __init__(self, wanted: Wanted, identity: Identity, http: Callable[[str], Transport]) -> None:
        self._wanted = wanted
        self._identity = identity
        self._endpoint = wanted.endpoint
        self._http = http
        self._region = wanted.region
        self._skew = 0.0
        self._lock = threading.Lock()
        self._address: tuple[Transport, str] | None = None

    @property
    def now(self) -> float:
        """By the server's clock, as far as it is known."""
        return time.time() + self._skew

    @property
    def region(self) -> str:
        if self._region is None:
            self._region = self._identity.region
        return self._region

    @property
    def host(self) -> str:
        return self._place()[0].origin.netloc

    @property
    def splits(self) -> bool:
        return self._place()[0].splits

    @property
    def bucket(self) -> str:
        return self._wanted.bucket

    def stream(self, key: str, headers: Mapping[str, str]) -> AbstractContextManager[Stream]:
        """The content of an object, whatever the status."""
        transport, request, _ = self._request("GET", key, {}, headers, b"", None, PATIENCE)
        return transport.stream(request)

    def send(
        self,
        method: str,
        key: str | None,
        query: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
    ) -> Reply:
        got = self.ask(method, key, query, headers, content)
        if isinstance(got, Fault):
            raise got.error()
        return got

    def ask(
        self,
        method: str,
        key: str | None,
        query: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        *,
        body: Body | None = None,
        patience: float = PATIENCE,
    ) -> Reply | Fault:
        """The reply, or why there is none, after everything that could be learned from it."""
        return outcome(self.asking(method, key, query, headers, content, body, patience))

    def asking(
        self,
        method: str,
        key: str | None,
        query: Mapping[str, str],
        headers: Mapping[str, str] | None,
        content: bytes = b"",
        body: Body | None = None,
        patience: float = PATIENCE,
    ) -> Call[Reply | Fault]:
        """What `ask` does, in two halves."""
        learned: set[str] = set()
        while True:
            transport, request, used = self._request(method, key, query, headers or {}, content, body, patience)
            reply = yield from transport.sending(request, body)
            if reply.status < 300:
                return reply
            fault = Fault.of(reply, transport.origin.netloc)
            lesson = self._lesson(fault, used, learned)
            if lesson is None:
                return fault
            learned.add(lesson)

    def _lesson(self, fault: Fault, used: Key, learned: set[str]) -> str | None:
        """What the same request needs to succeed; None where there is nothing new."""
        if (
            fault.region
            and fault.region != self.region
            and "region" not in learned
            and (fault.elsewhere or fault.status in (400, 403))
        ):
            with self._lock:
                self._region, self._address = fault.region, None
            return "region"
        if fault.code in s3_errors.CLOCK and "clock" not in learned and (date := fault.headers.get("date")):
            self._skew = (when(date) or time.time()) - time.time()
            return "clock"
        if fault.code in s3_errors.EXPIRED and "key" not in learned and self._identity.renew(used):
            return "key"
        return None

    def _request(
        self,
        method: str,
        key: str | None,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        content: bytes,
        body: Body | None,
        patience: float,
    ) -> tuple[Transport, Request, Key]:
        transport, base = self._place()
        path = f"{base}/{encoded(key, path=True)}" if key is not None else base or "/"
        asked, used = query_of(query), self._identity.key()
        if self._wanted.requester_pays:
            headers = {**headers, "x-amz-request-payer": "requester"}
        sent = signed(
            used,
            self.region,
            method,
            transport.origin.netloc,
            path,
            asked,
            headers,
            headers.get("x-amz-content-sha256") or self._payload(content, body),
            self.now,
        )
        whole = f"{path}?{asked}" if asked else path
        return transport, Request(method, whole, sent, content, _ANY, patience), used

    def _payload(self, content: bytes, body: Body | None) -> str:
        """What the signature says of the body. That of a chunk has a checksum of its own in a signed header."""
        if body is None:
            return hashlib.sha256(content).hexdigest()
        if not self._wanted.sign_payload:
            return UNSIGNED
        digest = hashlib.sha256()
        for piece in body.quiet():
            digest.update(piece)
        return digest.hexdigest()

    def _place(self) -> tuple[Transport, str]:
        """The transport to where the bucket is, and the path that its keys are below."""
        if (place := self._address) is None:
            place = self._located()
            with self._lock:
                self._address = place
        return place

    def _located(self) -> tuple[Transport, str]:
        bucket, path_style = self._wanted.bucket, self._wanted.path_style
        if self._endpoint is not None:
            parts = urlsplit(self._endpoint)
            if path_style is not False:
                return self._http(f"{parts.scheme}://{parts.netloc}"), f"{parts.path.rstrip('/')}/{bucket}"
            return self._http(f"{parts.scheme}://{bucket}.{parts.netloc}"), parts.path.rstrip("/")
        host = f"s3.{self.region}.amazonaws.com" + (".cn" if self.region.startswith("cn-") else "")
        if path_style or (path_style is None and ("." in bucket or bucket != bucket.lower())):
            return self._http(f"https://{host}"), f"/{bucket}"
        return self._http(f"https://{bucket}.{host}"), ""
