"""The permission tree, the ACL's answers, and records that a member signed itself."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import msgspec

from seipd.api.private import subnets
from seipd.api.routes import Access, Route
from services.edge.acl.rules import Question
from services.kernel.errors import ForbiddenError, InputError, NotFoundError
from services.kernel.ids import new_uuid, parse_key, parse_label, parse_uuid
from services.kernel.records import record_from_value

if TYPE_CHECKING:
    from seipd.api.routes import Call, Reply

MAX_LISTED = 1000
_SELF_KINDS = frozenset(
    {
        "tree.create",
        "tree.move",
        "tree.rename",
        "tree.remove",
        "tree.grant",
        "tree.revoke",
        "tree.advertise",
        "tree.approve",
        "tree.withdraw",
        "ipam.release",
        "dns.set",
        "dns.rm",
        "dns.split",
        "relay.register",
        "relay.retire",
        "acl.allow",
        "acl.deny",
        "acl.remove",
    }
)


class DeltaRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record of the tree, an ``ipam.release``, a DNS record or a rule, signed by its actor."""

    record: dict[str, Any]


class CustomerRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A customer to make, below the root unless a parent is named."""

    name: str
    parent: str | None = None


class NodeChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node, and what of it changes."""

    node: str
    name: str | None = None
    parent: str | None = None


class NodeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node by its id."""

    node: str


class GrantRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A capability for a key at a node; none takes it away."""

    node: str
    key: str
    capability: str | None = None


class CheckRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """May this key do this at that node?"""

    key: str
    action: str
    node: str


def _require_read(call: Call, node_id: str) -> None:
    """A stranger to a node gets the same answer as for one that is not there."""
    if call.operator or call.caller is None:
        return
    question = Question(key=call.caller.key, action="read", node_id=node_id)
    if not call.services.acl.check(question).allowed:
        raise NotFoundError(f"there is no node {node_id}")


async def _node(call: Call) -> Reply:
    node_id = parse_uuid(call.match("id"))
    _require_read(call, node_id)
    node = call.services.ledger.state.get("tree", node_id)
    if node is None:
        raise NotFoundError(f"there is no node {node_id}")
    kids = call.services.ledger.state.get("kids", node_id) or {"count": 0}
    return {"node_id": node_id, **node, "children": kids["count"]}


async def _root(call: Call) -> Reply:
    root: str = call.services.ledger.state.get("mesh", "root_node")
    return {"node_id": root}


async def _children(call: Call) -> Reply:
    node_id = parse_uuid(call.match("id"))
    _require_read(call, node_id)
    state = call.services.ledger.state
    if state.get("tree", node_id) is None:
        raise NotFoundError(f"there is no node {node_id}")
    cursor = call.query("cursor")

    found = [row for row in await call.services.tree.children(node_id) if row[0] > cursor]
    found.sort(key=lambda row: row[0])
    listed = [{"node_id": key, **node} for key, node in found[: MAX_LISTED + 1]]
    more = len(listed) > MAX_LISTED
    listed = listed[:MAX_LISTED]
    return {"children": listed, "cursor": listed[-1]["node_id"] if more else None}


async def _delta(call: Call) -> Reply:
    body: DeltaRequest = call.body
    record = record_from_value(body.record)
    if record.kind not in _SELF_KINDS:
        raise InputError(f"{record.kind} is not a change of the tree")
    if call.caller is not None and call.caller.key != record.actor:
        raise ForbiddenError("a record is handed in by its actor")
    (receipt,) = await call.services.ledger.submit([record])
    return {"record_id": receipt.record_id, "index": receipt.index, "hlc": receipt.hlc}


async def _submit(call: Call, kind: str, body: dict[str, Any]) -> Reply:
    (receipt,) = await call.services.ledger.submit([call.services.author.record(kind, body)])
    return {"record_id": receipt.record_id, **body}


async def _add(call: Call) -> Reply:
    body: CustomerRequest = call.body
    root = call.services.ledger.state.get("mesh", "root_node")
    node = {
        "node": new_uuid(secrets.token_bytes(16)),
        "kind": "customer",
        "parent": parse_uuid(body.parent or root),
        "name": parse_label(body.name),
    }
    return await _submit(call, "tree.create", node)


async def _set(call: Call) -> Reply:
    body: NodeChange = call.body
    if (body.name is None) == (body.parent is None):
        raise InputError("either a name or a parent changes")
    if body.name is not None:
        return await _submit(call, "tree.rename", {"node": body.node, "name": body.name})
    return await _submit(call, "tree.move", {"node": body.node, "parent": body.parent})


async def _remove(call: Call) -> Reply:
    body: NodeRequest = call.body
    return await _submit(call, "tree.remove", {"node": body.node})


async def _grant(call: Call) -> Reply:
    body: GrantRequest = call.body
    parse_key(body.key)
    if body.capability is None:
        return await _submit(call, "tree.revoke", {"node": body.node, "key": body.key})
    grant = {"node": body.node, "key": body.key, "capability": body.capability}
    return await _submit(call, "tree.grant", grant)


async def _check(call: Call) -> Reply:
    body: CheckRequest = call.body
    question = Question(key=parse_key(body.key), action=body.action, node_id=body.node)
    answer = call.services.acl.check(question)
    return {"allowed": answer.allowed, "reason": answer.reason, "path": list(answer.path)}


ROUTES = (
    Route(
        method="GET",
        path="/api/tree/root",
        handler=_root,
        summary="The id of the root node",
        access=Access.OPERATOR,
    ),
    Route(
        method="GET",
        path="/api/tree/node/{id}",
        handler=_node,
        summary="One node",
        access=Access.MEMBER,
    ),
    Route(
        method="GET",
        path="/api/tree/children/{id}",
        handler=_children,
        summary="The nodes below one, by pages",
        access=Access.MEMBER,
    ),
    Route(
        method="POST",
        path="/api/tree/delta",
        handler=_delta,
        summary="Append a record of the tree that the caller signed",
        access=Access.MEMBER,
        body=DeltaRequest,
        status=201,
    ),
    Route(
        method="POST",
        path="/api/tree/add",
        handler=_add,
        summary="Make a customer",
        access=Access.OPERATOR,
        body=CustomerRequest,
        status=201,
    ),
    Route(
        method="POST",
        path="/api/tree/set",
        handler=_set,
        summary="Rename or move a node",
        access=Access.OPERATOR,
        body=NodeChange,
    ),
    Route(
        method="POST",
        path="/api/tree/remove",
        handler=_remove,
        summary="Remove a node and free its address",
        access=Access.OPERATOR,
        body=NodeRequest,
    ),
    Route(
        method="POST",
        path="/api/tree/grant",
        handler=_grant,
        summary="Grant a capability, or take it away",
        access=Access.OPERATOR,
        body=GrantRequest,
    ),
    Route(
        method="POST",
        path="/api/acl/check",
        handler=_check,
        summary="May a key do something at a node, and why",
        access=Access.OPERATOR,
        body=CheckRequest,
    ),
    *subnets.ROUTES,
)
