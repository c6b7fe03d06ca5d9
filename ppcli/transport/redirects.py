"""Where a redirect leads. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from ppcli.origin import Origin

_LONGEST = 500
_KEPT = "/%:@!$&'()*+,;=-._~?"


@dataclass(frozen=True, slots=True)
class Redirect:
    """within   it stays at the same scheme, host and port
    path     the path and query there, fit for a request
    place    its URL to show, without what may be secret (user, query), and without the end of the path that it shares
             with the request: what is left is the place to use as the target
    """

    within: bool
    path: str
    place: str

    @classmethod
    def of(cls, origin: Origin, path: str, location: str) -> Redirect:
        """Of a request for `path` that was answered with this Location; it may be anything."""
        try:
            parts = urlsplit(urljoin(f"{origin}{path}", location))
            there = Origin.parse(parts.geturl())
        except ValueError:
            return cls(False, "/", "nowhere")
        target = quote(parts.path or "/", _KEPT, encoding="latin-1", errors="replace")
        query = quote(parts.query, _KEPT, encoding="latin-1", errors="replace")
        place = f"{there}{_start(target, path.partition('?')[0])}"
        return cls(there == origin and bool(location), f"{target}?{query}" if query else target, place[:_LONGEST])


def _start(there: str, here: str) -> str:
    """The path `there` without the whole components at its end that are those of `here`."""
    left, asked = there.split("/"), here.split("/")
    while len(left) > 1 and len(asked) > 1 and left[-1] == asked[-1]:
        left.pop()
        asked.pop()
    return "/".join(left)
