"""SIGINT, SIGTERM and SIGHUP: the first stops in good order, the second at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ppcli.errors import Interrupted
from ppcli.halt import Halt

_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}
_LATEST = 6.8


class Signals:
    """Without a run under way the first signal raises `Interrupted` in the main thread; with one it requests a stop.
    Whatever happens then, the process is gone after 6.8 seconds. Where it ends at once, `last_words` are all that is
    said: from a signal handler, or beside a thread that hangs, so they take no lock and wait for nothing."""

    def __init__(self, last_words: Callable[[], None]) -> None:
        self._last_words = last_words
        self._halt: Halt | None = None
        self._code: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Only the main thread may; elsewhere (in a test) signals stay as they are. An ignored SIGHUP stays ignored,
        as `nohup` means it."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _CODES:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._handle)

    def restore(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()

    @contextmanager
    def stopping(self, halt: Halt) -> Iterator[None]:
        """Within the block a signal requests a stop of `halt` instead of raising."""
        self._halt = halt
        if self._code is not None:  # it came while the run before this one was ending
            halt.request(Interrupted(self._code, job=True))
        try:
            yield
        finally:
            self._halt = None

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        code = _CODES[signal.Signals(number)]
        if self._code is not None:
            self._leave(self._code)
        self._code = code
        watchdog = threading.Timer(_LATEST, self._leave, (code,))
        watchdog.daemon = True
        watchdog.start()
        if self._halt is None:
            raise Interrupted(code, job=False)
        self._halt.signal(Interrupted(code, job=True))

    def _leave(self, code: int) -> None:
        """End now, whatever hangs. All that matters is on the disk already."""
        try:
            self._last_words()
        finally:
            os._exit(code)
