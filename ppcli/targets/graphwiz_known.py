"""What is known of a GraphWiz server by now, and what follows for a file: limits, and the type of an asset."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ppcli.errors import Rejected
from ppcli.model import Evidence, Limits
from ppcli.targets.graphwiz_api import Kind

SINGLE_MAX = 50 << 20
"""Bytes up to which a file may go in one request."""
ASSET_TYPE, MIME_TYPE = "asset_type", "mime_type"
_LIMITS = Limits(
    chunk_min=5 << 20,
    chunk_max=20 << 20,
    chunk_default=10 << 20,
    replan=False,
    evidence=Evidence.MARK,
    remote=True,
    keeps_starts=True,
)
_TYPES = {
    "glb": ("model", "model/gltf-binary"), "gltf": ("model", "model/gltf+json"), "png": ("texture", "image/png"),
    "jpg": ("texture", "image/jpeg"), "jpeg": ("texture", "image/jpeg"), "gif": ("texture", "image/gif"),
    "webp": ("texture", "image/webp"), "mp3": ("audio", "audio/mpeg"), "ogg": ("audio", "audio/ogg"),
    "wav": ("audio", "audio/wav"), "mp4": ("video", "video/mp4"), "webm": ("video", "video/webm"),
}  # fmt: skip
"""What GraphWiz takes, by the end of the name."""


@dataclass(slots=True)
class Known:
    """`single`: it may take a whole file in one request. `chunk_size` is the one that the server wants, where it is
    another than was planned. Every thread may look; what is learnt never gets less."""

    url: str
    extensions: frozenset[str] = frozenset()
    single: bool = True
    chunk_size: int | None = None

    @property
    def checked(self) -> bool:
        """It compares the SHA-256 of what arrives, and tells it."""
        return "checksum-sha256" in self.extensions

    @property
    def parallel(self) -> bool:
        """It takes the chunks of a file side by side."""
        return "parallel" in self.extensions

    def takes_whole(self, size: int) -> bool:
        """A file of so many bytes may go in one request."""
        return self.single and size <= SINGLE_MAX

    def limits(self, size: int) -> Limits:
        """Raises `Rejected` for an empty file where only chunks are taken: none would come, and the session never be
        completed."""
        limits = replace(_LIMITS, evidence=Evidence.CONTENT, keeps_starts=False) if self.checked else _LIMITS
        if (fixed := self.chunk_size) is not None:
            limits = replace(limits, chunk_min=fixed, chunk_max=fixed, chunk_default=fixed, server_cuts=True)
        if self.takes_whole(size):
            most, default = max(limits.chunk_max, size), max(limits.chunk_default, size)
            return replace(limits, chunk_max=most, chunk_default=default)
        if size == 0:
            raise Rejected(
                f"{self.url} takes no empty files: it knows uploads in chunks only.",
                hint="Leave the file out.",
                reason="unsupported",
            )
        return limits


def kind_of(name: str, options: Mapping[str, str]) -> Kind:
    """What the target's options say, else what the name suggests."""
    asset_type, mime_type = _TYPES.get(name.rpartition(".")[2].lower(), ("model", None))
    guessed = mime_type or mimetypes.guess_type(name, strict=False)[0] or "application/octet-stream"
    return Kind(options.get(ASSET_TYPE, asset_type), options.get(MIME_TYPE, guessed))
