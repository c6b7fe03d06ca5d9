"""Names on targets: what a source is called there, and what may be written here under a name from there. Pure."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import NoReturn

from ppcli.errors import Rejected, Usage

# C0, DEL, C1, and surrogates: Python's stand-ins for bytes that are not UTF-8.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_ESCAPED = re.compile(b"%([01][0-9A-F]|7F|[89A-F][0-9A-F])")


def escape(raw: str | bytes) -> str:
    """A name as it is shown and sent: bytes that are not UTF-8 and control characters as %XX, all else as it is.
    Escaping again changes nothing."""
    text = raw.decode(errors="surrogateescape") if isinstance(raw, bytes) else raw
    return text if text.isascii() and text.isprintable() else _UNSAFE.sub(_percent, text)


def unescape(name: str) -> str | None:
    """What `escape` made `name` of, with undecodable bytes as surrogates; None where it had nothing to do."""
    raw = _ESCAPED.sub(lambda match: bytes((int(match[1], 16),)), name.encode(errors="surrogateescape"))
    text = raw.decode(errors="surrogateescape")
    return text if text != name and escape(text) == name else None


def _percent(match: re.Match[str]) -> str:
    character = match.group()
    byte = ord(character) - 0xDC00
    if 0x80 <= byte <= 0xFF:
        return f"%{byte:02X}"
    return "".join(f"%{byte:02X}" for byte in character.encode(errors="surrogatepass"))


def check_name(name: str) -> None:
    """Check a `--name`. Raises `Usage` for an empty component (one `/` at the end is fine), `.` and `..`."""
    components = name.removesuffix("/").split("/")
    for component in components:
        if component in ("", ".", ".."):
            fault = f"a component that is {component!r}" if component else "an empty component"
            raise Usage(f"--name {escape(name)!r} has {fault}.", hint="Give a name such as `a.iso` or `images/a.iso`.")


def object_name(name: str | None, own: str | None, *, single: bool) -> str:
    """The name on the target of a source.

    `name` is the checked `--name`; `own` is the source's own name, None for the standard input; `single`: it is the
    only source and no directory. Raises `Usage` where `--name` does not fit.
    """
    prefix = name or ""
    if not prefix or prefix.endswith("/"):
        if own is None:
            raise Usage("The standard input needs a whole name.", hint="Add `--name NAME`.")
        return escape(prefix + own)
    if not single:
        raise Usage(
            f"--name {escape(prefix)!r} names a single source, and there are several files to send.",
            hint=f"`--name {escape(prefix)}/` puts it before every name.",
        )
    return escape(prefix)


def safe_relative(name: str) -> PurePosixPath:
    """`name` as a path that stays below the directory it is joined to, and that no other name gives. Raises `Rejected`
    (reason `forbidden`) where there is none."""
    if "\0" in name:
        _refuse(name, "contains a NUL character")
    for component in name.split("/"):
        if component in ("", ".", ".."):
            _refuse(name, f"has the component {component!r}" if component else "is absolute or has an empty component")
    return PurePosixPath(name)


def _refuse(name: str, why: str) -> NoReturn:
    raise Rejected(
        f"The name {escape(name)!r} {why}, so it cannot be a file below a directory.",
        hint="Choose another name with --name or DEST.",
        reason="forbidden",
    )
