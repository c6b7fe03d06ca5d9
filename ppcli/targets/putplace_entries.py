"""Which files a PutPlace server has: by name, by digest; those of this host and account, without the removed."""

from __future__ import annotations

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

    def listed(self, prefix: str) -> list[Entry]:
        """The newest entry of every name that starts with `prefix`, by name."""
        newest: dict[str, Entry] = {}
        for entry in self._files(prefix):
            newest.setdefault(entry.name, entry)
        return [newest[name] for name in sorted(newest)]

    def newest(self, name: str) -> Entry | None:
        return next((entry for entry in self._files(name) if entry.name == name), None)

    def replaced(self, entry: Entry) -> bool:
        """Has its name other content by now? Only a server that tells what is deleted lists files by name, too; of
        another one, nobody can fetch them by name either."""
        newest = self.newest(entry.name) if entry.deleted is not None else None
        return newest is not None and newest.digest != entry.digest

    def find(self, name: str, hostname: str, digest: str) -> Entry | None:
        """The entry of that name with that content, when the content is there: the server may know it by another entry
        than ours."""
        known = self._alive_with(digest)
        named = [entry for entry in known if (entry.name, entry.hostname) == (name, hostname)]
        ours = next((entry for entry in named if self._ours(entry)), None)
        return ours if any(entry.content for entry in known) else None

    def any_with_content(self, digest: str) -> Entry | None:
        """An entry whose content is there, whatever its name."""
        return next((entry for entry in self._alive_with(digest) if entry.content), None)

    def changed(self, digest: str) -> None:
        """What is known of this digest may have changed: ask again."""
        self._same_content.pop(digest, None)

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
