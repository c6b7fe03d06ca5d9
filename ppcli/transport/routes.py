"""Which engine reaches an origin: a proxy from the environment, or a direct connection."""

from __future__ import annotations

import os

from ppcli.origin import Origin, origin_of
from ppcli.transport import tls
from ppcli.transport.direct import Direct
from ppcli.transport.engine import Engine


def proxy_for(origin: Origin) -> str | None:
    """The proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names for this origin and NO_PROXY does not except; names in
    lower case count first. Loopback is no exception, as everywhere: name it in NO_PROXY."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None  # the usual case, which saves an import
    from urllib.request import getproxies_environment
    from urllib.request import proxy_bypass_environment as excepted  # type: ignore[attr-defined]

    proxies = getproxies_environment()
    proxy = proxies.get(origin.scheme) or proxies.get("all")
    if not proxy or excepted(f"{origin.host}:{origin.port}", proxies):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def leaves_the_machine(origin: Origin) -> bool:
    """Whether requests to it can be heard on a wire: a proxy elsewhere takes even those to loopback."""
    proxy = proxy_for(origin)
    via = origin_of(proxy) if proxy else origin
    return not (origin.loopback and via is not None and via.loopback)


def engine_for(origin: Origin, connections: int) -> Engine:
    """Raises `Usage` where the proxy or the certificates that the environment names cannot be used."""
    proxy = proxy_for(origin)
    if proxy is None:
        return Direct(origin, tls.context() if origin.secure else None, connections)
    from ppcli.transport.proxied import Proxied

    return Proxied(origin, proxy, tls.context(), connections)
