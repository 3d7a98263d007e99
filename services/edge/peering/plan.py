"""From certificates and nodes to what WireGuard should hold: pure arithmetic.

A server's peer has its backbone /32, its slices and their IPv6 kin, the addresses of its guests,
and those of the servers that are reached through it; an endpoint's has its own two addresses. Both
have the subnets behind them. Mesh routes carry this server's backbone address as source, the own
slices its own tunnel address; the gateway address is answered and never chosen.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Any

from services.edge.wireguard.model import (
    InterfacePlan,
    PeerConfig,
    Route,
    SideTable,
    canonical_prefixes,
)
from services.kernel.addr import (
    Ranges,
    backbone6,
    backbone_range6,
    own_tunnel_address,
    slice6,
    tunnel6,
    tunnel_range6,
)
from services.kernel.ids import MeshId, parse_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.certificates import ServerCertificate

SERVER_KEEPALIVE_S = 25


def interface_plan(
    mesh_id: MeshId,
    ranges: Ranges,
    own: ServerCertificate,
    subnets: Sequence[str] | None = None,
    mtu: int | None = None,
) -> InterfacePlan:
    """Return the addresses and routes of this server's interface.

    ``subnets`` lie behind endpoints: packets from the tunnel go there, this server's own do not, so
    that no approval takes its own network from it. None where they are not known yet: what is there
    of them stays, as does the MTU of an interface that is there.
    """
    tunnel, backbone = own_tunnel_address(own.slices), IPv4Address(own.backbone)
    own_tunnel6, own_backbone6 = tunnel6(mesh_id, tunnel), backbone6(mesh_id, backbone)
    addresses = (
        f"{backbone}/32",
        f"{tunnel}/32",
        f"{ranges.gateway}/32",
        f"{own_backbone6}/128",
        f"{own_tunnel6}/128",
        f"{tunnel6(mesh_id, ranges.gateway)}/128",
    )
    routes = [
        Route(destination=str(ranges.tunnel), source=str(backbone)),
        Route(destination=str(ranges.backbone), source=str(backbone)),
        Route(destination=str(tunnel_range6(mesh_id)), source=str(own_backbone6)),
        Route(destination=str(backbone_range6(mesh_id)), source=str(own_backbone6)),
    ]
    for text in own.slices:
        network = IPv4Network(text)
        routes.append(Route(destination=text, source=str(tunnel)))
        routes.append(Route(destination=str(slice6(mesh_id, network)), source=str(own_tunnel6)))
    side = None
    if subnets is not None:
        side = SideTable(routes=tuple(Route(destination=text) for text in subnets))
    return InterfacePlan(
        addresses=addresses, routes=tuple(routes), mtu=mtu, forwarding=True, side=side
    )


def server_peer(
    mesh_id: MeshId,
    server: ServerCertificate,
    endpoint: tuple[str, int] | None,
    carried: Sequence[ServerCertificate],
    guests: Sequence[IPv4Address],
    subnets: Sequence[str] = (),
) -> PeerConfig:
    """Return the peer that another server is: it carries what is for these, itself or not.

    ``guests`` are the tunnel addresses of endpoints outside of the slices of those servers,
    ``subnets`` lie behind endpoints of theirs.
    """
    prefixes = [prefix for one in carried for prefix in _prefixes(mesh_id, one)]
    prefixes += [prefix for one in guests for prefix in _both(mesh_id, one)]
    return PeerConfig(
        public_key=server.wireguard_key,
        endpoint=endpoint,
        allowed_ips=canonical_prefixes([*prefixes, *subnets]),
        keepalive_seconds=SERVER_KEEPALIVE_S,
    )


def _prefixes(mesh_id: MeshId, server: ServerCertificate) -> list[str]:
    backbone = IPv4Address(server.backbone)
    prefixes = [f"{backbone}/32", f"{backbone6(mesh_id, backbone)}/128"]
    for text in server.slices:
        prefixes += [text, str(slice6(mesh_id, IPv4Network(text)))]
    return prefixes


def endpoint_peer(mesh_id: MeshId, node: dict[str, Any], subnets: Sequence[str] = ()) -> PeerConfig:
    """Return the peer that an endpoint of this server is; it comes to us, so no address of its."""
    return PeerConfig(
        public_key=parse_key(node["wireguard_key"]),
        endpoint=None,
        allowed_ips=canonical_prefixes([*_both(mesh_id, IPv4Address(node["address"])), *subnets]),
    )


def _both(mesh_id: MeshId, address: IPv4Address) -> list[str]:
    return [f"{address}/32", f"{tunnel6(mesh_id, address)}/128"]


def is_ours(slices: tuple[str, ...], node: dict[str, Any] | None) -> bool:
    """Say whether a node is an endpoint whose address lies in these slices."""
    if node is None or "address" not in node:
        return False
    address = IPv4Address(node["address"])
    return any(address in IPv4Network(text) for text in slices)
