"""Keeping the token out of replies: a server may repeat it, and replies end in manifests, logs and events. Pure."""

from __future__ import annotations

import json
from dataclasses import replace
from urllib.parse import quote

from ppcli.transport.messages import Reply

HIDDEN = "[hidden]"
SHORTEST = 8
"""Characters from which a token is replaced everywhere: a shorter one may be part of any word."""


def without(reply: Reply, token: str | None) -> Reply:
    """The reply without the token, also where it is escaped for JSON or a URL."""
    if not token or len(token) < SHORTEST:
        return reply
    content, headers = reply.content, dict(reply.headers)
    for form in _forms(token):
        content = content.replace(form.encode(), HIDDEN.encode())
        headers = {name: value.replace(form, HIDDEN) for name, value in headers.items()}
    return replace(reply, content=content, headers=headers)


def _forms(token: str) -> list[str]:
    escaped = json.dumps(token)[1:-1]
    forms = {token, escaped, escaped.replace("/", "\\/"), quote(token, safe="")}
    return sorted(forms, key=len, reverse=True)  # the longer may hold the shorter
