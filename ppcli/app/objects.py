"""`ls`, `rm` and `pads recover`: what is on a target, without a job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from shlex import quote
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

from ppcli.app.workplace import Workplace
from ppcli.errors import Corrupt, Credentials, Doubt, NotFound, Rejected, StepFailure, Temporary
from ppcli.events import IncompleteListed, ObjectListed, Result
from ppcli.manifest import timestamp
from ppcli.model import Incomplete, Remote
from ppcli.requests import ListRequest, RemoveRequest
from ppcli.retry import Step
from ppcli.target import Store, Target
from ppcli.targets import SCHEMES

_COUNTED = 100
"""Files of a directory that are counted to tell of it."""


@runtime_checkable
class Recoverable(Protocol):
    """A target that can rebuild its index from the user key alone."""

    def recover(self) -> int: ...


def store_of(place: Workplace, to: str | None, name: str) -> tuple[Target, Store, str]:
    """The target and the name that `name` means: a location names both, anything else is a name at the chosen target.
    Raises `Rejected` (`unsupported`) for a target that cannot be listed or read."""
    target = place.target(_mean(place, to, [name])[0])
    if not isinstance(target, Store):
        raise _unsupported(target)
    if _split(name)[1]:
        name = target.locate(name) or name
    return target, target, name


def _mean(place: Workplace, to: str | None, names: Sequence[str]) -> list[str]:
    """The URLs of the targets of these names. All are meant at once: a token that may be for any of them is sent to
    none."""
    within = [_split(name)[0] if to is None else None for name in names]
    urls = [place.config.place(to).url if url is None else url for url in within]
    place.mean(*urls)
    return urls


def _split(name: str) -> tuple[str | None, bool]:
    """The target URL inside a location, and whether `name` looks like one: a name may begin with `pads:` as well."""
    scheme, _, rest = name.partition(":")
    if scheme not in SCHEMES or not rest.startswith(("//", "#")):
        return None, False
    if "#" in name:
        return name.partition("#")[0], True
    return urlsplit(name)._replace(path=urlsplit(name).path.rpartition("/")[0] or "/").geturl(), True


def _unsupported(target: Target) -> Rejected:
    return Rejected(
        f"{target.url} can be written to only.", hint="Use the server's own tools for this.", reason="unsupported"
    )


def not_found(name: str, target: Target) -> NotFound:
    return NotFound(
        f"There is no {name!r} at {target.url}.",
        hint=f"'ppcli ls --to {quote(target.url)}' lists what is there.",
        reason="name",
    )


def no_file(place: Workplace, target: Target, store: Store, name: str, doing: str) -> NotFound:
    """As `not_found`, where a directory may be meant: `doing` is what -r would do to it ("fetch")."""
    below, prefix = 0, f"{name.rstrip('/')}/" if name else ""
    with suppress(Rejected, Credentials, Temporary):  # who may read a name may not always list
        below = sum(1 for _ in islice(listed(place, store, prefix), _COUNTED + 1))
    if not below:
        return not_found(name, target)
    files = f"more than {_COUNTED} files" if below > _COUNTED else "1 file" if below == 1 else f"{below} files"
    return NotFound(
        f"{name!r} is a directory with {files} at {target.url}.",
        hint=f"Add `-r` to {doing} what is in it.",
        reason="name",
    )


def listed(place: Workplace, store: Store, prefix: str) -> Iterator[Remote]:
    """What `store.list` gives, under the retry policy: a listing that broke off starts again, and is told from where it
    was."""
    names: Iterator[Remote] | None = None
    last: str | None = None

    def following() -> Remote | None:
        nonlocal names
        if names is None:
            after = last
            names = (remote for remote in store.list(prefix) if after is None or remote.name > after)
        try:
            return next(names, None)
        except StepFailure:
            names = None
            raise

    while (remote := place.call(Step.LIST, prefix or "the names there", following)) is not None:
        last = remote.name
        yield remote


def list_objects(place: Workplace, request: ListRequest) -> Result:
    """Tell an `ObjectListed` for every name that starts with the prefix, or an `IncompleteListed` for every upload that
    was begun and not completed."""
    target, store, prefix = store_of(place, request.to, request.prefix)
    if request.incomplete:
        for upload in incomplete(place, target.url, store):
            since = None if upload.modified is None else timestamp(upload.modified)
            place.listener.hear(IncompleteListed(upload.id, upload.name, upload.job, upload.size, since))
        return place.done(target=target.url)
    for remote in listed(place, store, prefix):
        since = None if remote.modified is None else timestamp(remote.modified)
        place.listener.hear(ObjectListed(remote.name, remote.size, remote.digest, since))
    return place.done(target=target.url)


def incomplete(place: Workplace, url: str, store: Store) -> Sequence[Incomplete]:
    """Uploads that were begun on a target and never completed. Where it cannot tell whose one is, the jobs of this data
    dir do."""
    found: list[Incomplete] = place.call(Step.LIST, url, lambda: list(store.incomplete()))
    if all(upload.job is not None for upload in found):
        return found
    owners = _owners(place, url)
    return [upload if upload.job else replace(upload, job=owners.get(upload.id)) for upload in found]


def _owners(place: Workplace, url: str) -> dict[str, str]:
    """The job of each session that unfinished jobs have on a target."""
    owners: dict[str, str] = {}
    for job in place.jobs.ids():
        with suppress(Corrupt):
            seen = place.jobs.summary(job)
            if seen.target == url and not seen.state.finished:
                files = place.jobs.peek(job).files
                owners |= {file.session.id: job for file in files if file.session is not None}
    return owners


def remove(place: Workplace, request: RemoveRequest) -> Result:
    """Remove names; with `recursive` a name stands for all below it as well. What is not there is `NotFound`, after all
    others are gone."""
    missing, removed, target = None, 0, None
    _mean(place, request.to, request.names)
    for given in request.names:
        target, store, name = store_of(place, request.to, given)
        names = [name]
        if request.recursive:
            names += [remote.name for remote in listed(place, store, name.rstrip("/") + "/")]
        gone = _remove(place, store, name, names)
        removed += len(gone)
        if not gone and not missing:
            look = not request.recursive
            missing = no_file(place, target, store, name, "remove") if look else not_found(name, target)
    url = target.url if target else None
    return place.done(error=missing, target=url, files=removed)


def _remove(place: Workplace, store: Store, name: str, names: Sequence[str]) -> Sequence[str]:
    """Where the reply to a removal was lost and nothing is there when it is asked again, that removal did it."""
    doubtful = False

    def attempt() -> Sequence[str]:
        nonlocal doubtful
        try:
            gone = store.remove(names)
        except Doubt:
            doubtful = True
            raise
        return gone or ([name] if doubtful else [])

    return place.call(Step.REMOVE, name, attempt)


def recover(place: Workplace, to: str | None) -> Result:
    """Rebuild a pad store's index from the user key alone."""
    target = place.target(place.choose(to))
    if not isinstance(target, Recoverable):
        raise Rejected(
            f"{target.url} has no pads to recover.", hint="Name a pads: or pads+https:// target.", reason="unsupported"
        )
    found = place.call(Step.RECOVER, "the index", target.recover)
    return place.done(target=target.url, files=found)
