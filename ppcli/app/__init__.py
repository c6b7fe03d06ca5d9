"""Use cases: the one place that wires parts together. Nothing here prints or exits."""

from __future__ import annotations

from collections.abc import Callable

from ppcli.app.workplace import Workplace
from ppcli.events import Listener, Result
from ppcli.requests import (
    DEFAULT_RETRIES,
    Ask,
    CancelRequest,
    GetRequest,
    ListRequest,
    LoginRequest,
    Prompt,
    PutRequest,
    RemoveRequest,
    ResumeRequest,
    StatusRequest,
)


class App:
    """Every command, as a call. Each gives a `Result` (whose `error` may be set) or raises a `PpcliError`; events go to
    `listener`, questions to `ask`. The result itself is told by the caller; where a second signal ends the process at
    once there is none, and `last_words` are said."""

    def __init__(self, listener: Listener, ask: Ask, last_words: Callable[[], None] = lambda: None) -> None:
        self._listener = listener
        self._ask = ask
        self._last_words = last_words

    @property
    def listener(self) -> Listener:
        """For the use cases of other packages: they tell their events here."""
        return self._listener

    def put(self, request: PutRequest) -> Result:
        from ppcli.app.putting import put

        with self._place(request.retries) as place:
            return put(place, request)

    def resume(self, request: ResumeRequest) -> Result:
        from ppcli.app.running import resume

        with self._place() as place:
            place.mean_jobs(request.jobs)
            return resume(place, request)

    def status(self, request: StatusRequest) -> Result:
        from ppcli.app.showing import status

        with self._place() as place:
            return status(place, request)

    def cancel(self, request: CancelRequest) -> Result:
        from ppcli.app.cancelling import cancel

        with self._place() as place:
            if not request.incomplete:
                place.mean_jobs(request.jobs)
            return cancel(place, request)

    def remove(self, request: RemoveRequest) -> Result:
        from ppcli.app.objects import remove

        with self._place() as place:
            return remove(place, request)

    def list(self, request: ListRequest) -> Result:
        from ppcli.app.objects import list_objects

        with self._place() as place:
            return list_objects(place, request)

    def get(self, request: GetRequest) -> Result:
        from ppcli.app.fetching import get

        with self._place() as place:
            return get(place, request)

    def recover(self, to: str | None) -> Result:
        from ppcli.app.objects import recover

        with self._place() as place:
            return recover(place, to)

    def login(self, request: LoginRequest, prompt: Prompt, tell: Callable[[str], None]) -> Result:
        """`tell` gets the one sentence that says what was done, for people."""
        from ppcli.app.login import login

        with self._place() as place:
            return login(place, request, prompt, tell)

    def logout(self, to: str | None, tell: Callable[[str], None]) -> Result:
        from ppcli.app.login import logout

        with self._place() as place:
            return logout(place, to, tell)

    def _place(self, retries: int = DEFAULT_RETRIES) -> Workplace:
        return Workplace(self._listener, self._ask, self._last_words, retries=retries)
