"""The interface every protocol implements: `Target` puts files there, `Store` lists, reads and removes them.

A target makes one attempt per call and never loops; it says what happened by raising:

- `Transient` (and `Doubt`, `Damaged`): the pipeline tries the same call again, within `--retries`;
- `SessionLost`: the pipeline records a reset of the file's chunks and opens once more;
- `Recut` (by `open` alone): the file is planned anew by what `limits` says now, and opened again;
- a `PpcliError`: final. `Rejected`, `Integrity` and `SourceError` end that file, every other kind halts the job.

All methods may be called from several threads at once, for different chunks and files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

from ppcli.calls import Call
from ppcli.model import Cost, FilePlan, Incomplete, Limits, Notice, Part, Receipt, Remote, Session, Slot, Survey

PIECE = 1 << 20
"""The largest run of bytes that a worker holds in memory at once."""
RANGE = 4 << 20
"""The usual size of a range that is read beside others."""


class Body(Protocol):
    """The bytes of one chunk. Each iteration starts at its first byte and gives pieces of at most `PIECE` bytes;
    a piece is valid until the next one. May raise `SourceError` while it reads."""

    @property
    def size(self) -> int: ...

    def __iter__(self) -> Iterator[memoryview]: ...

    def quiet(self) -> Iterator[memoryview]:
        """The same bytes, only to be hashed: they do not count as sent."""
        ...

    @property
    def checksum(self) -> str:
        """XXH3-128 (hex) of the bytes given by the last iteration, which must have run to its end."""
        ...


class ChunkBytes(Body, Protocol):
    """A chunk that may be sent from its middle on."""

    def tail(self, start: int) -> Body:
        """The bytes from `start` (0 to `size`) to the end. Each iteration reads those before as well, so that
        `checksum`, here and there, is that of the whole chunk."""
        ...

    def digest(self, algorithm: str, start: int) -> bytes:
        """The digest of the bytes from `start` on, by an algorithm of `hashlib`; read for this alone."""
        ...


class Target(Protocol):
    """Where files go. See the module's docstring for what its methods raise."""

    @property
    def url(self) -> str:
        """The canonical URL of the place: what is stored in manifests and shown to users. Holds no secret."""
        ...

    def limits(self, size: int) -> Limits:
        """What holds for a file of `size` bytes. Raises `Usage` or `Rejected` where it cannot be taken at all."""
        ...

    def find(self, name: str, digest: str | None = None) -> Remote | None:
        """The finished object under `name`, if there is one. Where `limits.digest_first` holds and `digest`
        (`sha256:hex`) is given, only one with that content counts."""
        ...

    def digest(self, remote: Remote, *, fresh: bool = False) -> str | None:
        """`algorithm:hex` of the stored content (see `checksums`): what the target recorded or computes, or a (cached)
        reading of it. `fresh` reads it again. None where the target cannot say."""
        ...

    def open(self, file: FilePlan, old: Session | None, base: Remote | None) -> Session:
        """Create a session, or reattach to `old`. `base` is the version it will replace. Raises `SessionLost` when
        `old` is gone. Repeatable: what an earlier open of the same (job, key) left behind is taken over or swept."""
        ...

    def survey(self, session: Session, file: FilePlan, known: Sequence[Receipt]) -> Survey:
        """What the session holds. `known` are the chunks that the manifest believes to be there; slots of this file
        that are in neither are released."""
        ...

    def reserve(self, session: Session, file: FilePlan, parts: Sequence[Part]) -> Sequence[Slot]:
        """One slot for each part, in order. A part that has a slot already (after a reset) may get the same again."""
        ...

    def adopt(self, session: Session, file: FilePlan, part: Part, base: Slot, body: Body) -> Receipt | None:
        """Keep or copy an unchanged chunk on the target's side: `part.checksum` is that of the new bytes, which `body`
        gives to be hashed. `base` is a slot of the version that is there, or of what the survey found. None where it
        holds anything else."""
        ...

    def upload(self, session: Session, file: FilePlan, part: Part, slot: Slot, body: ChunkBytes) -> Receipt:
        """Send the bytes of one chunk into its slot, as far as they are not there. On return they are durable, as far
        as the target can tell."""
        ...

    def confirm(self, session: Session, file: FilePlan, receipt: Receipt) -> Receipt:
        """The receipt with its evidence. Raises `Damaged` when other bytes are found there."""
        ...

    def complete(self, session: Session, file: FilePlan, receipts: Sequence[Receipt], *, doubtful: bool) -> Remote:
        """Make the file visible under its name, in one step, and only then release what it replaces. `doubtful`: an
        earlier call may have succeeded, so ask first. With `file.immutable`, other content there is `Rejected`
        (reason `exists`)."""
        ...

    def abort(self, session: Session | None, file: FilePlan, slots: Sequence[Slot] = ()) -> None:
        """Free everything this file holds on the target, also what an `open` left whose reply was never recorded
        (`session` None). `slots` are those that are recorded. Repeatable; an unknown session is no error."""
        ...

    def notices(self) -> Sequence[Notice]:
        """What users should know of the target, found since it was connected; a warning each."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Store(Protocol):
    """A target whose content can be listed, read and removed."""

    def list(self, prefix: str) -> Iterator[Remote]:
        """Finished objects whose name starts with `prefix`, sorted by name."""
        ...

    def read(self, remote: Remote, offset: int) -> Iterator[memoryview]:
        """The bytes from `offset` to the end, in pieces of at most `PIECE`; a piece is valid until the next. Raises
        `Integrity` where what is stored is not what was confirmed."""
        ...

    def remove(self, names: Sequence[str]) -> Sequence[str]:
        """Remove these names; gives back those that were there."""
        ...

    def incomplete(self) -> Iterator[Incomplete]:
        """Uploads that were begun and never completed, whoever began them."""
        ...

    def discard(self, upload: Incomplete) -> None:
        """Free what an incomplete upload holds."""
        ...

    def locate(self, location: str) -> str | None:
        """The name that a location of this target stands for; None where it is not one."""
        ...


@runtime_checkable
class Ranged(Protocol):
    """A `Store` across a network, from which several ranges of one object come faster than one after the other."""

    def range_size(self, remote: Remote) -> int | None:
        """How many bytes to ask for at once, from a multiple of it on; each of several ranges is held in memory. None
        where the object is better read by `read`."""
        ...

    def read_range(self, remote: Remote, offset: int, size: int) -> Iterator[memoryview]:
        """As `Store.read`, but only `size` bytes, of exactly this version of the object."""
        ...


@runtime_checkable
class Linker(Protocol):
    """A target that knows content by its digest, whatever its name."""

    def link(self, file: FilePlan) -> Remote | None:
        """Make content that is there already visible under `file.name` too, by `file.digest`; None where it is not
        there. Repeatable."""
        ...


@runtime_checkable
class Split(Protocol):
    """A target across a network, which has several requests under way for one worker: those of sessions that are
    `whole`."""

    @property
    def splits(self) -> bool:
        """Whether calls have two halves on the way to this server."""
        ...

    def uploading(self, session: Session, file: FilePlan, part: Part, slot: Slot, body: ChunkBytes) -> Call[Receipt]:
        """What `upload` does, in two halves: before the first yield the chunk is sent, without a question asked."""
        ...


@runtime_checkable
class Learner(Protocol):
    """A target whose server says what it takes."""

    def learn(self) -> None:
        """Ask it, once: from then on `limits` tells. Before, `limits` tells what is usual."""
        ...


@runtime_checkable
class Overview(Protocol):
    """A target that can look at many names at once."""

    def foresee(self, names: Sequence[str]) -> None:
        """`find` is about to be asked for each of these, in any order and from any thread: learn what can be learned of
        all of them with fewer calls, if that is less work (it holds for one `find` of each), and forget what other
        processes may have changed since."""
        ...


@runtime_checkable
class Accounts(Protocol):
    """A target that gives tokens for an account's password."""

    def login(self, email: str, password: str) -> str:
        """A new token. Raises `Credentials` for a wrong password."""
        ...


@runtime_checkable
class Verifier(Protocol):
    """A target that can be asked whether a token is good."""

    def accepts(self, token: str) -> bool:
        """Whether the server takes this token."""
        ...


@runtime_checkable
class Costly(Protocol):
    """A target where reserving costs: the user agrees first."""

    def cost(self, files: Sequence[FilePlan], sums: Mapping[str, Sequence[str]]) -> Cost:
        """What these files will take, as far as is known. `sums` are the XXH3-128 (hex) of the chunks of those that
        replace a version, by name; without them every chunk counts as changed."""
        ...
