"""Addresses of the mesh: strict parsing, ranges, slices and their IPv6 kin (pure arithmetic)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any

from services.kernel.errors import InputError

if TYPE_CHECKING:
    from services.kernel.ids import MeshId

SLICE_PREFIX = 20
SLICE_SIZE = 1 << (32 - SLICE_PREFIX)
RESERVED_OFFSETS = 10
OWN_TUNNEL_OFFSET = 2
GATEWAY_OFFSET = 1
BLOCK_PREFIX = 30
BACKBONE_RESERVED = 10
GENESIS_SLICES = 4

_UNIT = 1 << (32 - BLOCK_PREFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """The address ranges of a mesh: facts of its genesis, the same everywhere."""

    tunnel: IPv4Network
    backbone: IPv4Network
    private: IPv4Network
    shared: IPv4Network

    def value(self) -> dict[str, str]:
        """Return the JSON object of the genesis record."""
        return {
            "tunnel": str(self.tunnel),
            "backbone": str(self.backbone),
            "private": str(self.private),
            "shared": str(self.shared),
        }

    @property
    def gateway(self) -> IPv4Address:
        """The address that every server answers to its own endpoints."""
        return self.tunnel[GATEWAY_OFFSET]

    @property
    def slice_count(self) -> int:
        """How many slices the tunnel range holds."""
        return self.tunnel.num_addresses // SLICE_SIZE

    def slice_at(self, number: int) -> IPv4Network:
        """Return slice ``number`` of the tunnel range."""
        first = int(self.tunnel.network_address) + number * SLICE_SIZE
        return IPv4Network((first, SLICE_PREFIX))

    def slice_number(self, network: IPv4Network) -> int:
        """Return the number of a slice.

        Raises:
            InputError: not a slice of this mesh.
        """
        offset = int(network.network_address) - int(self.tunnel.network_address)
        if network.prefixlen != SLICE_PREFIX or not 0 <= offset < self.tunnel.num_addresses:
            raise InputError(f"{network} is not a slice of {self.tunnel}")
        return offset // SLICE_SIZE

    def chunk(self, pool: str, slice_number: int) -> IPv4Network:
        """Return the part of ``private`` or ``shared`` that goes with a slice.

        Who was delegated a slice was delegated this too, so that blocks are never raced for.
        """
        whole = self.private if pool == "private" else self.shared
        size = whole.num_addresses // self.slice_count
        first = int(whole.network_address) + slice_number * size
        return IPv4Network((first, 33 - size.bit_length()))


def default_ranges() -> Ranges:
    """Return the ranges that ``init`` uses unless told otherwise."""
    return Ranges(
        tunnel=IPv4Network("10.64.0.0/10"),
        backbone=IPv4Network("172.16.0.0/22"),
        private=IPv4Network("10.128.0.0/9"),
        shared=IPv4Network("172.20.0.0/14"),
    )


def ranges_from_value(value: object) -> Ranges:
    """Check the JSON object of the ranges.

    Raises:
        InputError: a field is missing or unknown, ranges overlap, or are too small.
    """
    if not isinstance(value, dict) or value.keys() != {"tunnel", "backbone", "private", "shared"}:
        raise InputError("ranges are tunnel, backbone, private and shared")
    networks: dict[str, Any] = {name: parse_network(text) for name, text in value.items()}
    ranges = Ranges(**networks)
    listed = [ranges.tunnel, ranges.backbone, ranges.private, ranges.shared]
    for number, one in enumerate(listed):
        if any(one.overlaps(other) for other in listed[number + 1 :]):
            raise InputError(f"{one} overlaps another range", code="overlap")
    if ranges.slice_count < GENESIS_SLICES:
        raise InputError(f"the tunnel range needs {GENESIS_SLICES} slices or more")
    if min(ranges.private.num_addresses, ranges.shared.num_addresses) < ranges.slice_count * _UNIT:
        raise InputError("private and shared need a /30 or more for each slice")
    if ranges.backbone.num_addresses < 4 * BACKBONE_RESERVED:
        raise InputError("the backbone range is too small")
    return ranges


def parse_address(text: object) -> IPv4Address:
    """Parse a dotted quad in its canonical spelling.

    Raises:
        InputError: ``bad_address``.
    """
    if not isinstance(text, str) or not text.isascii():
        raise InputError("not an IPv4 address", code="bad_address")
    try:
        address = IPv4Address(text)
    except AddressValueError as error:
        raise InputError(f"not an IPv4 address: {text[:40]!r}", code="bad_address") from error
    if str(address) != text:
        raise InputError("an IPv4 address in its canonical spelling, please", code="bad_address")
    return address


def parse_network(text: object) -> IPv4Network:
    """Parse ``a.b.c.d/len`` in its canonical spelling.

    Raises:
        InputError: ``bad_cidr``.
    """
    try:
        network = IPv4Network(text) if isinstance(text, str) and text.isascii() else None
    except ValueError as error:
        raise InputError(f"not a network: {str(text)[:40]!r}", code="bad_cidr") from error
    if network is None or str(network) != text:
        raise InputError(f"not a network: {str(text)[:40]!r}", code="bad_cidr")
    return network


def ula_prefix(mesh_id: MeshId) -> IPv6Network:
    """Return the /48 of a mesh (RFC 4193, the random bits taken from the mesh id)."""
    digest = hashlib.sha256(b"seipd/ula/v1\0" + bytes.fromhex(mesh_id)).digest()
    return IPv6Network((bytes([0xFD]) + digest[:5] + bytes(10), 48))


def tunnel6(mesh_id: MeshId, address: IPv4Address) -> IPv6Address:
    """Return the IPv6 kin of a tunnel address: subnet 1, the IPv4 address in the low 32 bits."""
    return _kin(mesh_id, 1, address)


def backbone6(mesh_id: MeshId, address: IPv4Address) -> IPv6Address:
    """Return the IPv6 kin of a backbone address: subnet 2."""
    return _kin(mesh_id, 2, address)


def slice6(mesh_id: MeshId, network: IPv4Network) -> IPv6Network:
    """Return the IPv6 kin of a slice: a /116."""
    return IPv6Network((int(_kin(mesh_id, 1, network.network_address)), 96 + network.prefixlen))


def tunnel_range6(mesh_id: MeshId) -> IPv6Network:
    """Return the /64 that holds every tunnel address's kin."""
    return IPv6Network((int(ula_prefix(mesh_id).network_address) | 1 << 64, 64))


