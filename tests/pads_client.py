"""The pads of `ppcli serve` as a client sees them, call by call: what ppcli sends, and what it never would.

client = PadsClient(server, token)
client.make(pad_size=4096)
client.reserve(0, 1)
reply = client.write(0, b"payload", counter=7)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import xxhash
from server_kit import Reply, ServerProcess

from ppcli.pads import header
from ppcli.pads.header import Header, Kind, Stamp
from ppcli.pads.key import Pad, UserKey, bound

SIZE = 4096
INDEX = "1" * 32


@dataclass
class PadsClient:
    """`token` "" is the server's own."""

    server: ServerProcess
    token: str = ""
    key: UserKey = field(default_factory=lambda: UserKey(b"k" * 32))
    index: str = INDEX
    store_id: bytes = bytes(16)

    @property
    def tag(self) -> str:
        return self.key.tag(self.server.origin)

    def pad(self, number: int) -> Pad:
        return self.key.pad(self.store_id, number)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.server.call(method, path, body, token=self.token, headers=named)

    def store(self, method: str, path: str = "", body: Any = None) -> Reply:
        return self.call(method, f"/api/pad_stores/{self.tag}{path}", body)

    def make(self, pad_size: int = SIZE) -> Reply:
        reply = self.store("PUT", "", {"pad_size": pad_size, "index": self.index})
        if reply.status == 200:
            self.store_id = bound(bytes.fromhex(reply.json["store_id"]), self.server.origin)
        return reply

    def reserve(self, *numbers: int, seq: int = 1) -> Reply:
        addresses = [self.pad(number).address for number in numbers]
        return self.store("POST", "/reserve", {"index": self.index, "seq": seq, "addresses": addresses})

    def head(self, number: int, payload: bytes, counter: int, **wrong: Any) -> bytes:
        values = {
            "store_id": self.store_id,
            "pad_size": SIZE,
            "stamp": Stamp(Kind.DATA, bytes(16), 0),
            "length": len(payload),
            "digest": xxhash.xxh3_128_digest(payload),
            "counter": counter,
        } | wrong
        return header.pack(Header(**values), self.pad(number).secret)

    def write(self, number: int, payload: bytes, counter: int = 1, **wrong: Any) -> Reply:
        """`wrong` are fields of the header that are not as they should be."""
        raw = payload + self.head(number, payload, counter, **wrong)
        return self.send(number, raw)

    def send(self, number: int, raw: bytes) -> Reply:
        secret = self.pad(number).secret.hex()
        return self.call("PUT", "/api/pads/content", raw, Pad_Secret=secret, Pad_Index=self.index)

    def erase(self, number: int, counter: int) -> Reply:
        pad = {"secret": self.pad(number).secret.hex(), "header": self.head(number, b"", counter).hex()}
        return self.store("POST", "/erase", {"index": self.index, "seq": 1, "pads": [pad]})

    def heads(self, *numbers: int) -> list[Header | str | None]:
        """The header of each pad: "" for one that was never written, None for one that is not held."""
        pads = [self.pad(number) for number in numbers]
        raws = self.call("POST", "/api/pads/heads", {"addresses": [pad.address for pad in pads]}).json["headers"]
        return [raw and header.unpack(bytes.fromhex(raw), pad.secret) for pad, raw in zip(pads, raws, strict=True)]

    def confirm(self, number: int, length: int) -> Reply:
        return self.call("POST", "/api/pads/confirm", {"address": self.pad(number).address, "length": length})

    def read(self, number: int, **headers: str) -> Reply:
        return self.call("GET", "/api/pads/content", Pad_Address=self.pad(number).address, **headers)

    def payload(self, number: int) -> bytes:
        return self.read(number).body[header.SIZE :]
