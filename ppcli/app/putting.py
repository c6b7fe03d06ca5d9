"""`put`: collect, examine, find unfinished work, make a job for the rest, and run."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ppcli import source, steps
from ppcli.app.agreeing import agree
from ppcli.app.cancelling import cancel_job
from ppcli.app.examining import Examination
from ppcli.app.matching import Match, completed_since, match, settle_ended
from ppcli.app.planning import Examiner, Unchanged, check_chunk_size, unreadable
from ppcli.app.rebuilding import reopen
from ppcli.app.running import Runs, files_error, result, revive, run_job
from ppcli.app.workplace import Workplace
from ppcli.collect import STDIN, Collected, Found, collect, real_paths
from ppcli.errors import Busy, Interrupted, Partial, PpcliError, Usage
from ppcli.events import FilePlanned, FileSkipped, Result
from ppcli.jobs import Draft, Job
from ppcli.manifest import FileEntry, JobOptions, Manifest, now
from ppcli.model import JobState
from ppcli.pipeline import narrate
from ppcli.requests import PutRequest
from ppcli.target import Costly

_POLL = 0.2


def put(place: Workplace, request: PutRequest) -> Result:
    """Raises `Usage` before anything is sent or kept; other failures are in the result."""
    return _Put(place, request).run()


class _Put:
    """One `put` under way. `_seen` is what was found out about files that no unfinished job has."""

    def __init__(self, place: Workplace, request: PutRequest) -> None:
        self._place = place
        self._request = request
        chosen = place.chosen(request.to)
        self._target = place.target(chosen.url, request.chunk_size)
        if request.chunk_size is not None:
            check_chunk_size(place, self._target, request.chunk_size)
        collected = collect(request, _stdin())
        if chosen.by_default:
            self._tell_default()
        self._tell_skipped(collected)
        self._files = real_paths(collected.files)
        self._draft: Draft | None = None
        self._seen: dict[Found, Unchanged | FileEntry] = {}
        self._unable: PpcliError | None = None
        if request.checksum:
            place.hashes.distrust()
        self._examiner = Examiner(place, self._target, request)

    def run(self) -> Result:
        with self._spooled():
            if self._request.dry_run:
                return self._dry_run()
            settle_ended(self._place)
            self._place.jobs.prune(self._place.config.keep_jobs)
            if self._request.fresh:
                self._agree_first()
                self._cancel_matches()
            return self._run_jobs(self._decide())

    def _tell_default(self) -> None:
        """Nobody chose a target: an unset variable must not look like an upload."""
        self._place.warn(
            "default_target",
            f"No target was chosen: stored on this computer only, in {self._place.dirs.data / 'pads'}. "
            "To store elsewhere, give --to TARGET or set PPCLI_TARGET.",
        )

    def _tell_skipped(self, collected: Collected) -> None:
        for skipped in collected.skipped:
            told = FileSkipped(None, skipped.name, str(skipped.path.absolute()), None, skipped.code)
            self._place.listener.hear(told)
            self._place.warn(skipped.code, skipped.message)

    @contextmanager
    def _spooled(self) -> Iterator[None]:
        """Copy stdin into a draft first, when it is a source; what is left of a draft at the end is discarded."""
        try:
            if any(found.path == STDIN for found in self._files):
                self._draft = self._place.jobs.draft()
                source.spool(_stdin(), self._draft.spool)
            yield
        finally:
            if self._draft is not None:
                self._draft.discard()

    def _path(self, found: Found) -> Path:
        """Where the bytes of a source are read."""
        return self._draft.spool if found.path == STDIN and self._draft else found.path

    def _match(self) -> list[Match]:
        return match(self._place, self._target.url, self._files)

    def _cancel_matches(self) -> None:
        """`--fresh`: unfinished work on the same files is cancelled first."""
        for job_id in dict.fromkeys(one.job for one in self._match()):
            job = reopen(self._place, job_id, self._request.wait_lock)
            if job.manifest.state.finished:  # by the process that was waited for
                job.close()
            else:
                cancel_job(self._place, job)

    def _agree_first(self) -> None:
        """Where the user has to agree, that comes before anything is cancelled."""
        if isinstance(self._target, Costly):
            self._examine(self._files)
            self._agree(self._files)

    def _agree(self, files: Sequence[Found]) -> None:
        seen = [(self._path(found), self._seen[found]) for found in files]
        agree(self._place, self._target, seen, yes=self._request.yes, dry=self._request.dry_run)

    def _examine(self, files: Sequence[Found]) -> None:
        """What halts a job stops the looking: the rest is planned unseen, and the job is paused."""
        try:
            for found, seen in self._look(files) if self._unable is None else ():
                if isinstance(seen, Unchanged):
                    self._place.listener.hear(seen.told)
                self._seen[found] = seen
        except (Usage, Interrupted):
            raise
        except PpcliError as error:
            self._unable = error
        for found in files:
            if found not in self._seen:
                self._seen[found] = self._examiner.unseen(found, self._path(found))

    def _look(self, files: Sequence[Found]) -> Iterator[tuple[Found, Unchanged | FileEntry]]:
        """Examine files: side by side where every question crosses a network, else one after the other."""
        if self._target.limits(0).remote:
            yield from Examination(self._place, self._examiner).run([(found, self._path(found)) for found in files])
        else:
            for found in files:
                yield found, self._examiner.examine(found, self._path(found), lambda count: None)

    def _dry_run(self) -> Result:
        matched = {one.found for one in self._match()}
        unmatched = [found for found in self._files if found not in matched]
        self._examine(unmatched)
        self._agree(unmatched)
        for found in self._files:
            if found not in self._seen:
                self._seen[found] = self._examiner.unseen(found, self._path(found))
            entry = self._seen[found]
            if isinstance(entry, Unchanged):
                continue
            if entry.failure is not None:
                self._place.listener.hear(narrate.file_failed(None, entry, entry.failure))
            else:
                told = FilePlanned(None, entry.name, entry.path, entry.size, len(entry.chunks), entry.chunk_size)
                self._place.listener.hear(told)
        return self._result(Runs(), [])

    def _decide(self) -> list[tuple[Job, list[int], bool]]:
        """The jobs to run, all held by this process: (job, positions of its files, was it there before). Looking at
        files may take long, so it happens outside the lock, and what was decided without it is checked again."""
        deadline = time.monotonic() + self._request.wait_lock
        known = set(self._place.jobs.ids())
        while True:
            with self._place.jobs.deciding():
                again = completed_since(self._place, self._target.url, known)
                self._seen = {f: s for f, s in self._seen.items() if f.name not in again or isinstance(s, Unchanged)}
                matches = self._match()
                matched = {one.found for one in matches}
                unseen = [found for found in self._files if found not in matched and found not in self._seen]
                if not unseen:
                    try:
                        held = self._hold(matches)
                    except Busy:
                        if time.monotonic() >= deadline:
                            raise
                    else:
                        if held is not None:
                            return held
                        continue
            if unseen:
                self._examine(unseen)
                self._agree(unseen)
            else:
                time.sleep(_POLL)

    def _hold(self, matches: Sequence[Match]) -> list[tuple[Job, list[int], bool]] | None:
        """None where another process finished one of the files just now: then it is no match any more."""
        held: list[tuple[Job, list[int], bool]] = []
        try:
            for job_id in dict.fromkeys(one.job for one in matches):
                job = reopen(self._place, job_id)
                held.append((job, [], True))
                files = [one.found for one in matches if one.job == job_id]
                left = {entry.name for entry in job.manifest.files if not entry.state.finished}
                if not {found.name for found in files} <= left:
                    for other, _, _ in held:
                        other.close()
                    return None
                job.manifest.options = self._options()
                job.fold()
                held[-1][1].extend(self._rejoin(job, files))
            matched = {one.found for one in matches}
            fresh = [seen for found, seen in self._seen.items() if found not in matched and isinstance(seen, FileEntry)]
            if fresh and not (len(fresh) == len(self._files) and unreadable(fresh)):
                job = self._new_job(fresh)
                held.append((job, list(range(len(fresh))), False))
            else:
                for entry in fresh:
                    assert entry.failure is not None
                    self._place.listener.hear(narrate.file_failed(None, entry, entry.failure))
        except BaseException:  # also a signal: nothing may stay held or half made
            for job, _, _ in held:
                job.close()
            raise
        return held

    def _rejoin(self, job: Job, files: Sequence[Found]) -> list[int]:
        """The positions of `files` in a job that has them unfinished. Another source under the same name takes the
        place of the old one; its content is compared when the file is opened."""
        wanted = {found.name: found for found in files}
        positions = []
        for index, entry in enumerate(job.manifest.files):
            found = wanted.get(entry.name)
            if found is None or entry.state.finished:
                continue
            positions.append(index)
            if found.path == STDIN and self._draft is not None:
                self._draft.spool.replace(job.spool)
                job.record(steps.Replanned(index, str(STDIN), source.fingerprint(job.spool), entry.chunk_size))
            elif (entry.path != str(found.path) or self._request.checksum) and found.error is None:
                seen = source.fingerprint(found.path)
                job.record(steps.Replanned(index, str(found.path), seen, entry.chunk_size))
            if self._request.chunk_size not in (None, entry.chunk_size):
                self._place.warn(
                    "chunk_size", f"{entry.name} goes on with its chunk size of {entry.chunk_size} bytes.", job.id
                )
        return positions

    def _new_job(self, files: list[FileEntry]) -> Job:
        draft, self._draft = self._draft or self._place.jobs.draft(), None
        try:
            return draft.commit(Manifest(draft.id, self._target.url, self._options(), files, now(), now()))
        except BaseException:  # also a signal: nothing may stay held or half made
            draft.discard()
            raise

    def _options(self) -> JobOptions:
        """The options of this call; they replace those of a job that it goes on with."""
        request = self._request
        return JobOptions(
            jobs=request.jobs,
            reserve_jobs=request.reserve_jobs,
            retries=request.retries,
            limit_rate=request.limit_rate,
            chunk_size=request.chunk_size,
            immutable=request.immutable,
            fail_fast=request.fail_fast,
            fresh=request.fresh,
        )

    def _run_jobs(self, held: Sequence[tuple[Job, list[int], bool]]) -> Result:
        runs, errors = Runs(), []
        for job, files, resumed in held:
            asked = len(self._files)
            ending = run_job(
                self._place, job, self._target, files, runs, resumed=resumed, asked=asked, unable=self._unable
            )
            errors.append(ending.error)
            if ending.halted:  # what stopped this job stops the others: they are kept for a resume
                self._unable = ending.error
        return self._result(runs, errors)

    def _result(self, runs: Runs, errors: Sequence[PpcliError | None]) -> Result:
        tally = runs.tally
        for seen in self._seen.values():
            if isinstance(seen, Unchanged):
                tally.files_completed += 1
                tally.files_unchanged += 1
                tally.chunks_skipped += seen.chunks
                tally.bytes_skipped += seen.told.size
        if not runs.endings:
            tally.files_failed = sum(
                isinstance(s, FileEntry) and s.state is JobState.FAILED for s in self._seen.values()
            )
        tally.files_total = len(self._files)
        return result(self._place, runs, self._error(tally.files_failed, errors), self._target.url)

    def _error(self, failed: int, errors: Sequence[PpcliError | None]) -> PpcliError | None:
        """What the whole call failed of: what halted a job; else the failure of the only file, or `Partial`."""
        known = [error for error in (self._unable, *errors) if error is not None]
        halting = next((error for error in known if not error.ends_file and not isinstance(error, Partial)), None)
        if halting is not None or not failed:
            return halting
        kept = [seen.failure for seen in self._seen.values() if isinstance(seen, FileEntry) and seen.failure]
        first = known[0] if known else revive(kept[0])
        return files_error(failed, len(self._files), first, kept=bool(errors))


def _stdin() -> BinaryIO:
    """The standard input; a closed one (`<&-`) reads as empty."""
    return io.BytesIO() if sys.stdin is None else sys.stdin.buffer
