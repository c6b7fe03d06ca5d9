"""A disk that forgets: which states a power cut may leave of some directories, given what was done to them since.

What was synced is there. Of everything else any part may be: the bytes of a file up to its last fsync and, of later
writes, each sector or not, zeros where the file had grown; a change of a directory up to its last fsync and each later
one or not. A change of names is there whole or not at all, also a rename from one directory to another.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TypeAlias

from sweeps.kit.calls import Call

SECTOR = 512


class Cut(Enum):
    """What is left of what was not synced: nothing; all names and no bytes; all bytes and no names; any part of it."""

    NOTHING = "nothing"
    NAMES = "names"
    BYTES = "bytes"
    SOME = "some"


@dataclass(frozen=True, slots=True)
class Write:
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    size: int


@dataclass(slots=True, eq=False)
class File:
    """`before` and then `done`, of which the first `synced` are durable."""

    before: bytes = b""
    done: list[Write | Resize] = field(default_factory=list)
    synced: int = 0

    def now(self) -> bytes:
        return _applied(self.before, self.done)

    def after(self, cut: Cut, rng: random.Random) -> bytes:
        sure, rest = self.done[: self.synced], self.done[self.synced :]
        left = {Cut.BYTES: rest, Cut.SOME: [part for one in rest for part in _part(one, rng)]}
        return _applied(self.before, [*sure, *left.get(cut, ())])


@dataclass(slots=True, eq=False)
class Directory:
    entries: dict[str, Node] = field(default_factory=dict)


Node: TypeAlias = File | Directory


@dataclass(slots=True)
class Change:
    """Names that come to mean something else (None: nothing), in one step."""

    names: Sequence[tuple[Directory, str, Node | None]]
    synced: bool = False


class Memory:
    """Of the directories `roots`, which are or will be beside each other. Made before a run; `follow` what it did; then
    `forget`."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._base, self._roots = str(roots[0].parent), tuple(str(root) for root in roots)
        self._top = self._real()
        self._before = {id(each): dict(each.entries) for each in _directories(self._top)}
        self._changes: list[Change] = []

    def follow(self, calls: Sequence[Call]) -> None:
        for call in calls:
            if call.result is not None and call.result >= 0 and (call.below(self._roots) or call.path == self._base):
                self._take(call)

    def differs(self) -> list[str]:
        """Where the real directories are not what the calls should have made of them."""
        real, known = _flat(self._real()), _flat(self._top)
        wrong = [name for name in sorted(real.keys() | known.keys()) if real.get(name) != known.get(name)]
        return [name for name in wrong if not name.endswith("-shm")]  # sqlite writes that through a mapping

    def forget(self, cut: Cut, rng: random.Random) -> None:
        """Make the directories what a power cut may have left of them. A file that is still there keeps its inode."""
        where = {id(node): Path(self._base, name) for name, node in _walk(self._top)}
        left = self._after(cut, rng)
        held, at = Path(self._base, "held"), {}
        held.mkdir()
        for _, node in left:
            if isinstance(node, File) and id(node) in where and id(node) not in at:
                at[id(node)] = held / str(len(at))
                os.rename(where[id(node)], at[id(node)])
        for root in self._roots:
            shutil.rmtree(root, ignore_errors=True)
        for path, node in left:
            if isinstance(node, Directory):
                path.mkdir(mode=0o700)
            else:
                at[id(node)] = _put(path, node.after(cut, rng), at.get(id(node)))
        shutil.rmtree(held)

    def _real(self) -> Directory:
        return Directory({Path(root).name: _scan(Path(root)) for root in self._roots if os.path.isdir(root)})

    def _after(self, cut: Cut, rng: random.Random) -> list[tuple[Path, Node]]:
        """What is reachable; directories come before what is in them."""
        entries = {key: dict(names) for key, names in self._before.items()}
        for change in self._changes:
            kept = {Cut.NAMES: True, Cut.SOME: rng.random() < 0.5}.get(cut, False)
            if change.synced or kept:
                for directory, name, node in change.names:
                    _assign(entries.setdefault(id(directory), {}), name, node)
        found: list[tuple[Path, Node]] = []
        stack = [(Path(self._base), self._top)]
        while stack:
            path, directory = stack.pop()
            for name, node in entries.get(id(directory), {}).items():
                if not name.endswith("-shm"):
                    found.append((path / name, node))
                if isinstance(node, Directory):
                    stack.append((path / name, node))
        return found

    def _take(self, call: Call) -> None:
        match call.kind:
            case "open":
                self._open(call)
            case "mkdir":
                self._change((call.paths[0], Directory()))
            case "unlink" | "rmdir":
                self._change((call.paths[0], None))
            case "link":
                self._change((call.paths[1], self._node(call.paths[0])))
            case "rename":
                self._change((call.paths[0], None), (call.paths[1], self._node(call.paths[0])))
            case "write" | "ftruncate" | "truncate" if (file := self._node(call.path)) is not None:
                assert isinstance(file, File)
                assert call.result is not None
                done = Write(call.offset, call.data[: call.result]) if call.kind == "write" else Resize(call.size)
                file.done.append(done)
            case "fsync" if (node := self._node(call.path)) is not None:
                self._sync(node)
            case "chmod" | "fchmod" | "utimensat":
                pass
            case kind if not call.path.endswith(" (deleted)"):
                raise AssertionError(f"nobody told what {kind} does: {call}")

    def _open(self, call: Call) -> None:
        if call.made:
            self._change((call.path, File()))
        else:
            node = self._node(call.path)
            assert isinstance(node, File)
            node.done.append(Resize(0))

    def _change(self, *names: tuple[str, Node | None]) -> None:
        change = Change([(*self._parent(path), node) for path, node in names])
        self._changes.append(change)
        for directory, name, node in change.names:
            _assign(directory.entries, name, node)

    def _sync(self, node: Node) -> None:
        if isinstance(node, File):
            node.synced = len(node.done)
            return
        for change in self._changes:
            if any(directory is node for directory, _, _ in change.names):
                change.synced = True

    def _node(self, path: str) -> Node | None:
        if path == self._base:
            return self._top
        if path.endswith(" (deleted)"):
            return None
        parent, name = self._parent(path)
        return parent.entries.get(name)

    def _parent(self, path: str) -> tuple[Directory, str]:
        *above, name = Path(path).relative_to(self._base).parts
        node: Node = self._top
        for each in above:
            assert isinstance(node, Directory)
            node = node.entries[each]
        assert isinstance(node, Directory)
        return node, name


