"""What an endpoint asks of its server: its peers, its own state, a sign of life."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from seipd.api.private import proofs, subnets
from seipd.api.private.subnets import own_node
from seipd.api.routes import Access, Route
from services.kernel.addr import parse_address, tunnel6

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply

MAX_LISTED = 1000
MAX_LOOKED_UP = 64

_Address = Annotated[str, msgspec.Meta(max_length=15)]


class Heartbeat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing but the call itself."""


class Lookup(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tunnel addresses whose endpoints are asked for."""

    addresses: Annotated[list[_Address], msgspec.Meta(max_length=MAX_LOOKED_UP)]


async def _peers(call: Call) -> Reply:
    node = own_node(call)
    found = [
        (key, one)
        for key, one in await call.services.tree.children(node["parent"])
        if "address" in one and key != call.match("node")
    ]
    found.sort(key=lambda row: str(row[1]["name"]))
    return {
        "peers": [_shown(call, key, one) for key, one in found[:MAX_LISTED]],
        "total": len(found),
    }


async def _looked_up(call: Call) -> Reply:
    """Tell who holds addresses, of whichever customer, as far as the rules let the caller meet."""
    own_node(call)
    body: Lookup = call.body
    own_id, state = call.match("node"), call.services.ledger.state
    listed = []
    for address in dict.fromkeys(str(parse_address(text)) for text in body.addresses):
        node_id = state.get("ipam", address)
        node = state.get("tree", node_id) if node_id is not None else None
        if node is None or node["kind"] != "endpoint" or node_id == own_id:
            continue
        if node.get("address") == address and call.services.acl.may_meet(own_id, node_id):
            listed.append(_shown(call, node_id, node))
    return {"peers": listed, "total": len(listed)}


def _shown(call: Call, node_id: str, node: dict[str, Any]) -> dict[str, str]:
    address6 = tunnel6(call.services.ledger.mesh_id, parse_address(node["address"]))
    return {
        "node_id": node_id,
        "name": node["name"],
        "address": node["address"],
        "address6": str(address6),
        "wireguard_key": node["wireguard_key"],
        "path": "server",
    }


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
        method="POST",
        path="/api/mesh/peers/{node}",
        handler=_looked_up,
        summary="The endpoints at addresses that the caller may talk to, of any customer",
        access=Access.MEMBER,
        body=Lookup,
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
