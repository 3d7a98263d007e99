"""The mesh's logs for anyone (C2SP tlog-tiles), and "is this still good?"."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from seipd.api.routes import Access, Route
from services.kernel import canonical
from services.kernel.errors import NotFoundError, UnavailableError
from services.kernel.ids import ServerId, b64u_encode

if TYPE_CHECKING:
    from pathlib import Path

    from seipd.api.routes import Call, Reply

MAX_TILE_BYTES = 256 * 65_537 + 512
_IMMUTABLE = "public, max-age=31536000, immutable"


async def _checkpoint(call: Call) -> Reply:
    log = call.services.ledger.log(_server_of(call))
    data = await asyncio.to_thread(log.published_checkpoint)
    return web.Response(
        body=data,
        content_type="text/plain",
        charset="utf-8",
        headers={"Cache-Control": "no-cache"},
    )


async def _tile(call: Call) -> Reply:
    log = call.services.ledger.log(_server_of(call))
    path = log.hash_tile_path(call.match("tile"))
    return await _send(path)


async def _bundle(call: Call) -> Reply:
    log = call.services.ledger.log(_server_of(call))
    path = log.bundle_path(call.match("tile"))
    return await _send(path)


async def _state(call: Call) -> Reply:
    """A line of JSON with the witnesses' words, then the state file that they agree on."""
    ledger = call.services.ledger
    agreed = call.services.mesh.agreed_state()
    if agreed is None:
        raise UnavailableError(
            "too few witnesses agree on a state now",
            code="no_agreed_state",
            mend="try again in half a minute, or begin from the first record",
        )
    word, facts = agreed
    data = await ledger.state_file(word)
    line = canonical.encode({"facts": [b64u_encode(fact) for fact in facts]})
    return web.Response(body=line + b"\n" + data, content_type="application/octet-stream")


async def _send(path: Path) -> Reply:
    try:
        data = await asyncio.to_thread(path.read_bytes)
    except FileNotFoundError:
        raise NotFoundError("there is no such tile") from None
    return web.Response(
        body=data,
        content_type="application/octet-stream",
        headers={"Cache-Control": _IMMUTABLE},
    )


def _server_of(call: Call) -> str:
    name = call.request.match_info.get("server")
    return name if name is not None else call.services.ledger.server_id


async def _verify(call: Call) -> Reply:
    """Valid, revoked, expired or unknown, and nothing of what stands behind it."""
    public_id = call.match("public_id")
    ledger = call.services.ledger
    charter = ledger.charter
    if ServerId(public_id) in charter.servers():
        return {"public_id": public_id, "status": "valid"}
    if charter.was_server(ServerId(public_id)):
        return {"public_id": public_id, "status": "revoked"}
    known = ledger.state.get("tree", public_id) or ledger.state.get("id", public_id)
    return {"public_id": public_id, "status": "valid" if known else "unknown"}


def _module_routes(prefix: str) -> tuple[Route, ...]:
    return (
        Route(
            method="GET",
            path=f"/ledger/{prefix}/checkpoint",
            handler=_checkpoint,
            summary="The newest published checkpoint of a feed",
            access=Access.ANYONE,
        ),
        Route(
            method="GET",
            path=f"/ledger/{prefix}/tile/entries/{{tile:.+}}",
            handler=_bundle,
            summary="An entry bundle; for servers of the mesh",
            access=Access.SERVER,
        ),
        Route(
            method="GET",
            path=f"/ledger/{prefix}/tile/{{tile:.+}}",
            handler=_tile,
            summary="A hash tile",
            access=Access.ANYONE,
        ),
    )


ROUTES = (
    Route(
        method="GET",
        path="/verify/{public_id}",
        handler=_verify,
        summary="Is this certificate, node or record good?",
        access=Access.ANYONE,
    ),
    Route(
        method="GET",
        path="/ledger/state",
        handler=_state,
        summary="The state that the witnesses agree on, for a server that begins",
        access=Access.SERVER,
    ),
    *_module_routes("feeds/{server}"),
    *_module_routes("feed"),
)
