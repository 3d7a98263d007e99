"""From which addresses a caller's token is good on the private API; who is one stranger. Pure.

WireGuard lets a peer send from its own addresses alone, so a source address inside the tunnel is
proof of a key. A token that was stolen is worth nothing without the tunnel it belongs to.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import TYPE_CHECKING

from services.kernel.addr import backbone6, own_tunnel_address, parse_address, tunnel6

if TYPE_CHECKING:
    from services.base.ledger.roster import Charter
    from services.edge.auth.service import Caller
    from services.kernel.ids import ServerId
    from services.kernel.views import StateReader


def asker_of(remote: str | None) -> str:
    """Return what counts as one stranger: an IPv4 address, a /64 of IPv6 as one home has."""
    if remote is None or ":" not in remote:
        return remote or ""
    return IPv6Address(remote.partition("%")[0]).packed[:8].hex()


def origins_of(
    caller: Caller, *, state: StateReader, charter: Charter, own_id: ServerId
) -> frozenset[str]:
    """Return every address that WireGuard gives to the caller's key; none means nowhere."""
    mesh_id = charter.genesis.mesh_id
    if caller.server_id is None:
        node = state.get("tree", caller.node_id or "")
        if node is None or "address" not in node:
            return frozenset()
        address = parse_address(node["address"])
        return frozenset({str(address), str(tunnel6(mesh_id, address))})
    server = charter.server(caller.server_id)
    if server is None:
        return frozenset()
    backbone, tunnel = parse_address(server.backbone), own_tunnel_address(server.slices)
    addresses = {backbone, tunnel, backbone6(mesh_id, backbone), tunnel6(mesh_id, tunnel)}
    if caller.server_id == own_id:
        addresses.add(charter.genesis.ranges.gateway)
    return frozenset(str(one) for one in addresses)