def backbone_range6(mesh_id: MeshId) -> IPv6Network:
    """Return the /64 that holds every backbone address's kin."""
    return IPv6Network((int(ula_prefix(mesh_id).network_address) | 2 << 64, 64))


def is_inner(mesh_id: MeshId, ranges: Ranges, address: IPv4Address | IPv6Address) -> bool:
    """Say whether an address lies inside of the mesh: in its tunnel or its backbone range."""
    if isinstance(address, IPv4Address):
        return address in ranges.tunnel or address in ranges.backbone
    return address in ula_prefix(mesh_id)


def backbone_start(key: bytes, ranges: Ranges) -> int:
    """Return the offset where probing for a server's backbone address starts."""
    span = ranges.backbone.num_addresses - BACKBONE_RESERVED - 2
    digest = hashlib.sha256(key).digest()
    return int.from_bytes(digest, "big") % span + BACKBONE_RESERVED


def pick_backbone(key: bytes, ranges: Ranges, taken: frozenset[str]) -> str | None:
    """Probe forward from the server's start, wrapping to 10, for a free backbone address."""
    span = ranges.backbone.num_addresses - BACKBONE_RESERVED - 2
    start = backbone_start(key, ranges) - BACKBONE_RESERVED
    for step in range(span):
        address = str(ranges.backbone[BACKBONE_RESERVED + (start + step) % span])
        if address not in taken:
            return address
    return None


def assignable(network: IPv4Network, address: IPv4Address) -> bool:
    """Say whether an endpoint may hold this address of a slice: offsets 10 to last but one."""
    offset = int(address) - int(network.network_address)
    return RESERVED_OFFSETS <= offset < network.num_addresses - 1


def slice_of(address: IPv4Address) -> IPv4Network:
    """Return the slice that a tunnel address is of."""
    return IPv4Network((int(address) & -SLICE_SIZE, SLICE_PREFIX))


def own_tunnel_address(slices: tuple[str, ...]) -> IPv4Address:
    """Return a server's own tunnel address: offset 2 of its first slice."""
    return IPv4Network(slices[0])[OWN_TUNNEL_OFFSET]


def _kin(mesh_id: MeshId, subnet: int, address: IPv4Address) -> IPv6Address:
    base = int(ula_prefix(mesh_id).network_address)
    return IPv6Address(base | subnet << 64 | int(address))
