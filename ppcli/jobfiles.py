"""The files of one job's directory: reading and writing them, without deciding anything. See `jobs`."""

from __future__ import annotations

import os
from pathlib import Path

from ppcli import disk, folding, journal, manifest, steps, summary
from ppcli.errors import Corrupt, local_error
from ppcli.garbage import without_gc
from ppcli.manifest import Manifest

MANIFEST, JOURNAL, SUMMARY, LOCK, SPOOL, LOG = "manifest.json", "journal.jsonl", "summary.json", "lock", "spool", "log"


def write(directory: Path, plan: Manifest) -> None:
    """Write the summary, then the manifest, durably. OSErrors are plain."""
    disk.write_atomic(directory / SUMMARY, [summary.to_json(summary.summarize(plan))])
    disk.write_atomic(directory / MANIFEST, manifest.to_json(plan))


def looks_whole(directory: Path) -> bool:
    """Does the manifest begin and end as one? A quick look, for those who need no more than the summary."""
    try:
        with (directory / MANIFEST).open("rb") as file:
            head = file.read(len(manifest.BEGINNING))
            file.seek(-len(manifest.END), os.SEEK_END)
            return head == manifest.BEGINNING and file.read() == manifest.END
    except OSError:
        return False


def read(directory: Path) -> Manifest:
    """Raises `Corrupt` where there is no sound manifest, and `Local`."""
    try:
        data = (directory / MANIFEST).read_bytes()
    except FileNotFoundError:
        raise _corrupt(directory) from None
    except OSError as error:
        raise local_error(error, f"read {directory / MANIFEST}") from error
    with without_gc():
        try:
            plan = manifest.from_json(data)
            if plan.job != directory.name:
                raise ValueError("it is of another job")
        except ValueError as error:
            raise _corrupt(directory) from error
    return plan


def _corrupt(directory: Path) -> Corrupt:
    return Corrupt(
        f"The manifest of job {directory.name} cannot be read.",
        hint=f"Run the same put again to rebuild it; the damaged file stays in {directory}.",
        reason="manifest",
    )


def replay(plan: Manifest, reading: journal.Reading) -> bool:
    """Apply the records that are new to the manifest; False when one does not fit (what came before it is applied)."""
    with without_gc():
        for record in reading.records:
            seq = record["seq"]
            if seq <= plan.seq:
                continue
            if seq != plan.seq + 1:
                return False
            try:
                folding.apply(plan, seq, steps.from_record(record))
            except (ValueError, IndexError):
                return False
    return True
