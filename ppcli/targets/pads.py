"""`pads:` and `pads:///dir`: the embedded pad store as a target. A slot is a pad's number, an etag its counter."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, quote_from_bytes, unquote, unquote_to_bytes

from ppcli.errors import Damaged, Internal, NotFound, SessionLost, Temporary, Usage
from ppcli.model import Evidence, FilePlan, Incomplete, Limits, Notice, Part, Receipt, Remote, Session, Slot, Survey
from ppcli.pads import identity, medium, proof, reading
from ppcli.pads.header import Kind, Stamp
from ppcli.pads.index import Version
from ppcli.pads.opening import Directory, Site
from ppcli.pads.proof import Proof
from ppcli.pads.store import Claim, PadStore
from ppcli.target import Body
from ppcli.targets import Settings, slots


def connect(url: str, settings: Settings) -> PadTarget:
    """The store at a `pads:` URL; nothing is read or made yet. Raises `Usage` where it is no such URL."""
    place, mark, _ = url.partition("#")
    rest = place.partition(":")[2]
    if mark:
        raise Usage(f"{url!r} is a location, not a target.", hint="Name the file with --name.")
    if rest in ("", "//"):
        root = settings.data_dir / "pads"
        return PadTarget("pads:", Directory(root, settings.config_dir, mounted=False), settings.chunk_size)
    if not rest.startswith("///"):
        raise Usage(f"{url!r} is no pad store.", hint="Use pads: or pads:///absolute/directory.")
    path = os.path.normpath(os.fsdecode(unquote_to_bytes(rest[2:])))
    site = Directory(Path(path), settings.config_dir, mounted=True)
    return PadTarget(f"pads://{quote_from_bytes(os.fsencode(path))}", site, settings.chunk_size)


class PadTarget:
    """A `Target` and a `Store`. The store is made by the first `open`. `chunk_size` is the one asked for (bytes)."""

    def __init__(self, url: str, site: Site, chunk_size: int | None) -> None:
        self.url = url
        self._site = site
        self._chunk_size = chunk_size

    def limits(self, size: int) -> Limits:
        pad_size = identity.choose_pad_size(self._site.pad_size, self._chunk_size)
        return Limits(pad_size, pad_size, chunk_default=pad_size, adopts=True, open_leaves_trace=False)

    def find(self, name: str, digest: str | None = None) -> Remote | None:
        store = self._store()
        version = store.find(name) if store else None
        return self._remote(name, version) if version else None

    def digest(self, remote: Remote, *, fresh: bool = False) -> str | None:
        if not fresh:
            return remote.digest
        store, version = self._version(remote)
        return reading.digest(store, version)

    def open(self, file: FilePlan, old: Session | None, base: Remote | None) -> Session:
        store = self._site.look()
        if old:
            if store is None or store.identity.id != old.detail.get("store"):
                raise SessionLost("the pad store is another one now" if store else "the pad store is gone")
            return old
        if store is None:
            self._site.create(file.chunk_size)
            store = self._site.look()
            assert store is not None
        identity.choose_pad_size(store.identity.pad_size, file.chunk_size)
        store.release(_owner(file))
        return Session(secrets.token_hex(16), detail={"store": store.identity.id})

    def survey(self, session: Session, file: FilePlan, known: Sequence[Receipt]) -> Survey:
        store = self._of(session)
        heads = store.pads.heads([slots.number(receipt.slot) for receipt in known])
        claims = [
            Claim(number, proof.judge(heads.get(number), session.id, receipt))
            for number, receipt in ((slots.number(receipt.slot), receipt) for receipt in known)
        ]
        held = store.settle(_owner(file), file.name, claims)
        there = {
            receipt.index: replace(receipt, evidence=receipt.evidence and Evidence.CONTENT)
            for receipt, claim in zip(known, claims, strict=True)
            if claim.state is Proof.CONTENT and claim.number in held
        }
        return Survey(there, authoritative=True)

    def reserve(self, session: Session, file: FilePlan, parts: Sequence[Part]) -> Sequence[Slot]:
        return self._of(session).reserve(_owner(file), file.name, len(parts), file.chunks)

    def adopt(self, session: Session, file: FilePlan, part: Part, base: Slot, body: Body) -> Receipt | None:
        store, number = self._of(session), slots.number(base)
        if part.checksum is None or number in store.rotten:
            return None
        counter = store.adoptable(_owner(file), file.name, part.index, number)
        head = medium.head(store.pads, number) if counter is not None else None
        if head is None or head.counter != counter or not head.holds(part.index, part.size, part.checksum):
            return None
        return Receipt(part.index, part.size, number, part.checksum, str(counter), Evidence.CONTENT)

    def upload(self, session: Session, file: FilePlan, part: Part, slot: Slot, body: Body) -> Receipt:
        store, number = self._of(session), slots.number(slot)
        if not store.may_write(_owner(file), number):
            raise SessionLost(f"pad {number} is not this file's any more")
        store.rotten.discard(number)
        head = store.pads.write(number, Stamp(Kind.DATA, bytes.fromhex(session.id), part.index), body)
        return Receipt(part.index, head.length, number, head.digest.hex(), str(head.counter))

    def confirm(self, session: Session, file: FilePlan, receipt: Receipt) -> Receipt:
        number = slots.number(receipt.slot)
        head, checksum = self._of(session).pads.read_back(number, receipt.size)
        if head is None or not proof.matches(head, session.id, receipt):
            raise Damaged(f"pad {number} does not say that it holds chunk {receipt.index}")
        if checksum != receipt.checksum:
            raise Damaged(f"pad {number} holds other bytes than were sent")
        return replace(receipt, etag=str(head.counter), evidence=Evidence.CONTENT)

    def complete(self, session: Session, file: FilePlan, receipts: Sequence[Receipt], *, doubtful: bool) -> Remote:
        store = self._of(session)
        there = store.committed(_owner(file), file.name, session.id) if doubtful else None
        if there:
            return self._remote(file.name, there)
        pads = self._verified(store, file, receipts)
        draft = Version(
            version=0,
            owner=session.id,
            pads=pads,
            record=(),
            size=file.size,
            digest=file.digest,
            modified=file.modified,
            chunk_size=file.chunk_size,
        )
        return self._remote(file.name, store.commit(_owner(file), file.name, draft, immutable=file.immutable))

    def abort(self, session: Session | None, file: FilePlan, slots: Sequence[Slot] = ()) -> None:
        if store := self._store():
            store.release(_owner(file))

    def close(self) -> None:
        self._site.close()

    def list(self, prefix: str) -> Iterator[Remote]:
        store = self._store()
        return (self._remote(name, version) for name, version in (store.versions(prefix) if store else ()))

    def read(self, remote: Remote, offset: int) -> Iterator[memoryview]:
        return self._between(remote, offset, remote.size)

    def remove(self, names: Sequence[str]) -> Sequence[str]:
        store = self._store()
        return store.remove(names) if store else []

    def incomplete(self) -> Iterator[Incomplete]:
        store = self._store()
        if store:
            for owner, name, pads in store.owners():
                yield Incomplete(owner, name, owner.rpartition("/")[0], pads * store.identity.pad_size, None)

    def discard(self, upload: Incomplete) -> None:
        if store := self._store():
            store.release(upload.id)

    def locate(self, location: str) -> str | None:
        place, mark, name = location.partition("#")
        return unquote(name) if mark and place == self.url else None

    def notices(self) -> Sequence[Notice]:
        return self._site.notices()

    def recover(self) -> int:
        """Make the index again from the pads and the user key; gives the number of names found. Raises `NotFound` where
        there is no store."""
        store = self._store()
        if store is None:
            raise NotFound(f"There is no pad store at {self.url}.", hint="Check the target, or mount its disk.")
        return store.recover()

    def _store(self) -> PadStore | None:
        return self._site.opened or self._site.look()

    def _of(self, session: Session) -> PadStore:
        store = self._store()
        if store is None or store.identity.id != session.detail.get("store"):
            raise SessionLost("the pad store is another one now" if store else "the pad store is gone")
        return store

    def _between(self, remote: Remote, start: int, end: int) -> Iterator[memoryview]:
        store, version = self._version(remote)
        return reading.read(store, remote.name, version, start, end)

    def _version(self, remote: Remote) -> tuple[PadStore, Version]:
        store = self._store()
        version = store.find(remote.name) if store else None
        if store is None or version is None:
            raise NotFound(f"There is no {remote.name} in {self.url}.", hint="ppcli ls shows what is there.")
        if remote.version not in (None, str(version.version)):
            raise Temporary(
                f"{remote.name} changed while it was read.", hint="Run the same command again.", reason="changed"
            )
        return store, version

    @staticmethod
    def _verified(store: PadStore, file: FilePlan, receipts: Sequence[Receipt]) -> tuple[tuple[int, int], ...]:
        """The (number, counter) of every chunk, each pad still being what its receipt says."""
        ordered = sorted(receipts, key=lambda receipt: receipt.index)
        if [receipt.index for receipt in ordered] != list(range(file.chunks)):
            raise Internal(f"{file.name} is to be completed without all of its chunks.")
        heads = store.pads.heads([slots.number(receipt.slot) for receipt in ordered])
        for receipt in ordered:
            head = heads.get(slots.number(receipt.slot))
            if head is None or str(head.counter) != receipt.etag:
                raise SessionLost(f"pad {receipt.slot} was written by somebody else")
        return tuple((slots.number(receipt.slot), int(receipt.etag or 0)) for receipt in ordered)

    def _remote(self, name: str, version: Version) -> Remote:
        return Remote(
            name=name,
            location=f"{self.url}#{quote(name, safe='/')}",
            size=version.size,
            digest=version.digest,
            modified=version.modified,
            version=str(version.version),
            chunk_size=version.chunk_size,
            slots=tuple(number for number, _ in version.pads),
        )


def _owner(file: FilePlan) -> str:
    return f"{file.job}/{file.key}"
