"""Places where uploads are created and then have URLs of their own: what the requests of tus and of the IETF draft
share."""

from __future__ import annotations

from ppcli.errors import Loss, Rejected, SessionLost
from ppcli.origin import Origin
from ppcli.targets.upload_url import resolve
from ppcli.transport import Reply, Transport

GONE = frozenset({404, 410})


class CreationApi:
    """Any thread may call it. `path` is that of the creation URL."""

    def __init__(self, transport: Transport, path: str) -> None:
        self._transport = transport
        self._path = path

    @property
    def origin(self) -> Origin:
        return self._transport.origin

    def _location(self, reply: Reply, hint: str) -> str:
        """The URL of a new upload. Raises `Rejected`, with `hint`, where the reply names none."""
        location = reply.headers.get("location", "")
        if not location or reply.status >= 300:
            raise Rejected(f"{self.origin.netloc} did not say where the new upload is.", hint=hint, reason="protocol")
        return resolve(self.origin, self._path, location)


def still_there(reply: Reply) -> None:
    """Raises `SessionLost` where the upload is gone."""
    if reply.status == 410:
        raise SessionLost("the server answers that its time is up (410)", Loss.EXPIRED)
    if reply.status == 404:
        raise SessionLost("the server does not know it any more (404)")
