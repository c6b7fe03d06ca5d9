"""`pads+http(s)://host[:port]`: the pads behind a `ppcli serve`. Their index is in the data dir; everything is decided
as for pads in a directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from ppcli.errors import Usage
from ppcli.model import Cost, FilePlan, Limits, Remote
from ppcli.origin import Origin
from ppcli.pads import record
from ppcli.pads.identity import PAD_DEFAULT, PAD_MAX, PAD_MIN
from ppcli.pads.remote_site import RemoteSite
from ppcli.pads.store import PadStore
from ppcli.target import RANGE
from ppcli.targets import Settings, putplace_api
from ppcli.targets.pads import PadTarget
from ppcli.transport import Transport
from ppcli.transport.routes import leaves_the_machine

_WRITTEN = "Write it like pads+https://host[:port]."
_LARGEST_RANGE = 16 << 20
_UNKNOWN = Limits(PAD_MIN, PAD_MAX, chunk_default=PAD_DEFAULT, adopts=True, open_leaves_trace=False)


def connect(url: str, settings: Settings) -> HttpPadTarget:
    """Nothing is asked yet. Raises `Usage` where it is no such URL, and for plain http beyond this machine: secrets of
    pads would be heard there, whatever the configuration says about tokens."""
    try:
        origin = Origin.parse(url)
        parts = urlsplit(url)
    except ValueError as error:
        raise Usage(f"{url!r} cannot be used: {error}.", hint=_WRITTEN) from error
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        raise Usage(f"{url!r} is no place of pads.", hint=_WRITTEN, reason="target")
    if not origin.secure and leaves_the_machine(origin):
        raise Usage(
            f"The secrets of pads are not sent to {origin}: http:// is not encrypted.",
            hint=f"Use pads+https://{origin.host}, or a server on this computer.",
            reason="plain_http",
        )
    transport = settings.http(str(origin))
    site = RemoteSite(transport, settings.data_dir, settings.config_dir)
    return HttpPadTarget(f"pads+{origin}", site, settings.chunk_size, transport)


class HttpPadTarget(PadTarget):
    """A `Target`, a `Store`, `Ranged`, `Accounts`, and `Costly`."""

    _site: RemoteSite

    def __init__(self, url: str, site: RemoteSite, chunk_size: int | None, transport: Transport) -> None:
        super().__init__(url, site, chunk_size)
        self._transport = transport

    def limits(self, size: int) -> Limits:
        """What is known by now: the server is asked by `find` and `open`."""
        known = self._site.looked or self._chunk_size is not None
        return replace(super().limits(size) if known else _UNKNOWN, remote=True)

    def cost(self, files: Sequence[FilePlan], sums: Mapping[str, Sequence[str]]) -> Cost:
        store = self._store()
        pad_size = store.identity.pad_size if store else self._chunk_size or PAD_DEFAULT
        kept = sum(_unchanged(store, name, of_chunks) for name, of_chunks in sums.items()) if store else 0
        records = sum(record.expected_pads(file.name, file.chunks, pad_size) for file in files)
        wanted = sum(file.chunks for file in files) + records - kept
        spare = store.spare(wanted) if store else 0
        return Cost(new=wanted - spare, reused=spare, kept=kept, records=records, slot_size=pad_size)

    def range_size(self, remote: Remote) -> int | None:
        """Whole pads, since a pad is read as a whole to be checked; those that are too large come one by one."""
        unit = remote.chunk_size or RANGE
        return RANGE // unit * unit or (unit if unit <= _LARGEST_RANGE else None)

    def read_range(self, remote: Remote, offset: int, size: int) -> Iterator[memoryview]:
        return self._between(remote, offset, offset + size)

    def recover(self) -> int:
        self._site.require_key()
        store = self._store()
        return len(store.versions("")) if store and self._site.renewed else super().recover()

    def login(self, email: str, password: str) -> str:
        return putplace_api.Api(self._transport, "").login(email, password)


def _unchanged(store: PadStore, name: str, sums: Sequence[str]) -> int:
    """How many chunks with these sums the version that is there has already."""
    version = store.find(name)
    pads = version.pads[: len(sums)] if version else ()
    heads = store.pads.heads([number for number, _ in pads])
    found = [(heads.get(number), counter) for number, counter in pads]
    return sum(
        head is not None and head.counter == counter and head.holds(chunk, head.length, sums[chunk])
        for chunk, (head, counter) in enumerate(found)
    )
