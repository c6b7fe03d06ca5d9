"""Bodies of requests and replies about pads. Secrets and addresses are never in a path: paths are logged."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Path
from pydantic import BaseModel, Field

from ppcli.server.fields import LARGEST, SHA256

MOST_PADS = 1000
"""Pads that one request may name."""
_ID = r"^[0-9a-f]{32}$"
_SEVERAL = Field(min_length=1, max_length=MOST_PADS)

Tag = Annotated[str, Path(pattern=_ID, description="Which store: made by the client from its user key")]
Index = Annotated[str, Field(pattern=_ID, description="Which index of the store asks, 32 hex digits")]
Seq = Annotated[int, Field(ge=0, le=LARGEST, description="How far that index has come")]
Address = Annotated[str, Field(pattern=SHA256, description="SHA-256 of the pad's secret, hex")]
Secret = Annotated[str, Field(pattern=SHA256, description="32 bytes in hex")]
RawHeader = Annotated[str, Field(pattern=r"^([0-9a-f]{256})?$", description="The 128 bytes before a payload, hex")]
AddressHeader = Annotated[str, Header(alias="Pad-Address", pattern=SHA256)]
SecretHeader = Annotated[str, Header(alias="Pad-Secret", pattern=SHA256, description="32 bytes in hex")]
IndexHeader = Annotated[str, Header(alias="Pad-Index", pattern=_ID)]


class MakeStore(BaseModel):
    pad_size: Annotated[int, Field(ge=64, le=1 << 30, description="Bytes of a payload; counts for a new store only")]
    index: Index


class TakeOver(BaseModel):
    index: Index
    instead_of: Annotated[str, Field(pattern=_ID, description="The index that counted before")]


class StoreReply(BaseModel):
    """`index` is the one that counts, `seq` how far it has come, `pads` how many pads are held."""

    store_id: str
    pad_size: int
    index: str
    seq: int
    pads: int


class ReservePads(BaseModel):
    index: Index
    seq: Seq
    addresses: Annotated[list[Address], _SEVERAL]


class ReserveReply(BaseModel):
    new: Annotated[int, Field(description="How many of them were not held before")]


class ErasedPad(BaseModel):
    secret: Secret
    header: Annotated[str, Field(pattern=r"^[0-9a-f]{256}$", description="Of an empty pad, with a new counter")]


class ErasePads(BaseModel):
    index: Index
    seq: Seq
    pads: Annotated[list[ErasedPad], _SEVERAL]


class EraseReply(BaseModel):
    erased: Annotated[int, Field(description="Pads that were there")]


class AskHeads(BaseModel):
    addresses: Annotated[list[Address], _SEVERAL]


class HeadsReply(BaseModel):
    """In the order of the addresses: null for a pad that is not held, empty for one that was never written."""

    headers: list[RawHeader | None]


class ConfirmPad(BaseModel):
    address: Address
    length: Annotated[int, Field(ge=0, le=1 << 30, description="Bytes of the payload to be read back")]


class ConfirmReply(BaseModel):
    header: RawHeader
    digest: Annotated[str, Field(description="XXH3-128 of these bytes, as they are stored now, hex")]


class WriteReply(BaseModel):
    counter: Annotated[int, Field(description="As in the header: it only rises")]
    length: int
    digest: str
