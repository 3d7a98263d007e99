"""Keeps the MTU of the tunnel as the way to the server takes it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from seipd.agent.families import endpoint_at_hand
from seipd.agent.marks import FWMARK
from seipd.agent.mtu.deciding import TunnelSize
from seipd.agent.mtu.probing import Echoes, search
from seipd.agent.mtu.searching import Outcome
from seipd.agent.steady import steadily
from seipd.agent.uplink import way_to
from services.edge.wireguard.ways import size_of_way
from services.kernel.errors import SeipdError
from services.kernel.places import parse_place

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from seipd.agent.changes import Change
    from seipd.agent.wanted import Tunnel
    from services.kernel.clock import Clock
    from services.runtime.tasks import TaskOwner

logger = logging.getLogger(__name__)

LOOK_S: Final = 10.0
"""No word comes from the kernel where a router on the way says that a packet was too large."""
AGAIN_S: Final = 600.0
SILENT_S: Final = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 600.0)
"""A server that answers no echo at all may have its reasons."""


class Home(Protocol):
    """The server that the endpoint is at."""

    @property
    def mesh(self) -> dict[str, Any]:
        """What ``mesh.json`` holds."""


class MtuKeeper:
    """Looks how large a packet the way to the server takes, and has the interface so."""

    def __init__(self, size: TunnelSize, interface: str, clock: Clock) -> None:
        """Keep what is needed.

        Args:
            size: decides.
            interface: the tunnel's.
            clock: the clock.
        """
        self.size = size
        self._interface = interface
        self._clock = clock
        self._had = 0
        self._due_s = 0.0
        self._silent_count = 0
        self._was_connected = False
        self._news = asyncio.Event()

    async def network_changed(self, change: Change) -> None:
        """Take that the way may be another one."""
        self.hurry()

    def hurry(self) -> None:
        """Take that the way, or the server, may be another one."""
        self._due_s, self._silent_count = 0.0, 0
        self._news.set()

    def note_tunnel(self, *, connected: bool) -> None:
        """Take whether the tunnel carries: who was silent may be there now."""
        if connected and not self._was_connected and self._silent_count:
            self.hurry()
        self._was_connected = connected

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

    async def look(self, mesh: dict[str, Any]) -> None:
        """Look at the way to the server."""
        host = parse_place(endpoint_at_hand(mesh))[0]
        try:
            way = await way_to(host, mark=FWMARK)
            self.size.note_way(way, await size_of_way(host, mark=FWMARK))
        except SeipdError as error:
            logger.warning("how large a packet may be is not known: %s", error)

    async def _look_forever(self, home: Home, resize: Callable[[], Awaitable[None]]) -> None:
        while True:
            self._news.clear()
            await self.look(home.mesh)
            await self._have(resize)
            if self._clock.monotonic_s() >= self._due_s:
                await self._search(home.mesh["gateway"])
                # Routers may have said something of what was sent just now.
                await self.look(home.mesh)
                await self._have(resize)
            left_s = max(self._due_s - self._clock.monotonic_s(), 0.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, LOOK_S)):
                    await self._news.wait()

    async def _have(self, resize: Callable[[], Awaitable[None]]) -> None:
        if self.size.mtu != self._had:
            await resize()
            self._had = self.size.mtu
            logger.info("the tunnel's MTU is %d now", self._had)

    async def _search(self, gateway: str) -> None:
        """Find out whether packets of that size come through."""
        try:
            found = await search(self._had, Echoes(gateway, self._interface))
        except OSError as error:
            logger.debug("no echo of the server's: %s", error)
            self._due_s = self._clock.monotonic_s() + AGAIN_S
            return
        if self._news.is_set():
            # It may have been of another way than the one of now.
            return
        pause_s = AGAIN_S
        if found.outcome is Outcome.SILENT:
            pause_s = SILENT_S[min(self._silent_count, len(SILENT_S) - 1)]
            self._silent_count += 1
        self._due_s = self._clock.monotonic_s() + pause_s
        self.size.note_search(found)


async def keeper_of_mtu(tunnel: Tunnel, mesh: dict[str, Any], clock: Clock) -> MtuKeeper:
    """Return one that has looked already, for an interface that is yet to be made."""
    keeper = MtuKeeper(TunnelSize(tunnel.mtu), tunnel.interface, clock)
    await keeper.look(mesh)
    return keeper
