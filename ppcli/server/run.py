"""From a request to serve to the end of the server: directories, socket, uvicorn, signals."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import FrameType
from typing import IO, Any

import uvicorn

from ppcli import __version__, config, disk
from ppcli.config import Dirs
from ppcli.errors import Local, PpcliError, Usage, local_io
from ppcli.events import Listener, Serving, TokenCreated, WarningRaised
from ppcli.server import certificates
from ppcli.server.accounts import data_dir
from ppcli.server.app import create
from ppcli.server.database import database_errors
from ppcli.server.depot import Depot
from ppcli.server.first_start import follow, make_owner
from ppcli.server.limits import load_limits
from ppcli.server.protocol import bounded
from ppcli.server.users import token_id

_LAST_REQUESTS = 5
"""Seconds that requests in flight get after a stop signal."""
_IDLE = 75
"""Seconds that an idle connection is kept; short times make clients meet the close."""
_THREADS = 16
"""Threads for short look-ups and for reading content."""
_LOG = "server.log"
_LOG_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """`port` 0: any free one. `data` None: below ppcli's data dir. `insecure`: beyond loopback without TLS."""

    host: str = "127.0.0.1"
    port: int = 8765
    data: Path | None = None
    insecure: bool = False
    certfile: Path | None = None
    keyfile: Path | None = None
    verbose: bool = False
    quiet_stderr: bool = False

    @property
    def tls(self) -> bool:
        return self.certfile is not None


def serve(request: ServeRequest, dirs: Dirs, listener: Listener) -> None:
    """Serve until a signal comes. Raises `Usage`, `Busy`, `Corrupt` or `Local`; SIGINT and SIGTERM are a normal end."""
    _check(request)
    config.load(dirs.config)  # a mistyped table must not look like a limit
    data = data_dir(request.data, dirs)
    depot = Depot(data, load_limits(dirs.config))
    handlers: list[logging.Handler] = []
    try:
        handlers += _log_to(data / _LOG, request)
        with _bound(request) as listening:
            depot.start_cleaning(lambda error: logging.getLogger("ppcli.server").error("clean-up: %s", error))
            host, port = listening.getsockname()[:2]
            url = f"{'https' if request.tls else 'http'}://{_in_url(request.host)}:{port}"
            _introduce(depot, dirs, url, listener)

            def listens() -> None:
                listener.hear(
                    Serving(url=url, host=host, port=port, data=str(data), pid=os.getpid(), version=__version__)
                )

            _run(request, depot, listening, listens)
    finally:
        depot.close()
        for handler in handlers:
            logging.getLogger().removeHandler(handler)
            handler.close()


def _check(request: ServeRequest) -> None:
    if request.keyfile is not None and request.certfile is None:
        raise Usage("--keyfile needs --certfile.", hint="Give both, or neither.", reason="tls")
    if not (request.tls or request.insecure or _is_loopback(request.host)):
        raise Usage(
            f"Tokens and files would cross the network unencrypted on {request.host}.",
            hint="Use --certfile and --keyfile, or --insecure behind a proxy that does TLS.",
            reason="tls",
        )
    if request.certfile is not None:
        certificates.check(request.certfile, request.keyfile)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@contextlib.contextmanager
def _bound(request: ServeRequest) -> Iterator[socket.socket]:
    """A bound socket, so that the port is known before anyone is told, and a taken one is an error of ours."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            request.host, request.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise Local(f"Cannot listen on {request.host}: {error}.", hint="Check --host.", reason="address") from error
    with listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
        except OSError as error:
            raise Local(
                f"Cannot listen on port {request.port} of {request.host}: {error.strerror}.",
                hint="Choose another --port; 0 takes any free one.",
                reason="address",
            ) from error
        yield listening


def _introduce(depot: Depot, dirs: Dirs, url: str, listener: Listener) -> None:
    """On the first start: a user, and a token that a client here can use at once. Later, under another URL: that token
    again."""
    with database_errors(depot.database.path):
        made = make_owner(depot.users, dirs.config, url)
    if made is None:
        try:
            follow(depot.users, dirs.config, url)
        except (PpcliError, OSError) as error:
            listener.hear(WarningRaised(None, "login_not_saved", f"Clients here may have no token for {url}: {error}"))
        return
    listener.hear(
        TokenCreated(
            made.email, made.token, saved=None if made.saved is None else str(made.saved), id=token_id(made.token)
        )
    )
    if made.failure:
        listener.hear(WarningRaised(None, "login_not_saved", made.failure))


def _run(request: ServeRequest, depot: Depot, listening: socket.socket, listens: Callable[[], None]) -> None:
    config = uvicorn.Config(
        create(depot),
        http=bounded(depot.limits.body_timeout),
        log_config=None,
        access_log=request.verbose,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="off",
        timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=_LAST_REQUESTS,
        ssl_certfile=request.certfile,
        ssl_keyfile=request.keyfile,
    )
    server = _Server(config, listens, depot.stopped.set)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(server.serve([listening]))


class _Server(uvicorn.Server):
    """Tells when it listens, and takes signals as a normal end: the second one cuts what is in flight."""

    def __init__(self, config: uvicorn.Config, listens: Callable[[], None], stops: Callable[[], None]) -> None:
        super().__init__(config)
        self._listens = listens
        self._stops = stops

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, "routes"))
        await super().startup(sockets)
        if self.started:
            self._listens()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        watch = asyncio.get_running_loop().call_later(_LAST_REQUESTS, self._stops)
        try:
            await super().shutdown(sockets)
        finally:
            watch.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        def stop(_number: int, _frame: FrameType | None) -> None:
            self.force_exit = self.should_exit
            self.should_exit = True

        numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
        before = {number: signal.signal(number, stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _PrivateFile(RotatingFileHandler):
    def _open(self) -> IO[str]:  # type: ignore[override]
        fd = disk.open_private(Path(self.baseFilename), os.O_WRONLY | os.O_APPEND)
        return os.fdopen(fd, self.mode, encoding="utf-8", errors="backslashreplace")


def _log_to(path: Path, request: ServeRequest) -> list[logging.Handler]:
    """Warnings and errors go to a file in the data dir and to stderr; with -v requests too."""
    with local_io(f"write {path}"):
        handlers: list[logging.Handler] = [_PrivateFile(path, maxBytes=_LOG_SIZE, backupCount=1)]
    if request.verbose or not request.quiet_stderr:
        handlers.append(logging.StreamHandler())
    root: Any = logging.getLogger()
    for handler in handlers:
        handler.setLevel(logging.INFO if request.verbose else logging.WARNING)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        root.addHandler(handler)
    root.setLevel(logging.INFO if request.verbose else logging.WARNING)
    return handlers
