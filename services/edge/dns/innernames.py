"""The names of endpoints, and the reverse of all tunnel addresses, read from the state. Pure.

    private.<node id>.ep.<domain>                       by the node
    <hostname>.<customer>.ep.<domain>                   by the tree; a customer below another
    <hostname>.<customer>.<customer above>.ep.<domain>  has the names of those above behind its own

Nothing is kept here: each question is a few look-ups in the state, so memory and the cost of a
change do not grow with the number of endpoints.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import TYPE_CHECKING, Any, Final

from services.authority.tree.permissions import MAX_DEPTH, ancestors
from services.edge.dns.records import addresses, names
from services.edge.dns.wire import Type
from services.kernel.addr import (
    backbone_range6,
    tunnel6,
    tunnel_range6,
    ula_prefix,
)
from services.kernel.dnsnames import labels_of, name_of
from services.kernel.errors import InputError
from services.kernel.ids import parse_uuid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from services.edge.dns.building import RecordSet
    from services.kernel.addr import Ranges
    from services.kernel.ids import MeshId
    from services.kernel.views import StateReader

TTL_S: Final = 30
_PRIVATE: Final = "private"
_HEX: Final = frozenset(b"0123456789abcdef")


class EndpointNames:
    """Everything below ``ep.<domain>``; satisfies Names."""

    def __init__(self, *, state: Callable[[], StateReader], mesh_id: MeshId, domain: str) -> None:
        self._state = state
        self._mesh_id = mesh_id
        self._apex = name_of(f"ep.{domain}")
        self._domain = domain

    def find(self, name: bytes) -> Mapping[int, RecordSet] | None:
        """See ``Names``."""
        if not name.endswith(self._apex):
            return None
        try:
            path = [label.decode("ascii") for label in labels_of(name)]
        except UnicodeDecodeError:
            return None
        depth = len(path) - len(labels_of(self._apex))
        if depth <= 0 or depth > MAX_DEPTH + 1:
            return {} if depth == 0 else None
        found = self._by_id(path[:depth])
        return self._by_tree(path[:depth]) if found is None else found

    def names_of(self, node_id: str, node: Mapping[str, Any]) -> list[bytes]:
        """Return the names of an endpoint as the tree has it above it now."""
        state = self._state()
        named = [f"{_PRIVATE}.{node_id}.ep.{self._domain}"]
        path = ancestors(state, node["parent"])
        above = [state.get("tree", one)["name"] for one in path[:-1]]
        named.append(".".join([node["name"], *above, "ep", self._domain]))
        found = []
        for text in named:
            # A tree may be so deep that a name would be too long: then there is none.
            try:
                found.append(name_of(text))
            except InputError:
                continue
        return found

    def _by_id(self, path: list[str]) -> Mapping[int, RecordSet] | None:
        node_id = path[-1]
        try:
            parse_uuid(node_id)
        except InputError:
            return None
        node = self._state().get("tree", node_id)
        if node is None or node["kind"] != "endpoint":
            return None
        if len(path) == 1:
            return {}
        return self._sets(node) if path[:-1] == [_PRIVATE] else None

    def _by_tree(self, path: list[str]) -> Mapping[int, RecordSet] | None:
        state = self._state()
        node_id = state.get("mesh", "root_node")
        for label in reversed(path):
            node_id = state.get("name", f"{node_id}/{label}")
            if node_id is None:
                return None
        node = state.get("tree", node_id)
        return self._sets(node) if node is not None and node["kind"] == "endpoint" else {}

    def _sets(self, node: Mapping[str, Any]) -> Mapping[int, RecordSet]:
        text = node.get("address")
        if text is None:
            return {}
        kin = tunnel6(self._mesh_id, IPv4Address(text))
        return {one.rtype: one for one in addresses(TTL_S, text, str(kin))}


class ReverseNames:
    """Which endpoint holds a tunnel address; satisfies Names. Those of servers lie in the table."""

    def __init__(
        self,
        *,
        state: Callable[[], StateReader],
        endpoints: EndpointNames,
        mesh_id: MeshId,
        ranges: Ranges,
    ) -> None:
        self._state = state
        self._endpoints = endpoints
        self._mesh_id = mesh_id
        self._ranges = ranges

    def find(self, name: bytes) -> Mapping[int, RecordSet] | None:
        """See ``Names``."""
        labels = labels_of(name)
        if labels[-2:] == [b"in-addr", b"arpa"]:
            return self._find4([label.decode("latin-1") for label in labels[-3::-1]])
        return self._find6(b"".join(labels[-3::-1]), len(labels) - 2)

    def _find4(self, octets: list[str]) -> Mapping[int, RecordSet] | None:
        # One spelling each: 010 or +1 is no octet.
        if len(octets) > 4 or not all(one.isdecimal() and str(int(one)) == one for one in octets):
            return None
        numbers = [int(one) for one in octets]
        if any(number > 255 for number in numbers):
            return None
        if len(numbers) < 4:
            return {}
        return self._of(IPv4Address(bytes(numbers)))

    def _find6(self, digits: bytes, count: int) -> Mapping[int, RecordSet] | None:
        if len(digits) != count or count > 32 or not _HEX.issuperset(digits):
            return None
        if count < 32:
            return {}
        address = IPv6Address(int(digits, 16))
        inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if address in tunnel_range6(self._mesh_id) and inner in self._ranges.tunnel:
            return self._of(inner) if int(address) >> 32 & 0xFFFFFFFF == 0 else None
        if address in backbone_range6(self._mesh_id) and inner in self._ranges.backbone:
            return self._of(inner) if int(address) >> 32 & 0xFFFFFFFF == 0 else None
        return None

    def _of(self, address: IPv4Address) -> Mapping[int, RecordSet] | None:
        node_id = self._state().get("ipam", str(address))
        node = self._state().get("tree", node_id) if node_id else None
        if node is None:
            return None
        target = self._endpoints.names_of(node_id, node)[-1]
        return {Type.PTR: names(Type.PTR, TTL_S, [target])}


def reverse_apexes(mesh_id: MeshId, ranges: Ranges) -> list[bytes]:
    """Return where the zones of the tunnel and backbone ranges begin: at whole octets, and /48."""
    found = [apex for network in (ranges.tunnel, ranges.backbone) for apex in _apexes4(network)]
    digits = ula_prefix(mesh_id).network_address.exploded.replace(":", "")[:12]
    found.append(name_of(".".join(reversed(digits)) + ".ip6.arpa"))
    return found


def _apexes4(network: IPv4Network) -> Iterable[bytes]:
    octet_count = min(-(-network.prefixlen // 8), 3)
    for part in network.subnets(new_prefix=max(octet_count * 8, network.prefixlen)):
        octets = str(part.network_address).split(".")[:octet_count]
        yield name_of(".".join(reversed(octets)) + ".in-addr.arpa")
