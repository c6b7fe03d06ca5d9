"""Everything the routes share, opened and closed as one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ppcli import disk
from ppcli.errors import Busy, local_io
from ppcli.lock import Lock
from ppcli.server.assets import Assets, UploadRate
from ppcli.server.cleanup import Cleanup
from ppcli.server.completing import Completer
from ppcli.server.content import Files
from ppcli.server.database import DATABASE, Database, database_errors
from ppcli.server.entries import Entries
from ppcli.server.limits import ServerLimits
from ppcli.server.live import LiveSessions
from ppcli.server.pad_files import PadFiles
from ppcli.server.pad_receiving import PadReceiver
from ppcli.server.pads import Pads
from ppcli.server.placing import Placing
from ppcli.server.receiving import Receiver
from ppcli.server.sessions import Sessions
from ppcli.server.single_shot import SingleShot
from ppcli.server.users import LOGINS, Users
from ppcli.server.wholes import Wholes

_WORKERS = 16
"""Threads that wait for the disk."""
_TAKERS = max(2, os.cpu_count() or 2)
"""Threads that hash and write chunks. More would only take the processor from the hash of the whole file, which is
behind as soon as it gets less of it than they."""
_HASHERS = 2
_COMPLETIONS = 8
"""Uploads that are completed at the same time; the next wait, while everything else is served."""


class Depot:
    """A server's data dir while it is being served: one process at a time, told by a lock.

    Raises `Busy` (exit 7), `Local` (11) or `Corrupt` (8). `stopped` is set before closing: long work gives up then.
    """

    def __init__(self, data: Path, limits: ServerLimits) -> None:
        self.limits = limits
        self.stopped = threading.Event()
        self._lock = _locked(data)
        try:
            with local_io(f"use {data}"):
                self.files = Files(data)
                pad_files = PadFiles(data)
            self.database = Database(data / DATABASE)
        except BaseException:  # also a signal: a data dir that cannot be used must not stay locked
            self._lock.release()
            raise
        self.workers = ThreadPoolExecutor(_WORKERS, "chunks")
        self._takers = ThreadPoolExecutor(_TAKERS, "take")
        self.completions = ThreadPoolExecutor(_COMPLETIONS, "complete")
        self.logins = ThreadPoolExecutor(LOGINS, "logins")
        self._hashers = ThreadPoolExecutor(_HASHERS, "frontier")
        self.users = Users(self.database)
        self.entries = Entries(self.database)
        self.sessions = Sessions(self.database, self.files, limits)
        live = LiveSessions(self.files, self._hashers, self.stopped)
        self.live = live
        self.receiver = Receiver(self.database, self.files, self.sessions, live, self.workers, self._takers)
        placing = Placing()
        self.completer = Completer(self.database, self.files, self.sessions, live, placing)
        self.wholes = Wholes(self.database, self.files, placing, limits)
        self.pads = Pads(self.database, pad_files, limits)
        self.pad_receiver = PadReceiver(self.pads, self.workers, self._takers)
        self.assets = Assets(self.database)
        self.upload_rate = UploadRate(limits.uploads_per_hour)
        self.single_shot = SingleShot(self.files, self.sessions, self.completer, self._takers)
        self.cleanup = Cleanup(self.database, self.files, self.sessions, self.completer, live, placing, limits)

    def start_cleaning(self, failed: Callable[[Exception], None]) -> None:
        """Clean up now, and then again and again until `stopped`. A round that fails is told and tried again."""
        with database_errors(self.database.path), local_io("clean up the data dir"):
            self.cleanup.start()

        def rounds() -> None:
            while not self.stopped.wait(self.limits.cleanup_interval):
                try:
                    self.cleanup.run()
                except Exception as error:  # one bad round must not end the cleaning; it is logged
                    failed(error)

        self._cleaning = threading.Thread(target=rounds, name="cleanup", daemon=True)
        self._cleaning.start()

    def close(self) -> None:
        """Wait for what is under way, then give the data dir back."""
        self.stopped.set()
        if hasattr(self, "_cleaning"):
            self._cleaning.join()
        self.logins.shutdown(cancel_futures=True)
        self.completions.shutdown()
        self._hashers.shutdown()
        self._takers.shutdown()
        self.workers.shutdown()
        self.database.close()
        self._lock.release()


def _locked(data: Path) -> Lock:
    with local_io(f"use {data}"):
        disk.make_dir(data)
        data.chmod(disk.PRIVATE_DIR)
    lock = Lock(data / "lock")
    try:
        lock.acquire(f"The data dir {data}")
    except Busy as error:
        raise Busy(error.message, hint="Stop that server, or choose another --data.", reason="locked") from None
    return lock
