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

    from services.kernel.addr import Ranges
    from services.kernel.ids import MeshId
    from services.kernel.views import StateReader
    from services.runtime.udp import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Whom to ask; ``is_split``: by a customer's own wish."""

    upstreams: tuple[Address, ...]
    is_split: bool = False


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
        self._tunnel = ranges.tunnel
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
        """Return the name servers of a customer that a server may be made to ask.

        Its word makes a server send something: not to that machine itself, nor to the network
        behind it.
        """
        parsed = [parse_upstream(text) for text in texts]
        allowed = [one for one in parsed if self._is_reachable(ip_address(one[0]))]
        return not_ourselves(allowed, self._own)

    def _is_reachable(self, address: IPv4Address | IPv6Address) -> bool:
        return self._tunnel_address(str(address)) is not None or is_public(address)

    def _tunnel_address(self, source: str) -> IPv4Address | None:
        """Return the tunnel address that a source is, or is the IPv6 kin of."""
        address: IPv4Address | IPv6Address = ip_address(source.partition("%")[0])
        if isinstance(address, IPv6Address):
            if address not in self._tunnel6:
                return None
            address = IPv4Address(int(address) & 0xFFFFFFFF)
        return address if address in self._tunnel else None
