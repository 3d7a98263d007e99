"""Which upstreams are asked about a name, for whom. Pure.

A customer's endpoints, and those of customers below it, are told of its own domains by its own name
servers; the longest domain counts, and of two customers that name the same one the nearer. All else
goes to the server's upstreams.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from services.authority.splitdns.view import domains_of, parse_upstream
from services.authority.tree.permissions import ancestors
from services.edge.resolver.upstreams import not_ourselves
from services.kernel.addr import tunnel_range6
from services.kernel.dnsnames import parents_of, text_of
from services.runtime.ssrf import is_public

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from ipaddress import IPv4Network, IPv6Network

    from services.kernel.addr import Ranges
    from services.kernel.ids import MeshId
    from services.kernel.views import StateReader
    from services.runtime.udp import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Whom to ask; ``is_split``: by a customer's own wish."""

    upstreams: tuple[Address, ...]
    is_split: bool = False


def may_be_asked(host: str, *, mesh_id: MeshId, ranges: Ranges) -> bool:
    """Say whether a server may be made to ask a customer's name server at an address.

    A customer's word makes a server send something: not to that machine itself, nor to the network
    behind it.
    """
    address = ip_address(host)
    if address == ranges.gateway:
        return False
    in_tunnel = _tunnel_address(address, ranges.tunnel, tunnel_range6(mesh_id)) is not None
    return in_tunnel or is_public(address)


class Routes:
    """Who may ask, and where the questions go."""

    def __init__(
        self,
        *,
        state: Callable[[], StateReader],
        mesh_id: MeshId,
        ranges: Ranges,
        own: Collection[str],
    ) -> None:
        self._state = state
        self._mesh_id = mesh_id
        self._ranges = ranges
        self._tunnel6 = tunnel_range6(mesh_id)
        self._own = own
        self.upstreams: tuple[Address, ...] = ()

    def serves(self, source: str) -> bool:
        """Say whether questions from there are looked up: those of endpoints alone."""
        return self._tunnel_address(source) is not None and source not in self._own

    def route(self, name: bytes, source: str) -> Route:
        """Return whom to ask about a name."""
        state, address = self._state(), self._tunnel_address(source)
        node_id = state.get("ipam", str(address)) if address is not None else None
        above = ancestors(state, node_id)[1:] if node_id else []
        split = [held for customer in above if (held := domains_of(state, customer))]
        for domain in (name, *parents_of(name)) if split else ():
            text = text_of(domain)
            for held in split:
                if text in held:
                    return Route(upstreams=self._allowed(held[text]["upstreams"]), is_split=True)
        return Route(upstreams=self.upstreams)

    def _allowed(self, texts: Iterable[str]) -> tuple[Address, ...]:
        """Return the name servers of a customer that this server may be made to ask."""
        parsed = [parse_upstream(text) for text in texts]
        mesh_id, ranges = self._mesh_id, self._ranges
        allowed = [one for one in parsed if may_be_asked(one[0], mesh_id=mesh_id, ranges=ranges)]
        return not_ourselves(allowed, self._own)

    def _tunnel_address(self, source: str) -> IPv4Address | None:
        address = ip_address(source.partition("%")[0])
        return _tunnel_address(address, self._ranges.tunnel, self._tunnel6)


def _tunnel_address(
    address: IPv4Address | IPv6Address, tunnel: IPv4Network, tunnel6: IPv6Network
) -> IPv4Address | None:
    """Return the tunnel address that an address is, or is the IPv6 kin of."""
    if isinstance(address, IPv6Address):
        if address not in tunnel6:
            return None
        address = IPv4Address(int(address) & 0xFFFFFFFF)
    return address if address in tunnel else None
