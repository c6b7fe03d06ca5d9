"""The data dir's `jobs/`: creating, finding, opening and pruning jobs. See DESIGN, "On disk".

    jobs/<id>/manifest.json, journal.jsonl, summary.json, lock, log, spool
    jobs/.lock               held while a `put` decides which job is whose

A fold writes the summary, then the manifest, then empties the journal. So an empty journal means that summary and
manifest agree, and lines up to the manifest's seq are old news.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ppcli import compaction, disk, folding, jobfiles, journal, lock, manifest, steps, summary
from ppcli.errors import NotFound, Usage, local_error, local_io
from ppcli.jobfiles import JOURNAL, LOCK, MANIFEST, SPOOL, SUMMARY
from ppcli.journal import Journal
from ppcli.lock import Lock
from ppcli.manifest import Manifest
from ppcli.summary import Summary

_DRAFT = ".new-"
_LOCK_PATIENCE = 30.0
_UNLOCKED = 3600.0
"""Seconds after which a draft without a lock is one that a kill left, and not one that is about to get it."""


class Job:
    """A job that this process holds: its lock, its manifest and the writing end of its journal."""

    def __init__(self, directory: Path, guard: Lock, plan: Manifest, lines: Journal, notices: list[str]) -> None:
        self.directory = directory
        self.manifest = plan
        self.journal = lines
        self.notices = notices
        self._guard = guard

    @property
    def id(self) -> str:
        return self.manifest.job

    @property
    def spool(self) -> Path:
        return self.directory / SPOOL

    @property
    def manifest_size(self) -> int:
        """Bytes of the manifest as of the last fold."""
        with local_io("read the manifest"):
            return (self.directory / MANIFEST).stat().st_size

    def record(self, *facts: steps.Step) -> None:
        """Make steps durable and fold them in. Raises `ValueError`, with nothing written, for a state that the job
        cannot move to."""
        seq, state = self.manifest.seq, self.manifest.state
        for fact in facts:
            if isinstance(fact, steps.JobChanged):
                if fact.state is not state and not state.may_become(fact.state):
                    raise ValueError(f"{state} does not become {fact.state}")
                state = fact.state
        said = compaction.compact(facts)
        self.journal.append([journal.encode(steps.to_body(seq + n, step)) for n, step in enumerate(said, 1)])
        for n, step in enumerate(said, 1):
            folding.apply(self.manifest, seq + n, step)

    def fold(self) -> None:
        """Write the manifest as it stands and empty the journal."""
        self.manifest.updated = manifest.now()
        with local_io("write the manifest"):
            jobfiles.write(self.directory, self.manifest)
        self.journal.restart()

    def close(self) -> None:
        """Let go of the job; a finished one loses its spool."""
        if self.manifest.state.finished:
            with contextlib.suppress(OSError):
                self.spool.unlink()
        self.journal.close()
        self._guard.release()


class Draft:
    """A job in the making, invisible to others until `commit`. Its directory can hold a spool already."""

    def __init__(self, jobs: Path) -> None:
        self.id = secrets.token_hex(5)
        self._jobs = jobs
        self._directory = jobs / f"{_DRAFT}{self.id}"
        with local_io("create a job"):
            disk.make_dir(self._directory)
        self._guard = Lock(self._directory / LOCK)
        self._guard.acquire(f"Job {self.id}")

    @property
    def spool(self) -> Path:
        return self._directory / SPOOL

    def commit(self, plan: Manifest) -> Job:
        """Make the job real, in one rename."""
        with local_io("write the manifest"):
            jobfiles.write(self._directory, plan)
        Journal(self._directory / JOURNAL, 0).close()
        final = self._jobs / self.id
        with local_io("create a job"):
            self._directory.rename(final)
            disk.fsync_dir(self._jobs)
        return Job(final, self._guard, plan, Journal(final / JOURNAL, 0), [])

    def discard(self) -> None:
        """Forget it."""
        shutil.rmtree(self._directory, ignore_errors=True)
        self._guard.release()


class JobStore:
    """All jobs of one data dir."""

    def __init__(self, data_dir: Path) -> None:
        self.directory = data_dir / "jobs"
        self._summaries: dict[str, tuple[tuple[int, int, int], Summary]] = {}

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """Held while a process decides which job it will use, so that two never create the same one."""
        with local_io(f"create {self.directory}"):
            disk.make_dir(self.directory)
        guard = Lock(self.directory / ".lock")
        guard.acquire("The list of jobs", _LOCK_PATIENCE)
        try:
            yield
        finally:
            guard.release()

    def draft(self) -> Draft:
        with local_io(f"create {self.directory}"):
            disk.make_dir(self.directory)
        return Draft(self.directory)

    def ids(self) -> list[str]:
        """All job ids, in no order."""
        try:
            return [p.name for p in self.directory.iterdir() if not p.name.startswith(".") and p.is_dir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise local_error(error, f"read {self.directory}") from error

    def resolve(self, prefix: str) -> str:
        """The id that starts with `prefix`. Raises `NotFound`, or `Usage` when several do."""
        found = sorted(job for job in self.ids() if job.startswith(prefix)) if prefix else []
        if prefix in found:
            return prefix
        if not found:
            raise NotFound(f"There is no job {prefix!r}.", hint="'ppcli status --all' lists all jobs.", reason="job")
        if len(found) > 1:
            raise Usage(
                f"{prefix!r} could be any of {', '.join(found)}.", hint="Give more of the job's id.", reason="ambiguous"
            )
        return found[0]

    def holder(self, job: str) -> lock.Holder | None:
        """Who runs this job right now."""
        return lock.holder(self.directory / job / LOCK)

    def folded(self, job: str) -> bool:
        """Whether summary and manifest have all of it. A journal that is missing holds nothing either."""
        try:
            return (self.directory / job / JOURNAL).stat().st_size == 0
        except OSError:
            return True

    def summary(self, job: str) -> Summary:
        """The job as it stands on disk; never changes anything. Raises `Corrupt` where it cannot be read."""
        directory = self.directory / job
        try:
            if (directory / JOURNAL).stat().st_size == 0:
                seen = self._written(job)
                # nobody needs a finished job's manifest
                if seen.job == job and (seen.state.finished or jobfiles.looks_whole(directory)):
                    return seen
        except (OSError, ValueError):
            pass  # the manifest and the journal know it all
        return summary.summarize(self.peek(job))

    def peek(self, job: str) -> Manifest:
        """The manifest with its journal applied, without holding the job. Raises `Corrupt`."""
        directory = self.directory / job
        reading = journal.read(directory / JOURNAL)  # first: a fold in between leaves lines that are old news, no gap
        plan = jobfiles.read(directory)
        jobfiles.replay(plan, reading)
        if reading.records:
            with contextlib.suppress(OSError):
                plan.updated = manifest.timestamp((directory / JOURNAL).stat().st_mtime)
        return plan

    def open(self, job: str, wait: float = 0.0) -> Job:
        """Hold a job, replay its journal and mend what can be mended: a torn tail is cut; damage before sound lines
        sets the journal aside and keeps its prefix. Raises `Busy`, and `Corrupt` for a manifest that cannot be read
        (it stays where it is; see `set_aside`)."""
        directory = self.directory / job
        guard = Lock(directory / LOCK)
        guard.acquire(f"Job {job}", wait)
        try:
            plan = jobfiles.read(directory)
            reading = journal.read(directory / JOURNAL)
            sound = jobfiles.replay(plan, reading)
            notices = []
            if not sound or reading.damaged:
                with local_io("set a damaged journal aside"):
                    kept = disk.set_aside(directory / JOURNAL)
                notices.append(f"The journal of job {job} was damaged; it was set aside as {kept.name}.")
                with local_io("write the manifest"):
                    jobfiles.write(directory, plan)
                reading.sound = 0
            return Job(directory, guard, plan, Journal(directory / JOURNAL, reading.sound), notices)
        except BaseException:  # also a signal: nothing may stay held or half made
            guard.release()
            raise

    def outline(self, job: str) -> Summary | None:
        """The last summary of a job whose manifest cannot be read: enough to plan it anew; None without one."""
        try:
            seen = self._written(job)
        except (OSError, ValueError):
            return None
        return seen if seen.job == job else None

    def rebuild(self, job: str, plan: Manifest) -> Job:
        """Put `plan` in the place of a manifest that could not be read; what was there is set aside."""
        directory = self.directory / job
        guard = Lock(directory / LOCK)
        guard.acquire(f"Job {job}")
        try:
            with local_io("write the manifest"):
                for name in (MANIFEST, JOURNAL):
                    if (directory / name).exists():
                        disk.set_aside(directory / name)
                jobfiles.write(directory, plan)
            return Job(directory, guard, plan, Journal(directory / JOURNAL, 0), [])
        except BaseException:  # also a signal: nothing may stay held or half made
            guard.release()
            raise

    def retire(self, job: str) -> Path:
        """Put a job that can be neither read nor rebuilt out of the way; gives where it is kept."""
        kept = self.directory / f".corrupt-{job}"
        with local_io(f"set {job} aside"):
            (self.directory / job).rename(kept)
            disk.fsync_dir(self.directory)
        return kept

    def prune(self, keep_days: float) -> None:
        """Remove finished jobs that ended more than `keep_days` ago, and drafts that nobody holds."""
        before = manifest.timestamp((datetime.now(UTC) - timedelta(days=keep_days)).timestamp())
        for job in self.ids():
            try:
                seen = self._written(job)
            except (OSError, ValueError):
                continue
            if seen.state.finished and seen.updated < before and self.holder(job) is None:
                self._remove(job)
        for draft in self.directory.glob(f"{_DRAFT}*"):
            if lock.holder(draft / LOCK) is None and ((draft / LOCK).exists() or _forgotten(draft)):
                shutil.rmtree(draft, ignore_errors=True)

    def _written(self, job: str) -> Summary:
        """What `summary.json` says. A command goes through all jobs several times; the file is always replaced as a
        whole, so one that is the same is not read again. Raises `OSError` and `ValueError`."""
        path = self.directory / job / SUMMARY
        info = path.stat()
        version = info.st_ino, info.st_mtime_ns, info.st_size
        known = self._summaries.get(job)
        if known and known[0] == version:
            return known[1]
        seen = summary.from_json(path.read_bytes())
        self._summaries[job] = version, seen
        return seen

    def _remove(self, job: str) -> None:
        hidden = self.directory / f"{_DRAFT}{job}"
        with contextlib.suppress(OSError):
            (self.directory / job).rename(hidden)
            shutil.rmtree(hidden)


def _forgotten(draft: Path) -> bool:
    with contextlib.suppress(OSError):
        return time.time() - draft.stat().st_mtime > _UNLOCKED
    return False
