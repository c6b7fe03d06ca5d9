"""The error tree. Every way a command can end badly is a class here, with its exit code and a hint.

PpcliError
|-- Usage            2   wrong arguments, or a confirmation that nobody could give
|-- Credentials      3   the target asks for credentials
|-- SourceError      4   the source is missing, unreadable or changed        (ends one file)
|-- Rejected         5   the target refuses for good                         (ends one file)
|-- Integrity        6   what arrived is not what was sent                   (ends one file)
|-- Busy             7   another process runs this job
|-- Corrupt          8   a file of ours could be neither read nor rebuilt
|-- NotFound         9   no such job, or no such name on the target
|-- Partial         10   several files, some failed for reasons of their own
|-- Local           11   this machine: disk full, not writable, no home
|-- Temporary       75   retries are used up; everything confirmed is kept
|-- Interrupted    130   SIGINT (143: SIGTERM, SIGHUP)
`-- Internal         1   a bug

StepFailure               a step call failed; the pipeline decides what follows, users never see these
|-- Transient             try again, not before `retry_after` seconds
|   |-- Doubt             the outcome is unknown: ask, then send again
|   |-- Crowded           no more sessions at once: let one of them end first
|   |-- Further           part of it has arrived: go on, the attempts begin anew
|   `-- Damaged           what was stored is not what was sent: send again
|-- SessionLost           the target forgot the session: reset what it held, reopen once
`-- Recut                 the target wants other chunks than were planned: plan anew
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import ClassVar

KEPT = "Everything confirmed is kept"


class PpcliError(Exception):
    """An outcome with an exit code. `message` says what happened, `hint` what to do; each is one sentence."""

    kind: ClassVar[str] = "internal"
    exit_code: int = 1
    ends_file: ClassVar[bool] = False
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "", reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.reason = reason

    @property
    def hint_without_job(self) -> str:
        """What to do where the command left no job that could be resumed."""
        again = self.hint.replace(f"{KEPT}; run 'ppcli resume'", "Run the same command again")
        return again.replace("'ppcli resume'", "the same command again")


class Internal(PpcliError):
    kind = "internal"


class Usage(PpcliError):
    kind = "usage"
    exit_code = 2


class Credentials(PpcliError):
    kind = "credentials"
    exit_code = 3


class SourceError(PpcliError):
    kind = "source"
    exit_code = 4
    ends_file = True


class Rejected(PpcliError):
    kind = "rejected"
    exit_code = 5
    ends_file = True


def source_changed(what: str) -> SourceError:
    """`what` says which source is another revision now, and when that was found."""
    return SourceError(f"{what}.", hint="Run the same command again once nothing writes to it.", reason="changed")


def not_installed(extra: str, what: str) -> Usage:
    """`what` needs packages that come with an extra. No package is named to be fetched from an index: what is there
    under this program's name may be something else."""
    return Usage(
        f"{what} needs packages that are not installed.",
        hint=f"In the checkout of ppcli, run: pip install '.[{extra}]'.",
        reason="missing_extra",
    )


def other_content(name: str) -> Rejected:
    """The refusal of `--immutable`: other content has this name."""
    return Rejected(
        f"{name} is there already, with other content, and --immutable was given.",
        hint="Choose another name, or leave --immutable out to replace it.",
        reason="exists",
    )


class Integrity(PpcliError):
    kind = "integrity"
    exit_code = 6
    ends_file = True


class Busy(PpcliError):
    kind = "busy"
    exit_code = 7
    retryable = True


class Corrupt(PpcliError):
    kind = "corrupt"
    exit_code = 8


class NotFound(PpcliError):
    kind = "not_found"
    exit_code = 9


class Partial(PpcliError):
    kind = "partial"
    exit_code = 10


class Local(PpcliError):
    kind = "local"
    exit_code = 11


class Temporary(PpcliError):
    kind = "temporary"
    exit_code = 75
    retryable = True


class Interrupted(PpcliError):
    """Stopped by a signal: SIGINT is 130, SIGTERM and SIGHUP are 143."""

    kind = "interrupted"
    retryable = True

    def __init__(self, exit_code: int, *, job: bool) -> None:
        """`job`: a job was under way, so that there is something to resume."""
        kept = "; everything confirmed is kept" if job else ""
        hint = "Run 'ppcli resume' to go on." if job else "Run the same command again."
        super().__init__(f"Stopped by a signal{kept}.", hint=hint)
        self.exit_code = exit_code


class StepFailure(Exception):
    """A step call (open, reserve, upload, confirm, complete, ...) did not succeed."""


class Transient(StepFailure):
    """It may work when tried again. `retry_after` is in seconds, as the target asked, or None. `reason` is that of the
    error when nothing helped."""

    def __init__(self, cause: str, *, retry_after: float | None = None, reason: str = "retries") -> None:
        super().__init__(cause)
        self.cause = cause
        self.retry_after = retry_after
        self.reason = reason


class Doubt(Transient):
    """The request may have had its effect: the reply was lost."""


class Further(Transient):
    """Part of what was sent has arrived and stays: the same call sends the rest."""


class Damaged(Transient):
    """The target holds other bytes than were sent; sending them again may mend it."""


class Crowded(Transient):
    """The target takes no more open sessions until one of them has ended."""


class Loss(StrEnum):
    """Why a session cannot be used any more: it was forgotten, its time was up, or it holds wrong bytes for good. One
    that is only `BEHIND` lives, and holds less than it had confirmed: it is opened again, and what it lacks is sent."""

    BEHIND = "behind"
    GONE = "gone"
    EXPIRED = "expired"
    POISONED = "poisoned"


class SessionLost(StepFailure):
    """The session cannot be used any more; `cause` says how it was noticed."""

    def __init__(self, cause: str, loss: Loss = Loss.GONE) -> None:
        super().__init__(cause)
        self.cause = cause
        self.loss = loss


class Recut(StepFailure):
    """The target cuts the file into other chunks than were planned: from now on its `limits` say how."""


_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}


def local_error(error: OSError, doing: str) -> Local:
    """The `Local` error for an OSError of this machine while `doing` something ("write the manifest")."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in _DISK_FULL:
        return Local(
            f"Could not {doing}: the disk is full{where}.",
            hint="Free some space, then run the same command again.",
            reason="disk_full",
        )
    if error.errno in _NOT_WRITABLE:
        return Local(
            f"Could not {doing}: {error.strerror or error}{where}.",
            hint="Make it writable, or choose another directory (PPCLI_DATA_DIR for the data dir).",
            reason="read_only",
        )
    missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
    return Local(
        f"Could not {doing}: {error.strerror or error}{where}.",
        hint=f"Check the {'path' if missing else 'disk'} or the mount, then run the same command again.",
        reason="io",
    )


@contextmanager
def local_io(doing: str) -> Iterator[None]:
    """Turn every OSError of the block into a `Local` error (exit 11)."""
    try:
        yield
    except OSError as error:
        raise local_error(error, doing) from error
