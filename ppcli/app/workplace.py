"""What every use case has at hand: directories, configuration, jobs, the digest cache, targets, stop signals."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from ppcli import checksums, config
from ppcli.app.signals import Signals
from ppcli.app.transports import Transports
from ppcli.digests import DigestCache
from ppcli.errors import Corrupt, Internal, PpcliError
from ppcli.events import ErrorInfo, Event, Listener, Result, WarningRaised
from ppcli.halt import Halt, Stopped
from ppcli.hashing import Hashes
from ppcli.jobs import JobStore
from ppcli.model import JobState
from ppcli.pipeline.context import retrying
from ppcli.requests import DEFAULT_RETRIES, Ask
from ppcli.retry import Gate, Retrier, Step
from ppcli.source import fingerprint
from ppcli.steps import Failure
from ppcli.target import Target
from ppcli.targets import Settings, connect

T = TypeVar("T")


class OneByOne:
    """A listener that several threads may tell something: it passes one event at a time on, and after its end none."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._lock = threading.Lock()
        self._ended = False

    def hear(self, event: Event) -> None:
        with self._lock:
            if not self._ended:
                self._listener.hear(event)

    def tick(self) -> None:
        with self._lock:
            if not self._ended:
                self._listener.tick()

    def end(self) -> None:
        with self._lock:
            self._ended = True


class Workplace:
    """Open for one command. While it is open, signals raise `Interrupted`, or stop the run that is under way. `halt` is
    for the calls outside a run: what stops one of them stops all, and nothing is told any more once it is closed."""

    def __init__(
        self,
        listener: Listener,
        ask: Ask,
        last_words: Callable[[], None] = lambda: None,
        *,
        retries: int = DEFAULT_RETRIES,
    ) -> None:
        """`last_words` as `Signals` takes them. `retries`: attempts of each call outside a run."""
        self._one_by_one = OneByOne(listener)
        self.listener: Listener = self._one_by_one
        self.ask = ask
        self.started = time.monotonic()
        self.dirs = config.dirs()
        self.config = config.load(self.dirs.config)
        self.jobs = JobStore(self.dirs.data)
        self.digests = DigestCache(self.dirs.data)
        self.hashes = Hashes(self.digests)
        self.signals = Signals(last_words)
        self.transports = Transports(self.config, self.dirs.config)
        self.halt = Halt()
        self._targets: dict[tuple[str, int | None], Target] = {}
        self.hashing = threading.BoundedSemaphore(os.cpu_count() or 1)
        # One gate is enough: while a call waits because its host asked for it, no other host is talked to.
        self._retrier = Retrier(retries, Gate(), self.halt, lambda made: self.listener.hear(retrying(None, made)))

    def __enter__(self) -> Workplace:
        self.signals.install()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop(error)
        for target in self._targets.values():
            for notice in target.notices():
                self.warn(notice.code, notice.message)
            target.close()
        self.transports.close()
        self.digests.close()
        self.signals.restore()
        self._one_by_one.end()

    def stop(self, error: BaseException | None = None) -> None:
        """Calls outside a run that are under way in other threads end as soon as they can, with `error`."""
        self.halt.request(error if isinstance(error, PpcliError) else Internal("The command is over."))

    def target(self, url: str, chunk_size: int | None = None) -> Target:
        """Connect to a target, once; it is closed with the workplace."""
        key = (url, chunk_size)
        if key not in self._targets:
            settings = Settings(
                self.dirs.data,
                self.dirs.config,
                self.file_digest,
                chunk_size,
                self.known_digest,
                lambda base: self.transports.get(base, url),
            )
            self._targets[key] = connect(url, settings)
        return self._targets[key]

    def choose(self, to: str | None) -> str:
        """The URL of the target that is meant."""
        return self.chosen(to).url

    def chosen(self, to: str | None) -> config.Place:
        """The target that is meant."""
        place = self.config.place(to)
        self.mean(place.url)
        return place

    def mean(self, *urls: str) -> None:
        """These are the targets of this command: the token of the environment may go there."""
        if several := self.transports.choose(*urls):
            self.warn(
                "token_unused",
                f"PPCLI_TOKEN or PPCLI_TOKEN_FILE is set and not sent: it is for one of {', '.join(several)}. "
                "Set PPCLI_TARGET to the one it is for.",
            )

    def mean_jobs(self, wanted: Sequence[str]) -> None:
        """As `mean`, where nothing else says whose that token is: for the targets of these jobs (prefixes of ids), or
        of all that are unfinished. Raises what `JobStore.resolve` raises."""
        if not self.transports.token_without_owner:
            return
        urls = []
        for job in [self.jobs.resolve(prefix) for prefix in wanted] if wanted else self.jobs.ids():
            try:
                seen = self.jobs.summary(job)
            except Corrupt:
                continue
            if wanted or not seen.state.finished:
                urls.append(seen.target)
        self.mean(*urls)

    def file_digest(self, path: Path, fresh: bool, algorithm: str = checksums.SHA256) -> str:
        return self.hashes.of_file(path, fresh, algorithm)

    def known_digest(self, path: Path) -> str | None:
        return self.digests.get(path, fingerprint(path))

    def warn(self, code: str, message: str, job: str | None = None) -> None:
        self.listener.hear(WarningRaised(job, code, message))

    def call(self, step: Step, name: str, attempt: Callable[[], T]) -> T:
        """A call outside a run, under the same retry policy. When the command was stopped meanwhile, raises why."""
        try:
            return self._retrier.call(step, name, None, attempt)
        except Stopped:
            raise self.halt.error or Internal("The command is over.") from None

    @property
    def elapsed(self) -> float:
        return round(time.monotonic() - self.started, 3)

    def done(
        self,
        *,
        error: PpcliError | None = None,
        state: JobState | None = None,
        target: str | None = None,
        files: int = 0,
        size: int = 0,
    ) -> Result:
        """The result of a command that ran no job; `files` were dealt with, `size` bytes were moved."""
        return Result(
            None,
            ok=error is None,
            exit_code=error.exit_code if error else 0,
            state=state,
            target=target,
            files_total=files,
            files_completed=files,
            bytes_sent=size,
            elapsed=self.elapsed,
            error=error_info(error, job=False) if error else None,
        )


def error_info(error: PpcliError, *, job: bool) -> ErrorInfo:
    """`job`: there is one that can be resumed."""
    hint = error.hint if job else error.hint_without_job
    return ErrorInfo(error.kind, error.reason, error.message, hint, error.retryable)


_RETRYABLE = {"temporary", "interrupted", "busy"}


def failure_info(failure: Failure) -> ErrorInfo:
    return ErrorInfo(failure.kind, failure.reason, failure.message, failure.hint, failure.kind in _RETRYABLE)
