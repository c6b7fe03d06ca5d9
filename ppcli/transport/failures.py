"""Failures of connections, as errors: the only place that knows what an OSError of a socket means."""

from __future__ import annotations

import socket
import ssl

from ppcli.errors import Doubt, Rejected, Transient
from ppcli.origin import Origin
from ppcli.transport.messages import Request

CONNECT_TIMEOUT = 10.0
"""Seconds to get a connection, for each address of the host."""
_NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"})
"""What OpenSSL calls an answer that is none of TLS's."""


def unreachable(origin: Origin, error: OSError) -> Rejected | Transient:
    """There was no connection, so nothing was sent."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Rejected(
            f"The certificate of {origin.netloc} is not trusted: {error.verify_message.rstrip('.')}.",
            hint="If it is signed by an authority of your own, name that authority's file in SSL_CERT_FILE.",
            reason="tls",
        )
    if isinstance(error, socket.gaierror):
        return Transient(f"the host {origin.host} is not found (DNS: {error.strerror or error})", reason="dns")
    if isinstance(error, TimeoutError):
        return Transient(f"{origin.netloc} does not answer: no connection within {CONNECT_TIMEOUT:.0f} seconds")
    if isinstance(error, ssl.SSLError):
        spoken = " (does it speak plain http?)" if error.reason in _NO_TLS else ""
        return Transient(f"no TLS connection to {origin.netloc}: {error.reason or error}{spoken}")
    return Transient(f"{origin.netloc} cannot be reached: {error.strerror or error}")


def lost(origin: Origin, request: Request, why: str) -> Transient:
    """The request went out, and its reply did not come back whole."""
    kind = Transient if request.harmless else Doubt
    return kind(f"no whole reply from {origin.netloc}: {why}")


def silence(patience: float) -> str:
    return f"nothing for {patience:g} seconds"
