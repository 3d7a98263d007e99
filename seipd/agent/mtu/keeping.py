"""Keeps the MTU of the tunnel as the way to the server asks for."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from seipd.agent.families import endpoint_at_hand
from seipd.agent.marks import FWMARK
from seipd.agent.steady import steadily
from seipd.agent.uplink import way_to
from services.edge.wireguard.ways import size_of_way
from services.kernel.errors import SeipdError
from services.kernel.places import parse_place

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from seipd.agent.mtu.deciding import TunnelSize
    from seipd.agent.uplink import Change
    from services.runtime.tasks import TaskOwner

logger = logging.getLogger(__name__)

LOOK_S: Final = 10.0
"""No word comes from the kernel where a router on the way says that a packet was too large."""


class Home(Protocol):
    """The server that the endpoint is at."""

    @property
    def mesh(self) -> dict[str, Any]:
        """What ``mesh.json`` holds."""


class MtuKeeper:
    """Looks how large a packet the way to the server takes, and has the interface so."""

    def __init__(self, size: TunnelSize) -> None:
        """Keep what is needed; ``size`` decides."""
        self.size = size
        self._had = 0
        self._news = asyncio.Event()

    async def network_changed(self, change: Change) -> None:
        """Take that the way may be another one."""
        self._news.set()

    def begin(self, tasks: TaskOwner, home: Home, resize: Callable[[], Awaitable[None]]) -> None:
        """Look from now on.

        Args:
            tasks: whose this is.
            home: the server.
            resize: has the interface as it is to be.
        """
        tasks.spawn(
            steadily(lambda: self._look_forever(home, resize), "minding the MTU"), name="agent-mtu"
        )

    async def _look_forever(self, home: Home, resize: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self.look(home.mesh)
            if self.size.mtu != self._had:
                await resize()
                self._had = self.size.mtu
                logger.info("the tunnel's MTU is %d now", self._had)
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._news.wait()
            except TimeoutError:
                continue
            self._news.clear()

    async def look(self, mesh: dict[str, Any]) -> None:
        """Look at the way to the server."""
        host = parse_place(endpoint_at_hand(mesh))[0]
        try:
            way = await way_to(host, mark=FWMARK)
            self.size.note_way(way, await size_of_way(host, mark=FWMARK))
        except SeipdError as error:
            logger.warning("how large a packet may be is not known: %s", error)


async def keeper_of_mtu(size: TunnelSize, mesh: dict[str, Any]) -> MtuKeeper:
    """Return one that has looked already, for an interface that is yet to be made."""
    keeper = MtuKeeper(size)
    await keeper.look(mesh)
    return keeper
