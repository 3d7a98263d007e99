"""Subnets behind endpoints, and ways out: asked for by an endpoint, approved by an operator.

    tree/<node>    of an endpoint, beside what ``view`` tells: asked {exit, prefixes, serial}: what
                   it offers; routes: the prefixes of these that were approved, sorted; exit: true
                   where it may carry everything

Kinds: ``tree.advertise``, ``tree.approve``, ``tree.withdraw``. What an endpoint offers no more is
approved no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.authority.tree.permissions import Capability, require
from services.authority.tree.prefixes import (
    EXIT,
    MAX_PREFIXES,
    hold,
    let_go,
    parse_prefix,
    require_free,
)
from services.authority.tree.view import fields, node_of
from services.kernel.errors import InputError, RejectedError
from services.kernel.ids import b64u_encode

if TYPE_CHECKING:
    from services.kernel.views import Appliers, FoldContext

Node = dict[str, Any]


def parse_prefixes(value: object) -> list[str]:
    """Parse what an endpoint offers: prefixes in their one spelling, sorted, each once.

    Raises:
        InputError: ``bad_cidr``, ``bad_field``.
    """
    if not isinstance(value, list) or len(value) > MAX_PREFIXES:
        raise InputError(f"prefixes are a list of at most {MAX_PREFIXES}")
    texts = [str(parse_prefix(text)) for text in value]
    if texts != sorted(set(texts)):
        raise InputError("prefixes stand sorted, each once")
    return texts


def _advertise(context: FoldContext, body: dict[str, Any]) -> None:
    """Take what an endpoint offers to carry; its own key says so."""
    if body.keys() != {"node", "prefixes", "exit", "serial"}:
        raise InputError("tree.advertise has the fields node, prefixes, exit and serial")
    node_id, is_exit, serial = str(body["node"]), body["exit"], body["serial"]
    if type(is_exit) is not bool or type(serial) is not int:
        raise InputError("exit is true or false, serial a number")
    prefixes = parse_prefixes(body["prefixes"])
    node = node_of(context.state, node_id)
    if node.get("key") != b64u_encode(context.record.actor):
        raise RejectedError("an endpoint offers by its own key", code="rejected_unauthorised")
    if serial <= node.get("asked", {"serial": 0})["serial"]:
        raise RejectedError("it offered something else since", code="stale")
    for prefix in node.get("routes", ()):
        if prefix not in prefixes:
            node = _without(context, node, prefix)
    if not is_exit:
        node = _but(node, "exit")
    asked = {"prefixes": prefixes, "exit": is_exit, "serial": serial}
    context.state.put("tree", node_id, {**node, "asked": asked})


def _approve(context: FoldContext, body: dict[str, Any]) -> None:
    node_id, route, node = _of_operator(context, body)
    asked = node.get("asked", {"prefixes": [], "exit": False})
    if route not in asked["prefixes"] and not (route == EXIT and asked["exit"]):
        raise RejectedError(f"{node['name']} does not offer {route}", code="rejected_orphan")
    if is_approved(node, route):
        raise RejectedError(f"{route} is approved already", code="duplicate_id")
    if route == EXIT:
        context.state.put("tree", node_id, {**node, "exit": True})
        return
    network = parse_prefix(route)
    require_free(context, node_id, network)
    hold(context.state, node_id, network)
    routes = sorted([*node.get("routes", ()), route])
    context.state.put("tree", node_id, {**node, "routes": routes})


def _withdraw(context: FoldContext, body: dict[str, Any]) -> None:
    node_id, route, node = _of_operator(context, body)
    if not is_approved(node, route):
        raise RejectedError(f"{route} is not approved", code="rejected_orphan")
    node = _but(node, "exit") if route == EXIT else _without(context, node, route)
    context.state.put("tree", node_id, node)


def is_approved(node: Node, route: str) -> bool:
    """Say whether an endpoint may carry a prefix, or everything."""
    return bool(node.get("exit")) if route == EXIT else route in node.get("routes", ())


def routes_of(node: Node | None) -> tuple[str, ...]:
    """Return the prefixes that an endpoint carries for others."""
    return tuple(node.get("routes", ())) if node is not None else ()


def _of_operator(context: FoldContext, body: dict[str, Any]) -> tuple[str, str, Node]:
    node_id, route = fields(body, "node", "route")
    if route != EXIT:
        parse_prefix(route)
    node = node_of(context.state, node_id)
    if node["kind"] != "endpoint":
        raise RejectedError("endpoints carry subnets, nobody else", code="rejected_scope")
    require(context, node["parent"], Capability.OPERATE)
    return node_id, route, node


def _without(context: FoldContext, node: Node, prefix: str) -> Node:
    let_go(context.state, prefix)
    rest = [one for one in node["routes"] if one != prefix]
    return {**node, "routes": rest} if rest else _but(node, "routes")


def _but(node: Node, field: str) -> Node:
    return {name: value for name, value in node.items() if name != field}


APPLIERS: Appliers = {
    "tree.advertise": _advertise,
    "tree.approve": _approve,
    "tree.withdraw": _withdraw,
}
