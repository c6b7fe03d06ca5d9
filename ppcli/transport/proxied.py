"""Through a proxy: httpx. It speaks to http and https proxies, and imports slowly; nothing else here needs it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import httpx

from ppcli.calls import Call
from ppcli.errors import PpcliError, Rejected, StepFailure, Transient, Usage
from ppcli.origin import Origin, origin_of
from ppcli.target import PIECE, Body
from ppcli.transport import failures
from ppcli.transport.framing import request_head
from ppcli.transport.messages import Request

IDLE = 4.0
"""Seconds after which an idle connection is not used again: servers close theirs after 5."""


class _Answer:
    """An `Answer`. `failure` says what an error of httpx means."""

    def __init__(self, response: httpx.Response, failure: Callable[[httpx.TransportError], Exception]) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
        self._response = response
        self._failure = failure

    def pieces(self) -> Iterator[memoryview]:
        try:
            for data in self._response.iter_raw():
                view = memoryview(data)
                for at in range(0, len(view), PIECE):
                    yield view[at : at + PIECE]
        except httpx.TransportError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        self._response.close()


class Proxied:
    """An `Engine`. `proxy` is the URL of the proxy; its user and password, if any, are shown nowhere."""

    splits = False

    def __init__(self, origin: Origin, proxy: str | None, context: ssl.SSLContext, connections: int) -> None:
        self._origin = origin
        self._proxy = origin_of(proxy) if proxy else None
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=connections, keepalive_expiry=IDLE)
        own_tls = context if proxy and proxy.startswith("https:") else None
        try:
            if proxy and proxy.startswith("http") and self._proxy is None:
                raise ValueError("no host")
            via = httpx.Proxy(proxy, ssl_context=own_tls) if proxy else None
            self._client = httpx.Client(
                proxy=via, verify=context, trust_env=False, limits=limits, follow_redirects=False
            )
        except (ImportError, ValueError, httpx.InvalidURL):
            raise Usage(
                f"The proxy for {origin.netloc} cannot be used: ppcli speaks to http:// and https:// proxies.",
                hint="Check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, or name the host in NO_PROXY.",
                reason="proxy",
            ) from None  # that one may hold the proxy's password

    def exchange(self, request: Request, path: str, headers: Mapping[str, str], body: Body | None) -> Call[_Answer]:
        yield from ()  # httpx does not tell when all is sent
        request_head(request.method, path, headers)  # what would break out of its line is refused alike
        timeout = httpx.Timeout(request.patience, connect=failures.CONNECT_TIMEOUT)
        outgoing = httpx.Request(
            request.method,
            f"{self._origin}{path}",
            headers=dict(headers),
            content=request.content if body is None else _from(body),
            extensions={"timeout": timeout.as_dict()},
        )
        try:
            response = self._client.send(outgoing, stream=True)
        except httpx.TransportError as error:
            raise self._failure(request, error) from error
        return _Answer(response, partial(self._failure, request))

    def close(self) -> None:
        self._client.close()

    def _failure(self, request: Request, error: httpx.TransportError) -> PpcliError | StepFailure:
        if isinstance(error, httpx.ProxyError):
            if str(error).startswith("407"):
                return Rejected(
                    "The proxy asks for credentials.",
                    hint="Write them into the variable that names it: http://USER:PASSWORD@PROXY.",
                    reason="proxy",
                )
            return Transient(f"the proxy does not connect to {self._origin.netloc}: {error}")
        if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError):
            root = TimeoutError() if isinstance(error, httpx.ConnectTimeout) else _root(error)
            if self._proxy is None or isinstance(root, ssl.SSLError):
                return failures.unreachable(self._origin, root)
            why = failures.unreachable(self._proxy, root)
            return Transient(f"the proxy does not help: {why}", reason=why.reason or "retries")
        if isinstance(error, httpx.TimeoutException):
            return failures.lost(self._origin, request, failures.silence(request.patience))
        return failures.lost(self._origin, request, str(error) or type(error).__name__)


def _from(body: Body) -> Iterator[bytes]:
    for piece in body:
        yield bytes(piece)


def _root(error: BaseException) -> OSError:
    """The OSError behind what httpx and httpcore made of it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror | ssl.SSLError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return OSError(str(error))
