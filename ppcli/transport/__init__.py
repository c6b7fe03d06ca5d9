"""HTTP: the seam between targets and the network. It alone turns statuses and broken connections into errors.

- transport: requests to one origin, with its token; redirects; refusals (what a status means)
- redaction: replies without the token
- routes: which engine reaches the origin
- direct: over own HTTP/1.1 connections (connection, framing, reading, tls)
- proxied: through httpx, where the environment names a proxy
- failures: what an error of a socket means
"""

from __future__ import annotations

from ppcli.transport.messages import Reply, Request
from ppcli.transport.transport import Stream, Transport

__all__ = ["Reply", "Request", "Stream", "Transport"]
