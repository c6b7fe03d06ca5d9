"""A small job on a peer, and what has to be true of it whatever happened to the process or the machine.

job.run(...)      put it, or go on with it, under trace
job.look()        `status` does not lie; what was told is known; no more was on its way than allowed
job.finish()      one more run, and everything is there once, nothing is left lying about
"""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from cli_kit import Cli
from harness import Place
from peers import Networked, Padded, Peer, Upstream
from sweeps.kit import records, traced
from sweeps.kit.calls import Call
from sweeps.kit.orders import Fail, Kill, When
from sweeps.kit.records import Recorded, Where
from sweeps.kit.traced import Traced

from ppcli.target import Store, Target

CHUNK = 32 << 10
BIG, SMALL = 6 * CHUNK + 5, 700
JOBS = 3
_PUT = ("--chunk-size", str(CHUNK), "--jobs", str(JOBS), "--json")
_HEADS = CHUNK // 2
"""Heads of requests and of pads, all of a run together: less than this."""

_WALK = 128 << 10
"""As much again where a server notices that a data dir went back, as each trial's does: all pads are looked for."""

_INDEX, _JOURNAL = r"(pads|pads-http/[0-9a-f]{32})/index\.jsonl?", r"jobs/[0-9a-f]{10}/journal\.jsonl"
_SET_ASIDE = re.compile(rf"data/({_INDEX}|{_JOURNAL})\.corrupt-\d+")
"""What a write that was torn may make of them."""
_NEVER = re.compile(r"\.tmp$|\.corrupt-|(^|/)\.new-")
_IDENTITY = re.compile(r"(?<=/)[0-9a-f]{2,}(?=/|$)")


class Site:
    """A peer, with one file on it that every job must leave alone, and its client's directories as they are then."""

    def __init__(self, peer: Peer, root: Path) -> None:
        """`lists`: the target can be asked which names it has. `usual` are the files that a client has when all is
        done, with "ID" for what is another each time; the first job that ends tells."""
        self.peer, self.root = peer, root
        self.usual: set[str] = set()
        self.notices_old_data = isinstance(peer, Padded)
        self.may_start_over = isinstance(peer, Upstream)
        """Where the last chunk of a file was cut, or a file in one request, all of it goes and is told again; what is
        there is known by the client's memory alone."""
        self.cli = Cli(root, peer.url)
        self.cli.env["PPCLI_YES"] = "1"
        if token := getattr(peer, "token", None):
            self.cli.env["PPCLI_TOKEN"] = token
        self.kept = self.cli.source("kept", CHUNK + 1)
        with closing(self.target()) as target:
            self.lists = isinstance(target, Store)
        assert self.cli("put", "kept", "--name", f"{root.name}-kept", "--chunk-size", str(CHUNK)).code == 0
        self._saved = root / "saved"
        for path in self.roots:
            if path.exists():
                shutil.copytree(path, self._saved / path.name)

    @property
    def roots(self) -> list[Path]:
        """The directories in which a client keeps or stores something."""
        return [self.cli.data, self.cli.config, self.root / "store"]

    def fresh(self, *, used: bool) -> None:
        """As it was after `kept` was put, or as before anything was. What a server has stays there."""
        for path in self.roots:
            shutil.rmtree(path, ignore_errors=True)
            if used and (self._saved / path.name).exists():
                shutil.copytree(self._saved / path.name, path)
        (self.root / "store").mkdir(exist_ok=True)

    def target(self) -> Target:
        return Place(self.root, self.peer.url, CHUNK, self.peer.http).connect()

    def unfinished(self) -> int:
        with closing(self.target()) as target:
            return self.peer.unfinished(target)

    def content(self, name: str) -> bytes | None:
        with closing(self.target()) as target:
            return self.peer.content(target, name)


