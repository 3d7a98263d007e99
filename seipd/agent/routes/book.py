"""Who carries which subnet, as this endpoint goes by it: what each WireGuard peer gets. Pure.

A subnet is held twice: whole by the server's peer, in halves by the peer of a path end to end. The
longest prefix wins, so a path that comes or goes moves nothing. What can't be halved, one address,
is held by the server with its neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

Network = IPv4Network | IPv6Network

EVERYTHING: Final = ("0.0.0.0/0", "::/0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """An endpoint that carries subnets, or everything, for others."""

    node_id: str
    name: str
    address: str
    """Its IPv4 tunnel address."""
    prefixes: tuple[str, ...] = ()
    is_exit: bool = False


class RouteBook:
    """The routers that are gone by; of two prefixes that overlap the first is kept."""

    def __init__(
        self,
        routers: Iterable[Router] = (),
        *,
        inner: Collection[str] = (),
        exit_address: str | None = None,
    ) -> None:
        """Take the routers.

        Args:
            routers: as they were proved.
            inner: the mesh's own prefixes, which no router carries.
            exit_address: the tunnel address of the endpoint that carries everything.
        """
        own = [ip_network(text) for text in inner]
        self._carried: dict[Network, str] = {}
        for router in routers:
            for text in router.prefixes:
                network = ip_network(text)
                if not any(_overlap(network, one) for one in (*own, *self._carried)):
                    self._carried[network] = router.address
        self.exit_address = exit_address

    @override
    def __eq__(self, other: object) -> bool:
        """Two books are the same where they hold the same."""
        if not isinstance(other, RouteBook):
            return NotImplemented
        return (self._carried, self.exit_address) == (other._carried, other.exit_address)

    __hash__ = None  # type: ignore[assignment]  # it is no key

    def prefixes_of(self, address: str) -> tuple[str, ...]:
        """Return what the peer of a path end to end holds beside its own addresses."""
        held = [
            str(part)
            for network, router in self._carried.items()
            if router == address
            for part in _halves(network)
        ]
        if address == self.exit_address:
            held += EVERYTHING
        return tuple(sorted(held))

    def through_server(self) -> tuple[str, ...]:
        """Return what the server's peer holds beside the mesh."""
        return tuple(sorted({str(_whole(network)) for network in self._carried}))

    def subnets(self) -> tuple[str, ...]:
        """Return every prefix that is carried."""
        return tuple(sorted(str(network) for network in self._carried))

    def wanted(self) -> tuple[str, ...]:
        """Return the tunnel addresses to which a path end to end is always wanted."""
        return (self.exit_address,) if self.exit_address is not None else ()

    def behind(self, address: str) -> str | None:
        """Return the tunnel address of the endpoint through which an address is reached."""
        wanted = ip_address(address)
        for network, router in self._carried.items():
            if wanted.version == network.version and wanted in network:
                return router
        return None


def _halves(network: Network) -> tuple[Network, ...]:
    if network.prefixlen == network.max_prefixlen:
        return (network,)
    return tuple(network.subnets())


def _whole(network: Network) -> Network:
    if network.prefixlen == network.max_prefixlen:
        return network.supernet()
    return network


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


EMPTY: Final = RouteBook()
