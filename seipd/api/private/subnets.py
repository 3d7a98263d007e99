"""Subnets behind endpoints and ways out: what is offered, what is approved, who carries what."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from seipd.api.finding import find_endpoint
from seipd.api.routes import Access, Route
from services.authority.tree.prefixes import EXIT, parse_prefix
from services.authority.tree.routes import is_approved, routes_of
from services.kernel.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from seipd.api.routes import Call, Reply

MAX_ROUTERS = 1000
MAX_MEMBERS = 65_536

Node = dict[str, Any]


class RouteRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An endpoint, by its id, tunnel address or name, and a prefix or ``exit``."""

    node: str
    route: str


async def carried_for(call: Call) -> Reply:
    """Answer with the routers of the caller's customer; a router hears whom it carries for."""
    node = own_node(call)
    of_customer = await call.services.tree.children(node["parent"])
    found = [(key, one) for key, one in of_customer if "address" in one]
    routers = [
        {
            "node_id": node_id,
            "name": one["name"],
            "address": one["address"],
            "wireguard_key": one["wireguard_key"],
            "routes": list(routes_of(one)),
            "exit": bool(one.get("exit")),
        }
        for node_id, one in found
        if routes_of(one) or one.get("exit")
    ]
    is_router = bool(routes_of(node) or node.get("exit"))
    asked = node.get("asked", {"prefixes": [], "exit": False, "serial": 0})
    return {
        "routers": sorted(routers, key=lambda one: one["node_id"])[:MAX_ROUTERS],
        "own": {"routes": list(routes_of(node)), "exit": bool(node.get("exit")), "asked": asked},
        "members": [one["address"] for _, one in found][:MAX_MEMBERS] if is_router else [],
    }


def own_node(call: Call) -> Node:
    """Return the caller's own node; anybody else's is not there.

    Raises:
        NotFoundError: it is somebody else's, or no endpoint's.
    """
    node_id = call.match("node")
    if not call.operator and (call.caller is None or call.caller.node_id != node_id):
        raise NotFoundError(f"there is no node {node_id}")
    node: Node | None = call.services.ledger.state.get("tree", node_id)
    if node is None or node["kind"] != "endpoint":
        raise NotFoundError(f"there is no endpoint {node_id}")
    return node


async def _list(call: Call) -> Reply:
    nodes = call.services.ledger.state.scan("tree")
    rows = await asyncio.to_thread(lambda: list(_offered(call, nodes)))
    return {"routes": sorted(rows, key=lambda one: (one["customer"], one["name"], one["route"]))}


def _offered(call: Call, nodes: Iterable[tuple[str, str, Node]]) -> Iterator[dict[str, Any]]:
    state = call.services.ledger.state
    for _, node_id, node in nodes:
        asked = node.get("asked")
        if asked is None:
            continue
        customer = state.get("tree", node["parent"]) or {"name": node["parent"]}
        for route in [*asked["prefixes"], *([EXIT] if asked["exit"] else [])]:
            yield {
                "node_id": node_id,
                "name": node["name"],
                "address": node.get("address"),
                "customer": customer["name"],
                "route": route,
                "approved": is_approved(node, route),
            }


async def _approve(call: Call) -> Reply:
    return await _submit(call, "tree.approve")


async def _withdraw(call: Call) -> Reply:
    return await _submit(call, "tree.withdraw")


async def _submit(call: Call, kind: str) -> Reply:
    asked: RouteRequest = call.body
    route = asked.route if asked.route == EXIT else str(parse_prefix(asked.route))
    node_id = await asyncio.to_thread(find_endpoint, call.services.ledger.state, asked.node)
    body = {"node": node_id, "route": route}
    (receipt,) = await call.services.ledger.submit([call.services.author.record(kind, body)])
    return {"record_id": receipt.record_id, **body}


ROUTES = (
    Route(
        method="GET",
        path="/api/tree/routes",
        handler=_list,
        summary="Subnets and exits that endpoints offer, and which of them are approved",
        access=Access.OPERATOR,
    ),
    Route(
        method="POST",
        path="/api/tree/routes/approve",
        handler=_approve,
        summary="Let an endpoint carry a subnet, or be an exit",
        access=Access.OPERATOR,
        body=RouteRequest,
    ),
    Route(
        method="POST",
        path="/api/tree/routes/withdraw",
        handler=_withdraw,
        summary="Let an endpoint carry it no more",
        access=Access.OPERATOR,
        body=RouteRequest,
    ),
)