def _assign(entries: dict[str, Node], name: str, node: Node | None) -> None:
    if node is None:
        entries.pop(name, None)
    else:
        entries[name] = node


def _scan(path: Path) -> Directory:
    made = Directory()
    for entry in os.scandir(path):
        found = Path(entry.path)
        made.entries[entry.name] = _scan(found) if entry.is_dir() else File(found.read_bytes())
    return made


def _walk(directory: Directory, above: str = "") -> Iterator[tuple[str, Node]]:
    for name, node in directory.entries.items():
        yield above + name, node
        if isinstance(node, Directory):
            yield from _walk(node, f"{above}{name}/")


def _directories(root: Directory) -> Iterator[Directory]:
    yield root
    yield from (node for _, node in _walk(root) if isinstance(node, Directory))


def _flat(root: Directory) -> dict[str, bytes | None]:
    return {name: node.now() if isinstance(node, File) else None for name, node in _walk(root)}


def _applied(data: bytes, done: Sequence[Write | Resize]) -> bytes:
    if not done:
        return data
    content = bytearray(data)
    for one in done:
        end = one.size if isinstance(one, Resize) else one.offset + len(one.data)
        content.extend(bytes(max(0, end - len(content))))
        if isinstance(one, Resize):
            del content[end:]
        else:
            content[one.offset : end] = one.data
    return bytes(content)


def _part(one: Write | Resize, rng: random.Random) -> Iterator[Write | Resize]:
    """What is left of a write that was not synced: all, nothing, its space without its bytes, or some sectors."""
    fate = rng.choice(("all", "nothing", "space", "sectors"))
    if fate == "all" or (fate == "space" and isinstance(one, Resize)):
        yield one
    elif isinstance(one, Write) and fate != "nothing":
        if fate == "space":
            yield Write(one.offset + len(one.data), b"")
        end, at = one.offset + len(one.data), one.offset
        while at < end and fate == "sectors":
            following = min(end, at - at % SECTOR + SECTOR)
            if rng.random() < 0.5:
                yield Write(at, one.data[at - one.offset : following - one.offset])
            at = following


def _put(path: Path, content: bytes, held: Path | None) -> Path:
    """Give a file, which may be held aside, its content and a name; gives where it is."""
    if held is not None and held.exists() and held.parent.name == "held":
        if held.read_bytes() != content:
            held.write_bytes(content)
        held.rename(path)
    elif held is not None:
        os.link(held, path)
    else:
        path.touch(mode=0o600)
        path.write_bytes(content)
    return path
