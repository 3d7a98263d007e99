"""Carries subnets for others, and guards what is behind this machine: firewall and forwarding."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING

from pyroute2.netlink.exceptions import NetlinkError

from seipd.agent.routes.firewall import removal, ruleset, table_name
from seipd.agent.routes.forwarding import Forwarding
from services.edge.wireguard.links import netlink
from services.kernel.errors import SeipdError
from services.runtime.nft import Nft
from services.runtime.nftothers import dropped_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from ipaddress import IPv4Network, IPv6Network
    from pathlib import Path

    from seipd.agent.routes.firewall import Carried
    from services.kernel.ids import MeshId
    from services.runtime.nftrules import Rules

logger = logging.getLogger(__name__)

OUTSIDE = ("192.88.99.1", "2001:db8::1")
"""Where nobody is: the way there is the default route."""


class SubnetCarrier:
    """What one endpoint carries."""

    def __init__(
        self, *, interface: str, mesh_id: MeshId, inner: Sequence[str], run_dir: Path
    ) -> None:
        self._interface = interface
        self._inner = tuple(inner)
        self._mesh_id = mesh_id
        self._forwarding = Forwarding(run_dir)
        self._turn = threading.Lock()
        self._has_ended = False
        self._text = ""
        self._rules: Rules = frozenset()
        self._nft: Nft | None = None

    async def carry(self, carried: Carried) -> str:
        """Carry exactly this; return what is in the way, or nothing."""
        try:
            ways = await _ways([*carried.subnets, *(OUTSIDE if carried.is_exit else ())])
            near = await near_networks(self._interface) if carried.is_exit else []
            return await asyncio.to_thread(self._have, carried, ways, near)
        except SeipdError as error:
            return str(error) if carried.needs_guard else ""

    def _have(self, carried: Carried, ways: set[str], near: list[str]) -> str:
        # Whoever is cancelled leaves this to itself: it may come to its turn after the end.
        with self._turn:
            if self._has_ended:
                return ""
            text = ruleset(
                self._interface,
                mesh_id=self._mesh_id,
                inner=self._inner,
                carried=carried,
                ways=ways,
                near=near,
                opened=self._forwarding.opened(ways) if carried.is_router else None,
            )
            if text != self._text or not self._is_intact():
                self._put(text)
            return self._set(carried, ways)

    def _set(self, carried: Carried, ways: set[str]) -> str:
        wanted = {"ipv4/conf/all/src_valid_mark": "1"} if carried.port else {}
        if carried.is_router:
            ipv6 = carried.is_exit or any(":" in one for one in carried.subnets)
            wanted |= self._forwarding.between({self._interface, *ways}, ipv6=ipv6)
        return self._forwarding.ensure(wanted) or (self._other() if carried.is_router else "")

    def _other(self) -> str:
        try:
            found = dropped_by(self._opened(), self._interface)
        except SeipdError as error:
            return str(error)
        return f"{found} of another firewall drops what comes by {self._interface}" if found else ""

    async def end(self) -> None:
        """Carry nothing from now on, and leave nothing behind."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        with self._turn:
            self._has_ended = True
            if self._text:
                self._forwarding.restore()
                with contextlib.suppress(SeipdError):
                    self._put(removal(self._interface))
            if self._nft is not None:
                self._nft.close()
                self._nft = None

    def _is_intact(self) -> bool:
        return self._opened().rules_of(table_name(self._interface)) == self._rules

    def _put(self, text: str) -> None:
        self._opened().run(text)
        self._text = text
        self._rules = self._opened().rules_of(table_name(self._interface))

    def _opened(self) -> Nft:
        if self._nft is None:
            self._nft = Nft()
        return self._nft


def clear_leftovers(interface: str, run_dir: Path) -> None:
    """Take away what a killed agent left."""
    Forwarding(run_dir).restore()
    with contextlib.suppress(SeipdError):
        nft = Nft()
        try:
            nft.run(removal(interface))
        finally:
            nft.close()


async def _ways(destinations: Iterable[str]) -> set[str]:
    """Return the interfaces by which these are reached from here."""
    found: set[str] = set()
    async with netlink() as socket:
        for text in destinations:
            for address in _some_of(ip_network(text)):
                try:
                    ways = await socket.route("get", dst=address)
                except NetlinkError:  # nothing leads there now
                    continue
                for way in ways:
                    links = await socket.link("get", index=way.get("oif"))
                    found.update(link.get("ifname") for link in links)
    return found - {"lo"}


async def near_networks(tunnel: str) -> list[str]:
    """Return the networks that this machine is in, the tunnel's left out.

    Raises:
        SeipdError: netlink does not answer.
    """
    found = set()
    async with netlink() as socket:
        async for message in await socket.addr("dump"):
            links = await socket.link("get", index=message["index"])
            if all(link.get("ifname") != tunnel for link in links):
                own = ip_interface(f"{message.get('address')}/{message['prefixlen']}")
                found.add(str(own.network))
    return sorted(found)


def _some_of(network: IPv4Network | IPv6Network) -> list[str]:
    """Return a few addresses of a network: one may be this machine's own."""
    last = network.num_addresses - 1
    return sorted({str(network[number]) for number in (min(1, last), min(2, last), last // 2)})
