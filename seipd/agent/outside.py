"""This machine as seen from outside: which way out it has, and which port of the router is open.

Whoever keeps tunnels is told at once when the way out is another one: see ``on_change``.
"""

from __future__ import annotations

import functools
import logging
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Final, Protocol

from seipd.agent.changes import Change
from seipd.agent.families import endpoint_at_hand
from seipd.agent.marks import FWMARK
from seipd.agent.portmap.gateway import gateway_to
from seipd.agent.portmap.mapper import PortMapper
from seipd.agent.steady import steadily
from seipd.agent.uplink import UplinkWatch
from services.kernel.errors import SeipdError
from services.kernel.places import parse_place

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from seipd.agent.portmap.mapped import Mapped
    from services.edge.wireguard.model import DeviceStatus
    from services.runtime.tasks import TaskOwner

logger = logging.getLogger(__name__)

ELSEWHERE: Final = "192.0.2.1"
"""Nobody is there (RFC 5737), so the way there is the way to the Internet."""


class Home(Protocol):
    """The server that the endpoint is at."""

    @property
    def mesh(self) -> dict[str, Any]:
        """What ``mesh.json`` holds."""

    async def reset(self) -> None:
        """Ask for a handshake now."""

    def device(self) -> DeviceStatus:
        """Return what WireGuard says of the interface."""


class Outside:
    """The watch over the way out, and the port that is kept open there."""

    def __init__(self, *, home: Home, interface: str) -> None:
        self._home = home
        self._watch = UplinkWatch(
            interface=interface, server=self._server, on_change=self._on_change, mark=FWMARK
        )
        self._mapper = PortMapper(
            port=lambda: home.device().listen_port,
            towards=self._towards,
            mesh_ranges=[ip_network(text) for text in home.mesh["allowed_ips"]],
            told=self._on_mapped,
            gateway=functools.partial(gateway_to, mark=FWMARK),
        )
        self.on_change: list[Callable[[Change], Awaitable[None]]] = []
        """Told when the way out, or an address of this machine, is another one, or it slept."""
        self.on_mapped: list[Callable[[Mapped | None], None]] = []
        """Told which port of the router leads here from now on."""

    @property
    def mapped(self) -> Mapped | None:
        """The port of the router that leads here."""
        return self._mapper.mapped

    def begin(self, tasks: TaskOwner) -> None:
        """Watch, and ask the router for a port."""
        tasks.spawn(steadily(self._watch.run, "the watch over the uplink"), name="agent-uplink")
        tasks.spawn(steadily(self._mapper.run, "the router's port"), name="agent-port")

    async def end(self) -> None:
        """Give the port back."""
        await self._mapper.end()

    def facts(self) -> dict[str, Any]:
        """Return what the status shows."""
        held = self._mapper.mapped
        shown = None if held is None else {"by": held.by, "host": held.host, "port": held.port}
        return {"mapped": shown, "why": self._mapper.why}

    def _server(self) -> str:
        # By the version of IP that there is a way for now: a change of that is a change of the way.
        return parse_place(endpoint_at_hand(self._home.mesh))[0]

    def _towards(self) -> str:
        host = self._server()
        return ELSEWHERE if ":" in host else host

    async def _on_change(self, change: Change) -> None:
        if change is not Change.MORE:
            self._mapper.changed()
        if change not in (Change.ADDRESSES, Change.MORE):
            try:
                await self._home.reset()
            except SeipdError as error:
                logger.warning("no new handshake: %s", error)
        for tell in self.on_change:
            await tell(change)

    def _on_mapped(self, mapped: Mapped | None) -> None:
        for tell in self.on_mapped:
            tell(mapped)
