"""Which files a PutPlace server has: by name, by digest; those of this host and account, without the removed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from ppcli.targets.putplace_api import Api, Entry
from ppcli.targets.putplace_removed import Removed

Known: TypeAlias = Callable[[str], Sequence[Entry]]
"""Asks the server for its entries with a digest."""
_REMEMBERED = 1000
"""Digests whose entries are remembered: a tree may have many copies of one content."""


class Entries:
    """The files of one hostname on one server. Any thread may ask."""

    def __init__(self, api: Api, hostname: str, removed: Removed, known: Known) -> None:
        self._api = api
        self._hostname = hostname
        self._removed = removed
        self._same_content: dict[str, list[Entry]] = {}
        self._me: str | None = None
        self._known = known
        self._listing = threading.Lock()
        self._newest: dict[str, str] = {}
        self._more: Iterator[Entry] | None = None

    def listed(self, prefix: str) -> list[Entry]:
        """The newest entry of every name that starts with `prefix`, by name."""
        newest: dict[str, Entry] = {}
        for entry in self._files(prefix):
            newest.setdefault(entry.name, entry)
        return [newest[name] for name in sorted(newest)]

    def newest(self, name: str) -> Entry | None:
        return next((entry for entry in self._files(name) if entry.name == name), None)

    def find(self, name: str, hostname: str, digest: str) -> Entry | None:
        """The newest entry of that name, where it has that content and the content is there: the server may know it by
        another entry than ours."""
        known = self._alive_with(digest)
        named = [entry for entry in known if (entry.name, entry.hostname) == (name, hostname)]
        ours = next((entry for entry in named if self._ours(entry)), None)
        return ours if ours and any(entry.content for entry in known) and self._is_newest(ours) else None

    def any_with_content(self, digest: str) -> Entry | None:
        """An entry whose content is there, whatever its name."""
        return next((entry for entry in self._alive_with(digest) if entry.content), None)

    def changed(self, digest: str | None = None) -> None:
        """What is known of this digest (None: of any), and which files are the newest, may have changed: ask again."""
        if digest is None:
            self._same_content.clear()
        else:
            self._same_content.pop(digest, None)
        with self._listing:
            self._newest, self._more = {}, None

    def placed(self, name: str, hostname: str, digest: str) -> None:
        """This content has this name now: we saw to it."""
        self._same_content.pop(digest, None)
        if hostname == self._hostname:
            with self._listing:
                self._newest[name] = digest

    def remove(self, names: Sequence[str]) -> Sequence[str]:
        """Give notice that every entry of these names is gone; gives the names that were there."""
        wanted = set(names)
        entries = [entry for entry in self._files("") if entry.name in wanted]
        if entries:
            self._api.deleted(entries)
            self._removed.add(entry.id for entry in entries if entry.deleted is None and entry.id is not None)
        return sorted({entry.name for entry in entries})

    def _files(self, prefix: str) -> Iterator[Entry]:
        """Files of this host, newest first."""
        for entry in self._api.files(self._hostname, prefix):
            if entry.hostname == self._hostname and entry.name.startswith(prefix) and self._alive(entry):
                yield entry

    def _is_newest(self, entry: Entry) -> bool:
        """A name may have had other content since. Where the server does not tell, its list does, which is read as far
        as it takes, once for all names."""
        if entry.newest is not None or entry.hostname != self._hostname:
            return entry.newest is not False
        with self._listing:
            try:
                while entry.name not in self._newest:
                    self._more = self._more or self._files("")
                    if (following := next(self._more, None)) is None:
                        return False
                    self._newest.setdefault(following.name, following.digest)
            except BaseException:  # what broke off does not go on
                self._newest, self._more = {}, None
                raise
            return self._newest[entry.name] == entry.digest

    def _alive_with(self, digest: str) -> list[Entry]:
        found = self._same_content.get(digest)
        if found is None:
            if len(self._same_content) >= _REMEMBERED:
                self._same_content.clear()
            found = self._same_content[digest] = list(self._known(digest))
        return [entry for entry in found if self._alive(entry)]

    def _alive(self, entry: Entry) -> bool:
        """A server that does not tell what is deleted is believed but for what we removed ourselves."""
        return not entry.deleted and (entry.deleted is not None or entry.id not in self._removed)

    def _ours(self, entry: Entry) -> bool:
        """putplace-server tells entries of all accounts; a name that another account has is not ours."""
        if entry.owner is not None and self._me is None:
            self._me = self._api.me()
        return entry.owner is None or entry.owner == self._me
