"""The XML of the S3 API: read with care, written by hand. Documents that declare a type are refused, so there are no
entities to expand. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from ppcli.errors import Transient

LARGEST = 32 << 20
_DECLARES = (b"<!DOCTYPE", b"<!ENTITY")


class Node:
    """An element; names are without their namespace."""

    def __init__(self, element: ElementTree.Element) -> None:
        self._element = element

    @property
    def name(self) -> str:
        return self._element.tag.rpartition("}")[2]

    def text(self, name: str) -> str | None:
        """The text of the first child of this name; None where there is none."""
        found = next(self.all(name), None)
        return None if found is None else (found._element.text or "")

    def number(self, name: str) -> int:
        """Raises `Transient` where it is no number."""
        text = (self.text(name) or "").strip()
        if not (text.isascii() and text.isdigit()):
            raise Transient(f"the reply has no {name}")
        return int(text)

    def needed(self, name: str) -> str:
        text = self.text(name)
        if not text:
            raise Transient(f"the reply has no {name}")
        return text

    def true(self, name: str) -> bool:
        return (self.text(name) or "").strip().lower() == "true"

    def all(self, name: str) -> Iterator[Node]:
        return (Node(child) for child in self._element if child.tag.rpartition("}")[2] == name)


def parse(content: bytes) -> Node:
    """Raises `Transient` for what is no XML of ours: it may be a proxy's page."""
    if len(content) > LARGEST or b"\0" in content or any(word in content for word in _DECLARES):
        raise Transient("the reply is no XML of S3")
    try:
        content.decode("utf-8")
        return Node(ElementTree.fromstring(content.strip()))
    except (ElementTree.ParseError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise Transient("the reply is no XML of S3") from error


def result(content: bytes) -> Node:
    """What a request gives; its name ends with Result, on some servers with Response. Raises `Transient` for anything
    else, such as a page in XHTML."""
    node = parse(content)
    if not node.name.endswith(("Result", "Response")):
        raise Transient("the reply is no XML of S3")
    return node


def error_of(content: bytes) -> Node | None:
    """The error in a reply of any kind; None where there is none."""
    if b"<Error" not in content[:4096]:
        return None
    try:
        node = parse(content)
    except Transient:
        return None
    return node if node.name == "Error" else None


def completion(parts: Iterable[tuple[int, str, str | None, str]]) -> bytes:
    """The body that completes an upload: part number, ETag, and where there is one the name of its checksum's element
    and its value."""
    lines = []
    for number, etag, element, checksum in parts:
        told = f"<{element}>{escape(checksum)}</{element}>" if element else ""
        lines.append(f"<Part><PartNumber>{number}</PartNumber><ETag>&quot;{escape(etag)}&quot;</ETag>{told}</Part>")
    return _document("CompleteMultipartUpload", "".join(lines))


def deletion(keys: Iterable[str]) -> bytes:
    """The body that removes objects, quietly."""
    return _document(
        "Delete", "<Quiet>true</Quiet>" + "".join(f"<Object><Key>{_text(key)}</Key></Object>" for key in keys)
    )


def escape(text: str) -> str:
    """As xml.sax.saxutils has it, whose module loads half of urllib."""
    return text.replace("&", "&amp;").replace(">", "&gt;").replace("<", "&lt;")


def _text(text: str) -> str:
    return escape(text).replace("\r", "&#13;").replace("\n", "&#10;").replace("\t", "&#9;")


def _document(name: str, inside: str) -> bytes:
    return f'<{name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inside}</{name}>'.encode()


def decoder(page: Node) -> Callable[[str], str]:
    """Keys come percent-encoded where the server understood the wish."""
    return unquote_plus if page.text("EncodingType") == "url" else lambda text: text
