"""Pads: stores of them, and reserving, writing, confirming, reading and erasing single ones."""

from __future__ import annotations

import asyncio
import os

from fastapi import APIRouter, Request, Response

from ppcli.server.bodies import BINARY_BODY, needed_length
from ppcli.server.depot import Depot
from ppcli.server.gate import Caller
from ppcli.server.pad_models import (
    AddressHeader,
    AskHeads,
    ConfirmPad,
    ConfirmReply,
    ErasePads,
    EraseReply,
    HeadsReply,
    IndexHeader,
    MakeStore,
    ReservePads,
    ReserveReply,
    SecretHeader,
    StoreReply,
    Tag,
    TakeOver,
    WriteReply,
)
from ppcli.server.pad_receiving import checked
from ppcli.server.pads import PadStore
from ppcli.server.problems import problems
from ppcli.server.refusal import Refused
from ppcli.server.streaming import RANGED, open_file, ranged
from ppcli.server.users import User

_EMPTY = bytes.fromhex("99aa06d3014798d86001c324468d497f")
"""XXH3-128 of no bytes."""


def pads_router(depot: Depot) -> APIRouter:
    return _with_pads(_with_stores(APIRouter(tags=["pads"]), depot), depot)


def _with_stores(router: APIRouter, depot: Depot) -> APIRouter:
    pads = depot.pads

    @router.get("/api/pad_stores/{tag}", responses=problems(404))
    def pad_store(tag: Tag, user: Caller) -> StoreReply:
        """Your store with this tag."""
        return _told(pads.find(user, tag))

    @router.put("/api/pad_stores/{tag}", responses=problems())
    def make_pad_store(tag: Tag, body: MakeStore, user: Caller) -> StoreReply:
        """Make a store; one that is there already stays as it is."""
        return _told(pads.make(user, tag, body.pad_size, body.index))

    @router.post("/api/pad_stores/{tag}/index", responses=problems(404, 412))
    def take_over_pads(tag: Tag, body: TakeOver, user: Caller) -> StoreReply:
        """Let another index of a store count. Nobody else writes its pads from then on."""
        return _told(pads.take_over(user, tag, body.index, body.instead_of))

    @router.post("/api/pad_stores/{tag}/reserve", responses=problems(403, 404, 412, 507))
    def reserve_pads(tag: Tag, body: ReservePads, user: Caller) -> ReserveReply:
        """Hold pads at these addresses. Once more is fine."""
        addresses = [bytes.fromhex(address) for address in body.addresses]
        return ReserveReply(new=pads.reserve(user, tag, body.index, body.seq, addresses))

    @router.post("/api/pad_stores/{tag}/erase", responses=problems(403, 404, 409, 412, 507))
    def erase_pads(tag: Tag, body: ErasePads, user: Caller) -> EraseReply:
        """Leave nothing in these pads but the headers that are given, which say that they are empty. All are checked
        before the first is touched."""
        secrets = [bytes.fromhex(pad.secret) for pad in body.pads]
        found = pads.erasable(user, tag, body.index, body.seq, secrets)
        raws = [bytes.fromhex(pad.header) for pad in body.pads]
        there = [(held, checked(raw, held, 0, _EMPTY), raw) for held, raw in zip(found, raws, strict=True) if held]
        for held, head, raw in there:
            pads.erase(held, head, raw)
        return EraseReply(erased=len(there))

    return router


def _with_pads(router: APIRouter, depot: Depot) -> APIRouter:
    pads = depot.pads

    @router.post("/api/pads/heads", responses=problems())
    def pad_heads(body: AskHeads, user: Caller) -> HeadsReply:
        """The headers of your pads at these addresses."""
        heads = pads.files.heads(pads.readable(user, [bytes.fromhex(address) for address in body.addresses]))
        return HeadsReply(headers=[None if head is None else head.hex() for head in heads])

    @router.post("/api/pads/confirm", responses=problems(404))
    def confirm_pad(body: ConfirmPad, user: Caller) -> ConfirmReply:
        """Read back what is stored."""
        head, digest = pads.files.read_back(_readable(depot, user, body.address), body.length)
        return ConfirmReply(header=head.hex(), digest=digest)

    @router.get("/api/pads/content", response_class=Response, responses=RANGED)
    async def pad_content(address: AddressHeader, request: Request, user: Caller) -> Response:
        """The header and the payload of your pad at this address; one range of them with a Range header."""
        pad = await asyncio.to_thread(_readable, depot, user, address)
        try:
            fd = await asyncio.to_thread(open_file, pads.files.path(pad))
        except FileNotFoundError:
            raise Refused(404, "Nothing was written to this pad yet") from None
        try:  # open from now on: should the pad be written meanwhile, the reply stays of one piece
            headers = {"Cache-Control": "no-store", "Vary": "Pad-Address"}
            return await ranged(request, os.fstat(fd).st_size, headers, lambda: fd)
        except BaseException:  # also a stop: nothing may stay open
            os.close(fd)
            raise

    @router.put("/api/pads/content", openapi_extra=BINARY_BODY, responses=problems(403, 404, 409, 411, 412, 503, 507))
    async def write_pad(
        secret: SecretHeader, index: IndexHeader, request: Request, response: Response, user: Caller
    ) -> WriteReply:
        """Write the pad that this secret opens: its payload, then its header, whose counter has to be above the one
        before. It is durable when the reply comes; until then the pad is what it was."""
        length = needed_length(request)
        held = await asyncio.to_thread(pads.writable, user, bytes.fromhex(secret), index)
        head = await depot.pad_receiver.receive(held, length, request.stream())
        return WriteReply(counter=head.counter, length=head.length, digest=head.digest.hex())

    return router


def _readable(depot: Depot, user: User, address: str) -> int:
    (pad,) = depot.pads.readable(user, [bytes.fromhex(address)])
    if pad is None:
        raise Refused(404, "You have no pad at this address")
    return pad


def _told(store: PadStore) -> StoreReply:
    return StoreReply(
        store_id=store.store_id.hex(), pad_size=store.pad_size, index=store.index, seq=store.seq, pads=store.pads
    )
