"""The permission tree: a root, customers below it, endpoints below customers.

    tree/<node>            {kind, name, parent, record, …}; an endpoint also has key, wireguard_key,
                           server (who enrolled it), once assigned address, and once it moved
                           at (the server that carries it) and moves (how often it did)
    kids/<node>            {count, height}: children, and an upper bound of the levels below
    name/<parent>/<name>   the node of that name
    wg/<wireguard key>     the node that holds it
    grant/<node>/<key>     {capability, made, record}; made is the record that made the node
    admins/<node>          how many keys are granted admin there

Kinds: ``tree.create``, ``tree.move``, ``tree.rename``, ``tree.remove``, ``tree.attach``,
``tree.grant``, ``tree.revoke``. Endpoints are born by ``auth.redeem``; their node is made here.
What they carry for others is in ``routes``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from services.authority.tree.permissions import (
    CAPABILITIES,
    MAX_DEPTH,
    Capability,
    ancestors,
    grant_of,
    held_capability,
    require,
)
from services.authority.tree.prefixes import let_go
from services.kernel.errors import InputError, RejectedError
from services.kernel.ids import (
    NodeId,
    b64u_encode,
    node_id_of,
    parse_hostname,
    parse_key,
    parse_label,
    parse_uuid,
)

if TYPE_CHECKING:
    from services.kernel.views import Appliers, FoldContext, StateReader, StateWriter


def fields(body: dict[str, Any], *names: str) -> list[Any]:
    """Return the values of a body that has exactly these fields, all of them text.

    Raises:
        InputError: a field is missing, unknown, or not text.
    """
    if body.keys() != set(names):
        raise InputError(f"the body has exactly the fields {', '.join(names)}")
    values = [body[name] for name in names]
    if not all(isinstance(value, str) for value in values):
        raise InputError(f"{', '.join(names)} must be text")
    return values


def node_of(state: StateReader, node_id: str) -> dict[str, Any]:
    """Return a node.

    Raises:
        RejectedError: ``rejected_orphan``: there is none.
    """
    node: dict[str, Any] | None = state.get("tree", node_id)
    if node is None:
        raise RejectedError(f"there is no node {node_id}", code="rejected_orphan")
    return node


def create_endpoint(
    context: FoldContext,
    *,
    parent: str,
    name: str,
    wireguard_key: str,
) -> NodeId:
    """Make the node of an endpoint whose own key signs the record.

    A name that is taken gets the node id's first digits appended: two sides of a cut network may
    have chosen the same, and neither person's machine is thrown out for it.

    Raises:
        RejectedError: the key is enrolled already, or the parent is no customer.
    """
    state = context.state
    node_id = node_id_of(context.record.actor)
    if node_of(state, parent)["kind"] != "customer":
        raise RejectedError("endpoints live below customers", code="rejected_scope")
    if state.get("tree", node_id) is not None or state.get("wg", wireguard_key) is not None:
        raise RejectedError("this key is enrolled already", code="key_in_use")
    if state.get("name", f"{parent}/{name}") is not None:
        name = f"{name[:58]}-{node_id[:4]}"
    node = {
        "kind": "endpoint",
        "name": name,
        "parent": parent,
        "key": b64u_encode(context.record.actor),
        "wireguard_key": wireguard_key,
        "server": context.author.server_id,
        "record": context.record.id,
    }
    _insert(state, node_id, node)
    state.put("wg", wireguard_key, node_id)
    return node_id


def remove_node(state: StateWriter, node_id: str, node: dict[str, Any]) -> None:
    """Take a node out of the tree, its name, WireGuard key and routes with it."""
    state.delete("tree", node_id)
    for prefix in node.get("routes", ()):
        let_go(state, prefix)
    state.delete("name", f"{node['parent']}/{node['name']}")
    if "wireguard_key" in node:
        state.delete("wg", node["wireguard_key"])
    state.delete("kids", node_id)
    state.delete("admins", node_id)
    _count(state, node["parent"], -1)


def _insert(state: StateWriter, node_id: str, node: dict[str, Any]) -> None:
    parent = node["parent"]
    place = f"{parent}/{node['name']}"
    if state.get("name", place) is not None:
        raise RejectedError(f"{node['name']} is taken there", code="name_in_use")
    path = ancestors(state, parent)
    if len(path) + 1 > MAX_DEPTH:
        raise RejectedError(f"a tree is at most {MAX_DEPTH} deep", code="limit_exceeded")
    state.put("tree", node_id, node)
    state.put("name", place, node_id)
    _count(state, parent, 1)
    _raise_heights(state, path, 1)


def _count(state: StateWriter, node_id: str, step: int) -> None:
    kids = state.get("kids", node_id) or {"count": 0, "height": 0}
    state.put("kids", node_id, {**kids, "count": kids["count"] + step})


def _raise_heights(state: StateWriter, path: list[str], height: int) -> None:
    for above, node_id in enumerate(path):
        kids = state.get("kids", node_id) or {"count": 0, "height": 0}
        if kids["height"] >= height + above:
            return
        state.put("kids", node_id, {**kids, "height": height + above})


def _create(context: FoldContext, body: dict[str, Any]) -> None:
    state = context.state
    if body.get("kind") == "root":
        _create_root(context, body)
        return
    node_text, kind, parent, name = fields(body, "node", "kind", "parent", "name")
    node_id = parse_uuid(node_text)
    if kind != "customer":
        raise InputError("tree.create makes customers; endpoints come by auth.redeem")
    if node_of(state, parent)["kind"] == "endpoint":
        raise RejectedError("an endpoint has no children", code="rejected_scope")
    require(context, parent, Capability.OPERATE)
    node = {"kind": kind, "name": parse_label(name), "parent": parent, "record": context.record.id}
    if (held := state.get("tree", node_id)) is not None:
        same = {**held, "record": ""} == {**node, "record": ""}
        raise RejectedError(
            "this node exists", code="duplicate_id" if same else "rejected_conflict"
        )
    _insert(state, node_id, node)


def _create_root(context: FoldContext, body: dict[str, Any]) -> None:
    node_id, _ = fields(body, "node", "kind")
    if context.record.actor not in context.root_keys or node_id != node_id_of(context.record.actor):
        raise RejectedError("only the root key makes the root", code="rejected_unauthorised")
    if context.state.get("tree", node_id) is not None:
        raise RejectedError("there is a root", code="rejected_conflict")
    context.state.put(
        "tree",
        node_id,
        {"kind": "root", "name": "root", "parent": None, "record": context.record.id},
    )
    context.state.put("mesh", "root_node", node_id)


def _move(context: FoldContext, body: dict[str, Any]) -> None:
    state = context.state
    node_id, parent = fields(body, "node", "parent")
    node = node_of(state, node_id)
    if node["kind"] != "customer" or node_of(state, parent)["kind"] == "endpoint":
        raise RejectedError("only customers move, and not below endpoints", code="rejected_scope")
    require(context, node["parent"], Capability.OPERATE)
    require(context, parent, Capability.OPERATE)
    path = ancestors(state, parent)
    if node_id in path:
        raise RejectedError("a node can't move below itself", code="rejected_cycle")
    height = (state.get("kids", node_id) or {"height": 0})["height"]
    if len(path) + 1 + height > MAX_DEPTH:
        raise RejectedError(f"a tree is at most {MAX_DEPTH} deep", code="limit_exceeded")
    if state.get("name", f"{parent}/{node['name']}") is not None:
        raise RejectedError(f"{node['name']} is taken there", code="name_in_use")
    state.delete("name", f"{node['parent']}/{node['name']}")
    _count(state, node["parent"], -1)
    state.put("tree", node_id, {**node, "parent": parent})
    state.put("name", f"{parent}/{node['name']}", node_id)
    _count(state, parent, 1)
    _raise_heights(state, path, height + 1)


def _rename(context: FoldContext, body: dict[str, Any]) -> None:
    state = context.state
    node_id, name = fields(body, "node", "name")
    node = node_of(state, node_id)
    if node["kind"] == "root":
        raise RejectedError("the root has no other name", code="rejected_scope")
    if node.get("key") != b64u_encode(context.record.actor):
        require(context, node["parent"], Capability.OPERATE)
    name = parse_hostname(name) if node["kind"] == "endpoint" else parse_label(name)
    place = f"{node['parent']}/{name}"
    if state.get("name", place) is not None:
        raise RejectedError(f"{name} is taken there", code="name_in_use")
    state.delete("name", f"{node['parent']}/{node['name']}")
    state.put("name", place, node_id)
    state.put("tree", node_id, {**node, "name": name})


def _remove(context: FoldContext, body: dict[str, Any]) -> None:
    state = context.state
    (node_id,) = fields(body, "node")
    node = node_of(state, node_id)
    if node["kind"] == "root":
        raise RejectedError("the root stays", code="rejected_lockout")
    if node.get("key") != b64u_encode(context.record.actor):
        require(context, node["parent"], Capability.OPERATE)
    if (state.get("kids", node_id) or {"count": 0})["count"]:
        raise RejectedError("it has children", code="rejected_not_empty", mend="remove them first")
    if "address" in node:
        state.delete("ipam", node["address"])
    remove_node(state, node_id, node)


def _attach(context: FoldContext, body: dict[str, Any]) -> None:
    """Let an endpoint go to another server; its own key says so, in the feed of that server."""
    state, moves = context.state, body.get("moves")
    if body.keys() != {"node", "server", "moves"} or type(moves) is not int:
        raise InputError("tree.attach has the fields node, server and moves, a number")
    node = node_of(state, str(body["node"]))
    if node.get("key") != b64u_encode(context.record.actor):
        raise RejectedError("an endpoint moves by its own key", code="rejected_unauthorised")
    if body["server"] != context.author.server_id:
        raise RejectedError("a server takes in for itself alone", code="rejected_scope")
    if moves <= node.get("moves", 0):
        raise RejectedError("it moved since", code="stale")
    state.put("tree", body["node"], {**node, "at": body["server"], "moves": moves})


def _grant(context: FoldContext, body: dict[str, Any]) -> None:
    state = context.state
    node_id, key_text, name = fields(body, "node", "key", "capability")
    node = node_of(state, node_id)
    parse_key(key_text)
    wanted = CAPABILITIES.get(name)
    if wanted is None:
        raise InputError(f"a capability is one of {', '.join(CAPABILITIES)}")
    held = held_capability(
        state, context.roster, context.root_keys, key=context.record.actor, node_id=node_id
    )
    if wanted > held.capability:
        raise RejectedError("nobody grants more than it holds", code="rejected_escalation")
    require(context, node_id, Capability.ADMIN)
    if key_text == b64u_encode(context.record.actor):
        raise RejectedError("nobody grants to itself", code="rejected_escalation")
    before = (grant_of(state, node_id, key_text) or {"capability": ""})["capability"]
    if before == "admin" != name:
        _keep_an_admin(state, node_id, node)
    grant = {"capability": name, "made": node["record"], "record": context.record.id}
    state.put("grant", f"{node_id}/{key_text}", grant)
    _count_admins(state, node_id, (name == "admin") - (before == "admin"))


def _revoke(context: FoldContext, body: dict[str, Any]) -> None:
    state = context.state
    node_id, key_text = fields(body, "node", "key")
    node = node_of(state, node_id)
    require(context, node_id, Capability.ADMIN)
    grant = grant_of(state, node_id, key_text)
    if grant is None:
        raise RejectedError("there is no such grant", code="rejected_orphan")
    if key_text == b64u_encode(context.record.actor):
        raise RejectedError("nobody takes from itself", code="rejected_lockout")
    if grant["capability"] == "admin":
        _keep_an_admin(state, node_id, node)
        _count_admins(state, node_id, -1)
    state.delete("grant", f"{node_id}/{key_text}")


def _keep_an_admin(state: StateReader, node_id: str, node: dict[str, Any]) -> None:
    if node["kind"] == "root" and state.get("admins", node_id) == 1:
        raise RejectedError("the last admin of the root stays", code="rejected_lockout")


def _count_admins(state: StateWriter, node_id: str, step: int) -> None:
    if step:
        state.put("admins", node_id, (state.get("admins", node_id) or 0) + step)


APPLIERS: Appliers = {
    "tree.create": _create,
    "tree.move": _move,
    "tree.rename": _rename,
    "tree.remove": _remove,
    "tree.attach": _attach,
    "tree.grant": _grant,
    "tree.revoke": _revoke,
}
