"""Addresses: who holds which, out of whose slice.

    ipam/<address>              the node that holds a tunnel address
    block/<cidr>                {customer, pool, record, server}
    blocks/<pool>/<slice>       which /30s of the slice's chunk are taken, as a hexadecimal bitmap

Kinds: ``ipam.assign``, ``ipam.release``, ``ipam.block``, ``ipam.unblock``. A server assigns from
its own slices alone, and blocks from the chunks of ``private`` and ``shared`` that go with them:
the roster settles who that is, so two servers that can't see each other never give the same thing.
"""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

from services.authority.tree.permissions import Capability, require
from services.authority.tree.view import fields, node_of
from services.kernel.addr import (
    BLOCK_PREFIX,
    Ranges,
    assignable,
    parse_address,
    parse_network,
    ranges_from_value,
)
from services.kernel.errors import InputError, RejectedError
from services.kernel.ids import b64u_encode

if TYPE_CHECKING:
    from services.base.ledger.state import State
    from services.kernel.views import Appliers, FoldContext, StateReader

POOLS = ("private", "shared")


def ranges_of(state: StateReader) -> Ranges:
    """Return the ranges of the mesh."""
    return ranges_from_value(state.get("mesh", "genesis")["body"]["ranges"])


def slice_of(slices: tuple[str, ...], address_text: str) -> IPv4Network | None:
    """Return which of these slices holds an address that an endpoint may have, or None."""
    address = parse_address(address_text)
    for text in slices:
        network = IPv4Network(text)
        if address in network:
            return network if assignable(network, address) else None
    return None


def block_bits(chunk: IPv4Network, block: IPv4Network) -> int:
    """Return the bits of a block in its chunk's bitmap."""
    first = (int(block.network_address) - int(chunk.network_address)) >> (32 - BLOCK_PREFIX)
    return ((1 << (1 << (BLOCK_PREFIX - block.prefixlen))) - 1) << first


def chunk_of(
    ranges: Ranges, slices: tuple[str, ...], pool: str, block: IPv4Network
) -> tuple[int, IPv4Network] | None:
    """Return the number of the slice whose chunk holds a block, and the chunk."""
    for text in slices:
        number = ranges.slice_number(IPv4Network(text))
        chunk = ranges.chunk(pool, number)
        if chunk.supernet_of(block):
            return number, chunk
    return None


def contradictions(state: State) -> list[str]:
    """Return where addresses and tree disagree: sentences for people, in order.

    Records can't bring that about; a damaged disk or a fault of ours can.
    """
    found = []
    for _, address, node_id in state.scan("ipam"):
        node = state.get("tree", node_id)
        if node is None:
            found.append(f"{address} is held by {node_id}, which is not in the tree")
        elif node.get("address") != address:
            found.append(f"{address} is held by {node_id}, which has {node.get('address')}")
    found += [
        f"{node['address']} is the address of {node_id} and held by nobody"
        for _, node_id, node in state.scan("tree")
        if "address" in node and state.get("ipam", node["address"]) is None
    ]
    return sorted(found)


def _assign(context: FoldContext, body: dict[str, Any]) -> None:
    state = context.state
    node_id, address = fields(body, "node", "address")
    if context.record.actor != context.author.key:
        raise RejectedError("a server assigns for itself", code="rejected_unauthorised")
    if slice_of(context.author.slices, address) is None:
        raise RejectedError(
            f"{address} is not in a slice of {context.author.server_id}", code="rejected_scope"
        )
    node = node_of(state, node_id)
    if node["kind"] != "endpoint" or "address" in node:
        raise RejectedError("the node needs no address", code="rejected_conflict")
    if state.get("ipam", address) is not None:
        raise RejectedError(f"{address} is taken", code="address_in_use")
    state.put("ipam", address, node_id)
    state.put("tree", node_id, {**node, "address": address})


def _release(context: FoldContext, body: dict[str, Any]) -> None:
    state = context.state
    (node_id,) = fields(body, "node")
    node = node_of(state, node_id)
    if node.get("key") != b64u_encode(context.record.actor):
        require(context, node_id, Capability.OPERATE)
    address = node.pop("address", None)
    if address is None:
        raise RejectedError("it holds no address", code="rejected_orphan")
    state.delete("ipam", address)
    state.put("tree", node_id, node)


def _block(context: FoldContext, body: dict[str, Any]) -> None:
    state = context.state
    block_text, pool, customer = fields(body, "block", "pool", "customer")
    block = parse_network(block_text)
    if pool not in POOLS or block.prefixlen > BLOCK_PREFIX:
        raise InputError(f"pool is private or shared, a block a /{BLOCK_PREFIX} or larger")
    if node_of(state, customer)["kind"] != "customer":
        raise RejectedError("blocks belong to customers", code="rejected_scope")
    require(context, customer, Capability.OPERATE)
    found = chunk_of(ranges_of(state), context.author.slices, pool, block)
    if found is None:
        raise RejectedError(f"{block} is not this server's to give", code="rejected_scope")
    number, chunk = found
    bits = block_bits(chunk, block)
    place = f"{pool}/{number}"
    taken = int(state.get("blocks", place) or "0", 16)
    if taken & bits:
        raise RejectedError(f"{block} overlaps a block", code="rejected_overlap")
    state.put("blocks", place, f"{taken | bits:x}")
    state.put(
        "block",
        block_text,
        {
            "pool": pool,
            "customer": customer,
            "server": context.author.server_id,
            "record": context.record.id,
        },
    )


def _unblock(context: FoldContext, body: dict[str, Any]) -> None:
    state = context.state
    (block_text,) = fields(body, "block")
    held = state.get("block", block_text)
    if held is None:
        raise RejectedError("there is no such block", code="rejected_orphan")
    # What a customer that is gone held goes back at the word of who operates the root.
    left = state.get("tree", held["customer"]) is None
    where = state.get("mesh", "root_node") if left else held["customer"]
    require(context, where, Capability.OPERATE)
    block = parse_network(block_text)
    # Not who gave it counts: whoever inherited the slice holds what was given from it.
    found = chunk_of(ranges_of(state), context.author.slices, held["pool"], block)
    if found is None:
        raise RejectedError("another server holds its slice", code="rejected_scope")
    number, chunk = found
    place = f"{held['pool']}/{number}"
    taken = int(state.get("blocks", place) or "0", 16)
    state.put("blocks", place, f"{taken & ~block_bits(chunk, block):x}")
    state.delete("block", block_text)


APPLIERS: Appliers = {
    "ipam.assign": _assign,
    "ipam.release": _release,
    "ipam.block": _block,
    "ipam.unblock": _unblock,
}
