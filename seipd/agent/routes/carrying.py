"""Carries subnets for others, and guards those who use them: firewall and forwarding."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from ipaddress import ip_network
from typing import TYPE_CHECKING

from pyroute2.netlink.exceptions import NetlinkError

from seipd.agent.routes.firewall import removal, ruleset, table_name
from seipd.agent.routes.forwarding import Forwarding
from services.edge.wireguard.links import netlink
from services.kernel.errors import SeipdError
from services.runtime.nft import Nft, NftError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from ipaddress import IPv4Network, IPv6Network
    from pathlib import Path

    from seipd.agent.routes.firewall import Carried
    from services.kernel.ids import MeshId

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
        self._text = ""
        self._nft: Nft | None = None

    async def carry(self, carried: Carried) -> str:
        """Carry exactly this; return what is in the way, or nothing."""
        if not carried.is_router and not carried.uses:
            await self.end()
            return ""
        try:
            ways = await _ways([*carried.subnets, *(OUTSIDE if carried.is_exit else ())])
            text = ruleset(
                self._interface,
                mesh_id=self._mesh_id,
                inner=self._inner,
                carried=carried,
                ways=ways,
            )
            if text != self._text or not await asyncio.to_thread(self._is_there):
                await asyncio.to_thread(self._run, text)
                self._text = text
        except SeipdError as error:
            return str(error)
        return await asyncio.to_thread(self._set, carried, ways)

    def _set(self, carried: Carried, ways: set[str]) -> str:
        wanted = {"ipv4/conf/all/src_valid_mark": "1"} if carried.port else {}
        if carried.is_router:
            ipv6 = carried.is_exit or any(":" in one for one in carried.subnets)
            wanted |= self._forwarding.between({self._interface, *ways}, ipv6=ipv6)
        return self._forwarding.ensure(wanted)

    async def end(self) -> None:
        """Carry nothing, and leave nothing behind."""
        if self._text:
            self._text = ""
            await asyncio.to_thread(self._forwarding.restore)
            with contextlib.suppress(SeipdError):
                await asyncio.to_thread(self._run, removal(self._interface))
        if self._nft is not None:
            self._nft.close()
            self._nft = None

    def _is_there(self) -> bool:
        try:
            self._opened().run(f"list chain inet {table_name(self._interface)} answers")
        except NftError:
            return False
        return True

    def _run(self, text: str) -> None:
        self._opened().run(text)

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


def _some_of(network: IPv4Network | IPv6Network) -> list[str]:
    """Return a few addresses of a network: one may be this machine's own."""
    last = network.num_addresses - 1
    return sorted({str(network[number]) for number in (min(1, last), min(2, last), last // 2)})
