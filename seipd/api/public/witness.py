"""This server as a witness of the mesh's feeds (C2SP tlog-witness), for anyone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from seipd.api.routes import Access, Route
from services.base.ledger.witness import StaleSizeError

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply


async def _add_checkpoint(call: Call) -> Reply:
    try:
        line = await call.services.ledger.witness.add_checkpoint(call.body)
    except StaleSizeError as error:
        return web.Response(
            status=409, body=f"{error.size}\n".encode(), content_type="text/x.tlog.size"
        )
    return _text(line)


async def _checkpoint(call: Call) -> Reply:
    return _text(call.services.ledger.witness.newest(call.match("origin_hash")))


async def _vkey(call: Call) -> Reply:
    witness = call.services.ledger.witness
    return {"name": witness.name, "vkey": witness.vkey}


def _text(data: bytes) -> web.Response:
    return web.Response(
        body=data,
        content_type="text/plain",
        charset="utf-8",
        headers={"Cache-Control": "no-cache"},
    )


ROUTES = (
    Route(
        method="POST",
        path="/witness/add-checkpoint",
        handler=_add_checkpoint,
        summary="Co-sign a feed's checkpoint that follows what is held (C2SP tlog-witness)",
        access=Access.ANYONE,
        is_text=True,
    ),
    Route(
        method="GET",
        path="/witness/{origin_hash}/checkpoint",
        handler=_checkpoint,
        summary="The newest checkpoint held of a feed, co-signed, by the SHA-256 of its origin",
        access=Access.ANYONE,
    ),
    Route(
        method="GET",
        path="/witness/vkey",
        handler=_vkey,
        summary="The verifier key of this witness",
        access=Access.ANYONE,
    ),
)
