"""What every use case has at hand: directories, configuration, jobs, the digest cache, targets, stop signals."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from ppcli import checksums, config
from ppcli.app.signals import Signals
from ppcli.app.transports import Transports
from ppcli.digests import DigestCache
from ppcli.errors import PpcliError
from ppcli.events import ErrorInfo, Event, Listener, Result, WarningRaised
from ppcli.halt import Halt
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
    """A listener that several threads may tell something: it passes one event at a time on."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._lock = threading.Lock()

    def hear(self, event: Event) -> None:
        with self._lock:
            self._listener.hear(event)

    def tick(self) -> None:
        with self._lock:
            self._listener.tick()


class Workplace:
    """Open for one command. While it is open, signals raise `Interrupted`, or stop the run that is under way."""

    def __init__(self, listener: Listener, ask: Ask) -> None:
        self.listener: Listener = OneByOne(listener)
        self.ask = ask
        self.started = time.monotonic()
        self.dirs = config.dirs()
        self.config = config.load(self.dirs.config)
        self.jobs = JobStore(self.dirs.data)
        self.digests = DigestCache(self.dirs.data)
        self.hashes = Hashes(self.digests)
        self.signals = Signals()
        self.transports = Transports(self.config, self.dirs.config)
        self._targets: dict[tuple[str, int | None], Target] = {}

    def __enter__(self) -> Workplace:
        self.signals.install()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for target in self._targets.values():
            for notice in target.notices():
                self.warn(notice.code, notice.message)
            target.close()
        self.transports.close()
        self.digests.close()
        self.signals.restore()

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
        """The target that is meant; from now on, PPCLI_TOKEN is for its origin."""
        place = self.config.place(to)
        self.transports.choose(place.url)
        return place

    def file_digest(self, path: Path, fresh: bool, algorithm: str = checksums.SHA256) -> str:
        return self.digests.of_file(path, fresh, algorithm)

    def known_digest(self, path: Path) -> str | None:
        return self.digests.get(path, fingerprint(path))

    def warn(self, code: str, message: str, job: str | None = None) -> None:
        self.listener.hear(WarningRaised(job, code, message))

    def call(self, step: Step, name: str, attempt: Callable[[], T]) -> T:
        """A call outside a run, under the same retry policy."""
        halt = Halt()
        retrier = Retrier(DEFAULT_RETRIES, Gate(), halt, lambda made: self.listener.hear(retrying(None, made)))
        return retrier.call(step, name, None, attempt)

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
            error=error_info(error) if error else None,
        )


def error_info(error: PpcliError) -> ErrorInfo:
    return ErrorInfo(error.kind, error.reason, error.message, error.hint, error.retryable)


_RETRYABLE = {"temporary", "interrupted", "busy"}


def failure_info(failure: Failure) -> ErrorInfo:
    return ErrorInfo(failure.kind, failure.reason, failure.message, failure.hint, failure.kind in _RETRYABLE)
