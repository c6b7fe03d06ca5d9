"""`Transport`: requests to one origin, with its token, its redirects, and its refusals as errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from ppcli import __version__
from ppcli.calls import Call, outcome
from ppcli.credentials import Tokens
from ppcli.errors import Credentials, Rejected, Usage
from ppcli.origin import Origin
from ppcli.target import Body
from ppcli.transport.engine import Answer, Engine
from ppcli.transport.messages import Reply, Request
from ppcli.transport.redaction import without
from ppcli.transport.redirects import Redirect
from ppcli.transport.refusals import own_words, refusal
from ppcli.transport.routes import engine_for, leaves_the_machine

REPLY_MAX = 64 << 20
"""Bytes of a reply that `send` takes; what may be larger is read with `stream`."""
REDIRECTS = 5
CONNECTIONS = 64

_REDIRECTS = {301, 302, 303, 307, 308}
_SAME_METHOD = {307, 308}
_FOLLOWS_ANY = {"GET", "HEAD"}
_OWN_HEADERS = {"Accept-Encoding": "identity", "User-Agent": f"ppcli/{__version__}"}
_MAY_HAVE_A_BODY = {"POST", "PUT", "PATCH"}


class Stream:
    """A reply that is read as it comes. It lives as long as the context that gave it."""

    def __init__(self, answer: Answer) -> None:
        self.status = answer.status
        self.headers: Mapping[str, str] = answer.headers
        self._answer = answer

    def pieces(self) -> Iterator[memoryview]:
        """The body, once: pieces of at most `target.PIECE` bytes, each valid until the next. Raises `Transient` where
        it ends too early."""
        return self._answer.pieces()


class Transport:
    """Requests to one origin, from any number of threads at once.

    `send` and `stream` make one attempt and raise
    - `Transient`: nothing happened, as far as the server can tell; `Doubt`: it may have happened;
    - `Credentials`: the server answers 401, also to the newest token there is;
    - `Rejected`: it refuses for good, its certificate is not trusted (`tls`), or it redirects elsewhere (`redirect`).

    A redirect is followed within the origin only, so the token cannot leave it.
    """

    def __init__(self, base: str, tokens: Tokens | None = None, *, connections: int = CONNECTIONS) -> None:
        """`base` is `http(s)://host[:port]`; at most `connections` stay open while they are idle. Connects to nothing
        yet. Raises `Usage` for a URL that names no host."""
        try:
            self.origin = Origin.parse(base)
        except ValueError as error:
            raise Usage(f"{base!r} cannot be used: {error}.", hint="Write it like https://host.") from error
        self._tokens = tokens
        if tokens and leaves_the_machine(self.origin):
            tokens.leave_the_machine()
        self._engine: Engine = engine_for(self.origin, connections)

    def send(self, request: Request, body: Body | None = None) -> Reply:
        """The reply, its status 2xx or in `request.expect`. `body` is sent with its size as Content-Length; what it
        raises passes through unchanged. It is iterated again where the request has to be sent again: after a 401, a
        redirect, or when a connection turns out to have been closed meanwhile. The token is not in the reply, should
        the server repeat it; stored content, which must stay as it is, is read with `stream`."""
        return outcome(self.sending(request, body))

    def sending(self, request: Request, body: Body | None = None) -> Call[Reply]:
        """What `send` does, in two halves."""
        answer, token = yield from self._ask(request, body)
        try:
            reply = _whole(self.origin, answer)
        finally:
            answer.close()
        if _is_wanted(request, reply.status):
            return without(reply, token)
        raise refusal(self.origin, reply, token)

    @contextmanager
    def stream(self, request: Request) -> Iterator[Stream]:
        """A large reply; what `send` raises for its status is raised here too. Leaving the context early closes the
        connection."""
        answer, token = outcome(self._ask(request, None))
        try:
            if not _is_wanted(request, answer.status):
                raise refusal(self.origin, _whole(self.origin, answer), token)
            yield Stream(answer)
        finally:
            answer.close()

    @property
    def splits(self) -> bool:
        """Whether `sending` has two halves here: not through a proxy."""
        return self._engine.splits

    def close(self) -> None:
        """Close all connections, also those in use, whose calls raise `Transient` or `Doubt`. Repeatable."""
        self._engine.close()

    def _ask(self, request: Request, body: Body | None) -> Call[tuple[Answer, str | None]]:
        """The first answer that is neither a redirect to follow nor a 401 that another token may mend, and the token
        that it was asked with."""
        path, redirects, renewed = request.path, 0, False
        headers = _headers(self.origin, request, body)
        tokens = None if "Authorization" in headers else self._tokens
        token = tokens.current() if tokens else None
        while True:
            if token:
                headers["Authorization"] = f"Bearer {token}"
            answer = yield from self._engine.exchange(request, path, headers, body)
            try:
                if answer.status in _REDIRECTS and answer.status not in request.expect:
                    path = self._redirected(request, path, answer, redirects)
                    redirects += 1
                elif answer.status == 401 and 401 not in request.expect:
                    used, token = token, tokens.refresh(token) if tokens and not renewed else None
                    if token is None:
                        raise self._unauthorized(_whole(self.origin, answer), used)
                    renewed = True
                else:
                    return answer, token
                _drain(answer)
            except BaseException:  # also a signal: nothing may stay held
                answer.close()
                raise
            answer.close()

    def _redirected(self, request: Request, path: str, answer: Answer, before: int) -> str:
        """The path to go on with. Raises `Rejected` (`redirect`) where it must not be followed."""
        redirect = Redirect.of(self.origin, path, answer.headers.get("location", ""))
        if redirect.within:
            method_stays = request.method in _FOLLOWS_ANY or answer.status in _SAME_METHOD
            if method_stays and before < REDIRECTS:
                return redirect.path
            why = f"more than {REDIRECTS} times" if method_stays else "the upload away"
            raise Rejected(
                f"{self.origin.netloc} redirects {why}, to {redirect.place}.",
                hint="Check the target's URL with who runs the server.",
                reason="redirect",
            )
        raise Rejected(
            f"{self.origin.netloc} redirects to {redirect.place}; only the same host, port and scheme are followed.",
            hint=f"If that is the place you mean, use {redirect.place} as the target.",
            reason="redirect",
        )

    def _unauthorized(self, reply: Reply, used: str | None) -> Credentials:
        words = own_words(reply, used)
        told = f" ({words})" if words else ""
        hint = f"Run 'ppcli login {self.origin}', or set PPCLI_TOKEN or PPCLI_TOKEN_FILE."
        if used is None:
            return Credentials(f"{self.origin} asks for credentials{told}.", hint=hint, reason="missing")
        return Credentials(f"{self.origin} does not accept the token{told}.", hint=hint, reason="refused")


def _is_wanted(request: Request, status: int) -> bool:
    return 200 <= status < 300 or status in request.expect


def _headers(origin: Origin, request: Request, body: Body | None) -> dict[str, str]:
    headers = {"Host": origin.netloc, **_OWN_HEADERS}
    size = len(request.content) if body is None else body.size
    if size or request.method in _MAY_HAVE_A_BODY:
        headers["Content-Length"] = str(size)
    for name, value in request.headers.items():
        headers["Authorization" if name.lower() == "authorization" else name] = value
    return headers


def _whole(origin: Origin, answer: Answer) -> Reply:
    """The reply, read to its end, up to REPLY_MAX bytes."""
    content = bytearray()
    for piece in answer.pieces():
        content += piece
        if len(content) > REPLY_MAX:
            raise Rejected(
                f"{origin.netloc} sends a reply of more than {REPLY_MAX >> 20} MiB.",
                hint="Check that the target is the server you mean.",
                reason="protocol",
            )
    return Reply(answer.status, answer.headers, bytes(content))


def _drain(answer: Answer) -> None:
    """Read a short rest, so that the connection can be used again; what is long is left to be closed."""
    left = 1 << 16
    for piece in answer.pieces():
        left -= len(piece)
        if left < 0:
            return
