"""Keeps a port of the router at home open for WireGuard while the agent runs.

The three ways are tried in turn, the newest first; what worked is asked again at half of its time.
A change of this machine's network begins anew. Where nothing works the agent does without: other
ways to be reached exist.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from seipd.agent.portmap.gateway import gateway_to
from seipd.agent.portmap.mapped import checked
from seipd.agent.portmap.protocols import NatPmp, Pcp, Upnp
from services.kernel.errors import SeipdError
from services.kernel.targets import is_private

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from seipd.agent.portmap.gateway import Gateway
    from seipd.agent.portmap.mapped import Mapped
    from seipd.agent.portmap.protocols import Way

logger = logging.getLogger(__name__)

AGAIN_S: Final = 600.0
GIVE_BACK_S: Final = 2.0
NO_ROUTER: Final = "this machine stands behind no router"


def ways_of(gateway: Gateway) -> Sequence[Way]:
    """Return the ways to ask a router, the newest first."""
    return Pcp(gateway), NatPmp(gateway), Upnp(gateway)


class PortMapper:
    """One port of this machine, opened outside."""

    def __init__(
        self,
        *,
        port: Callable[[], int],
        towards: Callable[[], str],
        mesh_ranges: Collection[IPv4Network | IPv6Network],
        told: Callable[[Mapped | None], None],
        gateway: Callable[[str], Awaitable[Gateway | None]] = gateway_to,
        ways: Callable[[Gateway], Sequence[Way]] = ways_of,
    ) -> None:
        """Keep what is needed.

        Args:
            port: the UDP port to be reached at.
            towards: the host, an IPv4 address, whose way out is the router's: the server.
            mesh_ranges: what lies inside of the mesh, and so can't be outside of a router.
            told: is told what is open, each time that changes; None where nothing is.
            gateway: finds the router.
            ways: how to ask it.
        """
        self._port = port
        self._towards = towards
        self._mesh_ranges = mesh_ranges
        self._told = told
        self._gateway_to = gateway
        self._ways_of = ways
        self._gateway: Gateway | None = None
        self._ways: Sequence[Way] = ()
        self._mapped: Mapped | None = None
        self._mapped_by: tuple[Way, int] | None = None
        self._changed = asyncio.Event()
        self.why = "not asked yet"

    @property
    def mapped(self) -> Mapped | None:
        """What is open now."""
        return self._mapped

    def changed(self) -> None:
        """Begin anew: this machine's network is another one."""
        self._changed.set()

    async def run(self) -> None:
        """Have the port open until cancelled; ``end`` gives it back."""
        while True:
            self._changed.clear()
            await self.look()
            wait_s = AGAIN_S if self._mapped is None else self._mapped.renew_after_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()

    async def look(self) -> None:
        """Ask once, be it for the first time or to renew."""
        gateway = await self._found()
        if gateway != self._gateway:
            self._gateway = gateway
            self._ways = () if gateway is None else self._ways_of(gateway)
            self._hold(None, None)
        if gateway is None:
            self.why = NO_ROUTER
            return
        said = []
        before = self._mapped_by[0] if self._mapped_by is not None else None
        for way in sorted(self._ways, key=lambda one: one is not before):
            try:
                await self._ask(way)
            except SeipdError as error:
                said.append(f"{way.name}: {error}")
            else:
                self.why = ""
                return
        self._hold(None, None)
        self.why = "; ".join(said)
        logger.info("the router opens no port: %s", self.why)

    async def end(self) -> None:
        """Give the port back, as far as the router still listens."""
        held, mapped = self._mapped_by, self._mapped
        self._hold(None, None)
        if held is not None and mapped is not None:
            with contextlib.suppress(SeipdError, TimeoutError):
                async with asyncio.timeout(GIVE_BACK_S):
                    await held[0].give_back(mapped, held[1])

    async def _ask(self, way: Way) -> None:
        port = self._port()
        wanted = self._mapped.port if self._mapped is not None else port
        granted = await way.map(port, wanted)
        try:
            mapped = checked(granted, self._mesh_ranges)
        except SeipdError:
            with contextlib.suppress(SeipdError):
                await way.give_back(granted, port)
            raise
        self._hold(mapped, (way, port))

    async def _found(self) -> Gateway | None:
        """Return the router; none where this machine has a public address of its own."""
        try:
            found = await self._gateway_to(self._towards())
        except SeipdError:
            return None
        return found if found is not None and is_private(ip_address(found.own)) else None

    def _hold(self, mapped: Mapped | None, by: tuple[Way, int] | None) -> None:
        place = (mapped.host, mapped.port) if mapped is not None else None
        before = (self._mapped.host, self._mapped.port) if self._mapped is not None else None
        self._mapped, self._mapped_by = mapped, by
        if place != before:
            logger.info("the router opens %s", f"{place[0]}:{place[1]}" if place else "nothing")
            self._told(mapped)
