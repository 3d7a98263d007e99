"""Records that a test writes, and what becomes of them."""

from __future__ import annotations

from services.kernel.ids import b64u_encode, node_id_of
from tests.fakes.world import World, key_of

ACME = "00000000-0000-4000-8000-000000000101"

BETA = "00000000-0000-4000-8000-000000000102"


def outcome(world: World, record, server_number: int = 0) -> str | None:
    """Write one record and return why it has no effect, or None."""
    server = world.servers[server_number]
    server.hlc = max(one.hlc for one in world.servers)
    index = world.write(server, record)
    fold = world.folded()
    found = [
        one for one in fold.items_of([record.id]) if (one.author, one.index) == (server.id, index)
    ]
    return found[0].refusal


def customer(world: World, node: str, name: str, parent: str | None = None):
    body = {"node": node, "kind": "customer", "parent": parent or world.root_node, "name": name}
    return world.signed(world.servers[0].key, "tree.create", body)


def grant(world: World, key: bytes, capability: str, node: str | None = None, by=None):
    body = {"node": node or world.root_node, "key": b64u_encode(key), "capability": capability}
    return world.signed(by or world.root, "tree.grant", body)


def joined(world: World, name: str = "laptop", server_number: int = 0):
    server = world.servers[server_number]
    server.hlc = max(one.hlc for one in world.servers)
    invite_id, seed = world.invite(server, f"for {name}")
    assert outcome(world, world.redeem(name, invite_id, seed), server_number) is None
    return node_id_of(key_of(f"endpoint {name}").public_key)
