"""What an endpoint asks of its server: its peers, its own state, a sign of life."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from seipd.api.private import proofs, subnets
from seipd.api.private.subnets import own_node
from seipd.api.routes import Access, Route
from services.kernel.addr import parse_address, tunnel6

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply

MAX_LISTED = 1000


class Heartbeat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing but the call itself."""


async def _peers(call: Call) -> Reply:
    node = own_node(call)
    mesh_id = call.services.ledger.mesh_id
    found = [
        (key, one)
        for key, one in await call.services.tree.children(node["parent"])
        if "address" in one and key != call.match("node")
    ]
    found.sort(key=lambda row: str(row[1]["name"]))
    listed = [
        {
            "node_id": key,
            "name": one["name"],
            "address": one["address"],
            "address6": str(tunnel6(mesh_id, parse_address(one["address"]))),
            "wireguard_key": one["wireguard_key"],
            "path": "server",
        }
        for key, one in found[:MAX_LISTED]
    ]
    return {"peers": listed, "total": len(found)}


async def _node_status(call: Call) -> Reply:
    node = own_node(call)
    peers = await call.services.mesh.peers()
    held = next((one for one in peers if one["public_key"] == node["wireguard_key"]), None)
    return {
        "node_id": call.match("node"),
        "name": node["name"],
        "tunnel_address": node.get("address"),
        "server_id": node["server"],
        "last_handshake_seconds": held["last_handshake_seconds"] if held else None,
    }


async def _heartbeat(call: Call) -> Reply:
    return {"now_ms": call.services.clock.now_ms()}


ROUTES = (
    Route(
        method="GET",
        path="/api/mesh/peers/{node}",
        handler=_peers,
        summary="The endpoints of the caller's customer",
        access=Access.MEMBER,
    ),
    Route(
        method="GET",
        path="/api/mesh/status/{node}",
        handler=_node_status,
        summary="How the server sees the caller",
        access=Access.MEMBER,
    ),
    Route(
        method="POST",
        path="/api/mesh/heartbeat",
        handler=_heartbeat,
        summary="A sign of life",
        access=Access.MEMBER,
        body=Heartbeat,
    ),
    Route(
        method="GET",
        path="/api/mesh/routes/{node}",
        handler=subnets.carried_for,
        summary="Who carries subnets for the endpoints of the caller's customer",
        access=Access.MEMBER,
    ),
    *proofs.ROUTES,
)