class Job:
    """Two files, one of several chunks and one of a single one, under names that nobody else has."""

    def __init__(self, site: Site, rng: random.Random, *, first: bool = False) -> None:
        """`first`: it is the first that this user ever puts, so that all directories have yet to be made."""
        self.site, self.cli, self._rng = site, site.cli, rng
        site.fresh(used=not first)
        self._before = set() if first else {path.name for path in self.cli.data.glob("jobs/[!.]*")}
        self._kept = not first or isinstance(site.peer, Networked)
        self.below = f"{rng.randbytes(6).hex()}/"
        self.files = {"big": rng.randbytes(BIG), "small": rng.randbytes(SMALL)}
        for name, data in self.files.items():
            (self.cli.root / name).write_bytes(data)
        self.total = sum(len(data) for data in self.files.values())
        self.told: set[Where] = set()
        self.torn = False
        self._completed: set[str] = set()
        self._job: str | None = None
        self._orphans = site.unfinished()

    @property
    def words(self) -> tuple[str, ...]:
        return ("put", *self.files, "--name", self.below, *_PUT)

    def clean(self) -> list[Call]:
        """The calls of a run that nobody disturbs; of a first one, those until the store is there."""
        calls = self.run(self.words).calls
        self.finish()
        made = [at for at, call in enumerate(calls, 1) if call.path.endswith("/.store.json.tmp")]
        return calls[: made[-1] + 1] if made else calls

    def run(self, words: Sequence[str], what: Kill | Fail | None = None) -> Traced:
        """Run it under trace, and remember what it told."""
        known = self._known()
        ran = traced.run(self.cli, *words, what=what)
        self._hear(ran.heard)
        if what is None or isinstance(what, Kill):
            assert ran.ran.code == (-9 if ran.struck else 0), ran.ran
        self._bounded(ran, known)
        self.torn = self.torn or (isinstance(what, Kill) and what.when is When.HALF)
        return ran

    def again(self) -> tuple[str, ...]:
        """The words to go on: `put` again, or `resume` where the job is known. Where a target cannot be asked for
        names, only the job knows what is there: it is never put twice, and perhaps nothing is to be done ("status")."""
        recorded = self._recorded()
        jobs = [job for job, known in recorded.items() if known.state != "completed"]
        if not self.site.lists and not jobs and recorded:
            return ("status", "--json")
        begun = any(recorded[job].finished for job in jobs) and not self.site.lists
        if jobs and (begun or (self._job is not None and self._rng.random() < 0.5)):
            return ("resume", *jobs, "--json")
        return self.words

    def look(self) -> None:
        """Between two runs."""
        recorded = self._recorded()
        shown = {job["job"]: job for job in self.cli.json("status", "--all").of("job") if job["job"] in recorded}
        assert shown.keys() == recorded.keys(), "status does not show every job"
        assert self._job is None or self._job in recorded, "a job that was told of is lost"
        for job, known in recorded.items():
            said = shown[job]
            assert said["chunks"]["confirmed"] == len(known.confirmed), (said, known)
            assert said["bytes"]["confirmed"] == known.bytes, (said, known)
            state = "paused" if known.state in ("initiated", "uploading") else known.state
            assert said["state"] == state, (said, known)
        lost = self.told - self._known().keys()
        if self.site.may_start_over:
            again = {name for known in recorded.values() for name in known.started_over}
            lost = {where for where in lost if where[0] not in again}
        assert not lost, f"told as confirmed and forgotten: {lost}"
        for name, data in self.files.items():
            content = self.site.content(self.below + name)
            assert content == data or (content is None and self.below + name not in self._completed), f"half of {name}"
        self._orphans += sum(len(known.opening) for known in recorded.values())

    def finish(self) -> None:
        """Once more, without faults; then nothing is missing and nothing too much."""
        known, ran = self._known(), self.cli.json(*self.again())
        assert (ran.code, ran.result["files_failed"]) == (0, 0), ran.result
        missing = self.total - (0 if self.site.may_start_over else sum(known.values()))
        assert ran.result["bytes_sent"] <= missing, f"sent again: {ran.result}, {known}"
        self._hear(ran.events)
        for name, data in self.files.items():
            assert self.site.content(self.below + name) == data, f"{name} is not what was put"
        if self._kept:
            assert self.site.content(f"{self.site.root.name}-kept") == self.site.kept, "another file was harmed"
        assert (left := self.cli.json("status").of("job")) == [], left
        if self.site.lists and not self.site.may_start_over:
            ran = self.cli.json(*self.words)
            assert (ran.result["files_unchanged"], ran.result["bytes_sent"]) == (2, 0), ran.result
        for draft in self.cli.data.glob("jobs/.new-*"):
            if not (draft / "lock").exists():  # it might be about to get one; an hour later that is ruled out
                os.utime(draft, (0, 0))
        assert self.cli("put", "-", "--name", f"{self.below}next").code == 0
        self._tidy()

    def _tidy(self) -> None:
        here = [path.relative_to(self.site.root).as_posix() for root in self.site.roots[:2] for path in root.rglob("*")]
        files = [name for name in here if (self.site.root / name).is_file()]
        self.site.usual = self.site.usual or {_shape(name) for name in files}
        stray = [name for name in here if _NEVER.search(name)]
        stray += [name for name in files if _shape(name) not in self.site.usual]
        if self.torn or self.site.notices_old_data:  # what is damaged is set aside, never removed
            stray = [name for name in stray if not _SET_ASIDE.fullmatch(name)]
        assert not stray, f"left behind: {stray}"
        there = {f"{self.site.root.name}-kept", *(self.below + name for name in (*self.files, "next"))}
        store = self.site.root / "store"
        stray = [str(path) for path in store.rglob("*") if path.is_file() and str(path.relative_to(store)) not in there]
        assert not stray, f"left in the store: {stray}"
        assert self.site.unfinished() <= self._orphans, "an upload that nobody finishes was left on the target"

    def _hear(self, events: Sequence[dict[str, object]]) -> None:
        for event in events:
            name = str(event.get("name"))
            if event["event"] == "job_started":
                self._job = str(event["job"])
            elif event["event"] == "chunk_confirmed":
                where = (name, int(str(event["chunk"])))
                assert where not in self.told or self.site.may_start_over, f"told twice: {where}"
                self.told.add(where)
            elif event["event"] == "file_completed":
                self._completed.add(name)

    def _bounded(self, ran: Traced, known: dict[Where, int]) -> None:
        """What went out is confirmed now, but for what was on its way."""
        places = [str(self.site.root / "store"), str(self.cli.data / "pads" / "pads")]
        out = sum(max(0, call.result or 0) for call in ran.calls if _sends(call, places))
        confirmed = sum(size for where, size in self._known().items() if where not in known)
        besides = _HEADS + (_WALK if self.site.notices_old_data else 0)
        if self.site.may_start_over:  # what was there before goes again
            besides += sum(known.values())
        assert out - confirmed <= JOBS * CHUNK + besides, f"{out} bytes went out, {confirmed} are confirmed"

    def _recorded(self) -> dict[str, Recorded]:
        """The jobs of this test; that of the file that was there before is another's."""
        return {job: known for job, known in records.read(self.cli.data).items() if job not in self._before}

    def _known(self) -> dict[Where, int]:
        return {where: size for known in self._recorded().values() for where, size in known.confirmed.items()}


def _shape(name: str) -> str:
    return _IDENTITY.sub("ID", name).removesuffix("-wal").removesuffix("-shm")


def _sends(call: Call, places: Sequence[str]) -> bool:
    return call.kind == "send" or (call.kind == "write" and call.below(places))
