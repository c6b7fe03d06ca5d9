"""What a data dir says of its jobs, read from the documented format and nothing else: no code of ppcli's."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Where = tuple[str, int]
"""A chunk: its file's name, its index."""


@dataclass(slots=True)
class Recorded:
    """A job: `confirmed` chunks with their sizes, the names of `finished` files, and of `opening` ones, for which a
    session was about to be asked and none is known. `started_over` are files whose chunks were all reset, on record."""

    state: str
    confirmed: dict[Where, int] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    opening: set[str] = field(default_factory=set)
    started_over: set[str] = field(default_factory=set)

    @property
    def bytes(self) -> int:
        return sum(self.confirmed.values())


def read(data: Path) -> dict[str, Recorded]:
    """The jobs of a data dir, by id."""
    return {path.parent.name: _job(path.parent) for path in data.glob("jobs/[!.]*/manifest.json")}


def _job(folder: Path) -> Recorded:
    plan = json.loads((folder / "manifest.json").read_text())
    job = Recorded(plan["state"])
    for file in plan["files"]:
        _file(job, file)
    for line in _lines(folder / "journal.jsonl"):
        if line["seq"] > plan["seq"]:
            _fold(job, plan["files"], line)
    return job


def _file(job: Recorded, file: dict[str, Any]) -> None:
    confirmed = [chunk for chunk in file["chunks"] if chunk["state"] == "confirmed"]
    job.confirmed |= {(file["name"], chunk["index"]): chunk["size"] for chunk in confirmed}
    if file["state"] == "completed":
        job.finished.add(file["name"])
    elif file["state"] == "uploading" and file["session"] is None:
        job.opening.add(file["name"])


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The sound ones, up to the first that is not."""
    for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else ():
        body, mark, rest = line.rpartition(b',"crc":"')
        if not mark or rest != b'%08x"}' % zlib.crc32(body):
            return
        yield json.loads(line)


def _fold(job: Recorded, files: list[dict[str, Any]], line: dict[str, Any]) -> None:
    if line["step"] == "job_changed":
        job.state = line["state"]
        return
    if line["step"] == "opening":
        job.opening |= {files[position]["name"] for position in line["files"]}
        return
    for word in line["step"].split("+"):
        _fold_one(job, files[line["file"]], word, line)


def _fold_one(job: Recorded, file: dict[str, Any], word: str, line: dict[str, Any]) -> None:
    name: str = file["name"]
    match word:
        case "opened":
            job.opening.discard(name)
        case "confirmed":
            job.confirmed[name, line["chunk"]] = file["chunks"][line["chunk"]]["size"]
        case "completed":
            job.finished.add(name)
        case "reset":
            if line["chunks"] is None:
                job.started_over.add(name)
            chunks = range(len(file["chunks"])) if line["chunks"] is None else line["chunks"]
            for chunk in chunks:
                job.confirmed.pop((name, chunk), None)
        case "replanned":
            raise AssertionError("the source of this job does not change")
