"""Which addresses a datagram may be sent to because somebody else named them. Pure.

A relay and an agent that looks for a path are told by others where to send. Whoever tells may mean
harm: a service on the very host, the owner's own network, the metadata of a cloud, the inside of
the mesh. So an address is unwrapped first, and judged by where its packets would end. What is
private is refused unless the two are neighbours: see ``neighbourhood``. Ranges for documentation
and benchmarks count as ordinary ones.
"""

from __future__ import annotations

from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TYPE_CHECKING, Final

from services.kernel.addr import ula_prefix
from services.kernel.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Collection

    from services.kernel.addr import Ranges
    from services.kernel.ids import MeshId

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LOWEST_PORT: Final = 1024
PRIVATE_NETWORKS: Final[tuple[Network, ...]] = tuple(
    map(
        ip_network,
        ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
    )
)

_UNICAST6: Final = IPv6Network("2000::/3")
_NAT64: Final = IPv6Network("64:ff9b::/96")
_NEVER: Final[tuple[tuple[Network, str], ...]] = tuple(
    (ip_network(text), why)
    for text, why in (
        ("0.0.0.0/8", "unspecified"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("100.100.100.200/32", "metadata"),
        ("192.0.0.0/24", "reserved"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("fe80::/10", "link-local"),
        ("fd00:ec2::/32", "metadata"),
        ("ff00::/8", "multicast"),
    )
)


def normalised(host: str | bytes | Address) -> Address:
    """Return the address where packets to this one end: the IPv4 address that an IPv6 one wraps.

    It is for judging. To send, take what was given: behind NAT64 the wrapped form alone has a way.

    Args:
        host: the canonical text or any other that `ipaddress` takes, the 4 or 16 bytes of
            the wire, or an address.

    Raises:
        InputError: ``bad_address``: no address, or one with a scope.
    """
    address = _address_of(host)
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def why_refused(
    address: str | bytes | Address,
    port: int,
    *,
    mesh_ranges: Collection[Network],
    on_link: Collection[Network],
) -> str | None:
    """Return in a word or two why nothing is to be sent there; None where it may be.

    Args:
        address: where; it is unwrapped here.
        port: the UDP port.
        mesh_ranges: what lies inside of the mesh: see ``inner_networks``.
        on_link: the networks that the sender stands in itself, and its ``neighbourhood`` with the
            one it is to talk to. Of private addresses only those within are let through.
    """
    try:
        target = normalised(address)
    except InputError:
        return "not an address"
    if not LOWEST_PORT <= port <= 65535:
        return "low port" if 0 <= port < LOWEST_PORT else "not a port"
    return _never(target) or _inside(target, mesh_ranges) or _private(target, on_link)


def neighbourhood(own: str | bytes | Address, other: str | bytes | Address) -> tuple[Network, ...]:
    """Return the private networks that two may have in common, by where a third sees them.

    Seen from one public address they stand behind the same router: any private network may be
    theirs. Seen from two private ones no router changes their addresses, so just the address that
    was seen is a way to the other. Otherwise there is nothing.

    Args:
        own: where the one who is to send was seen.
        other: where the one to be reached was seen.

    Raises:
        InputError: ``bad_address``.
    """
    here, there = normalised(own), normalised(other)
    if here == there:
        return PRIVATE_NETWORKS
    if is_private(here) and is_private(there):
        return (ip_network(there),)
    return ()


def is_private(address: Address) -> bool:
    """Say whether an address means one host here and another one there."""
    return _in_any(address, PRIVATE_NETWORKS)


def inner_networks(mesh_id: MeshId, ranges: Ranges) -> tuple[Network, ...]:
    """Return what lies inside of a mesh: its tunnels, its backbone, and all its IPv6 addresses."""
    return ranges.tunnel, ranges.backbone, ula_prefix(mesh_id)


def _address_of(host: str | bytes | Address) -> Address:
    if isinstance(host, IPv4Address | IPv6Address):
        address = host
    else:
        try:
            address = ip_address(host)
        except ValueError as error:
            raise InputError("not an IP address", code="bad_address") from error
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise InputError("an address with a scope has no place here", code="bad_address")
    return address


def _never(target: Address) -> str | None:
    for network, why in _NEVER:
        if target in network:
            return why
    if isinstance(target, IPv6Address) and target not in _UNICAST6 and not is_private(target):
        return "reserved"
    return None


def _inside(target: Address, mesh_ranges: Collection[Network]) -> str | None:
    return "mesh" if _in_any(target, mesh_ranges) else None


def _private(target: Address, on_link: Collection[Network]) -> str | None:
    for network in on_link:
        if target in network and _is_everybody(target, network):
            return "broadcast"
    if is_private(target) and not _in_any(target, on_link):
        return "private"
    return None


def _is_everybody(target: Address, network: Network) -> bool:
    """All hosts of a link listen to its last IPv4 address, and to its first by an old custom."""
    if network.version == 6 or network.prefixlen > 30:
        return False
    return target in (network.broadcast_address, network.network_address)


def _in_any(address: Address, networks: Collection[Network]) -> bool:
    return any(address in network for network in networks)
