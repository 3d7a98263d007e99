"""Tells the other servers the ports of this one that its address does not tell of."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from typing_extensions import override

from seipd.daemon.telling import TellingService
from services.mesh.facts.kinds import PORTS
from services.mesh.facts.payloads import encode_payload

if TYPE_CHECKING:
    from collections.abc import Callable

    from seipd.daemon.telling import FactTeller
    from services.kernel.clock import Clock
    from services.mesh.facts.payloads import PortsPayload

LOOK_S: Final = 5.0
RENEW_S: Final = 6 * 3600.0


class PortTeller(TellingService):
    """Tells as soon as it may, when a port changes, and again long before it would be forgotten."""

    name: ClassVar[str] = "ports"

    def __init__(
        self, *, ports: Callable[[], PortsPayload], tell: FactTeller, clock: Clock
    ) -> None:
        super().__init__(tell=tell, clock=clock)
        self._ports = ports
        self._told: PortsPayload | None = None
        self._told_s = 0.0

    def look(self) -> None:
        """Tell the others if there is an occasion."""
        ports, now_s = self._ports(), self._clock.monotonic_s()
        if ports == self._told and now_s - self._told_s < RENEW_S:
            return
        with self._telling():
            self._tell.publish_fact(PORTS, encode_payload(ports))
            self._told, self._told_s = ports, now_s

    @override
    async def _turn(self) -> float:
        self.look()
        return LOOK_S
