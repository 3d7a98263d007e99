"""From what the join answered to a WireGuard tunnel, and to a file for stock clients."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from services.edge.wireguard.model import (
    InterfacePlan,
    PeerConfig,
    Route,
    SideTable,
    canonical_prefixes,
)
from services.kernel.ids import parse_key
from services.kernel.places import parse_place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seipd.agent.state import AgentKeys


def interface_plan(
    mesh: dict[str, Any], side: SideTable | None = None, *, mtu: int
) -> InterfacePlan:
    """Return the addresses and routes of this endpoint; ``side`` are those beyond the mesh."""
    address, address6 = mesh["tunnel_address"], mesh["tunnel_address6"]
    routes = [
        Route(destination=prefix, source=address6 if ":" in prefix else address)
        for prefix in mesh["allowed_ips"]
    ]
    return InterfacePlan(
        addresses=(f"{address}/32", f"{address6}/128"), routes=tuple(routes), mtu=mtu, side=side
    )


def server_peer(mesh: dict[str, Any], subnets: Sequence[str] = ()) -> PeerConfig:
    """Return the peer that the server is; it carries what is for subnets behind endpoints, too."""
    return PeerConfig(
        public_key=parse_key(mesh["server"]["wireguard_key"]),
        endpoint=parse_place(mesh["server"]["endpoint"]),
        allowed_ips=canonical_prefixes([*mesh["allowed_ips"], *subnets]),
        keepalive_seconds=mesh["keepalive_seconds"],
    )


def wg_quick_file(
    mesh: dict[str, Any], keys: AgentKeys, subnets: Sequence[str] = (), *, mtu: int = 0
) -> str:
    """Return a plain wg-quick(8) file with which a stock client does the same.

    Without an ``mtu`` the client finds its own, by the network that it is in.
    """
    private = base64.b64encode(keys.wireguard_private).decode("ascii")
    public = base64.b64encode(parse_key(mesh["server"]["wireguard_key"])).decode("ascii")
    sized = f"MTU = {mtu}\n" if mtu else ""
    return (
        "[Interface]\n"
        f"PrivateKey = {private}\n"
        f"Address = {mesh['tunnel_address']}/32, {mesh['tunnel_address6']}/128\n"
        f"{sized}"
        "\n"
        "[Peer]\n"
        f"PublicKey = {public}\n"
        f"Endpoint = {mesh['server']['endpoint']}\n"
        f"AllowedIPs = {', '.join([*mesh['allowed_ips'], *subnets])}\n"
        f"PersistentKeepalive = {mesh['keepalive_seconds']}\n"
    )
