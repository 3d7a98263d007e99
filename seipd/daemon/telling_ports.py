"""Tells the other servers the ports of this one that its address does not tell of."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar, Final

from services.kernel.errors import SeipdError
from services.kernel.service import Health, HealthState
from services.mesh.facts.kinds import PORTS
from services.mesh.facts.payloads import encode_payload
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable

    from seipd.daemon.load import FactTeller
    from services.kernel.clock import Clock
    from services.mesh.facts.payloads import PortsPayload

logger = logging.getLogger(__name__)

LOOK_S: Final = 5.0
RENEW_S: Final = 6 * 3600.0


class PortTeller:
    """Tells as soon as it may, when a port changes, and again long before it would be forgotten."""

    name: ClassVar[str] = "ports"

    def __init__(
        self, *, ports: Callable[[], PortsPayload], tell: FactTeller, clock: Clock
    ) -> None:
        self._ports = ports
        self._tell = tell
        self._clock = clock
        self._told: PortsPayload | None = None
        self._told_s = 0.0
        self._tasks = TaskOwner("ports", on_crash=self._on_crash)
        self._state = HealthState.STOPPED
        self._trouble = ""

    async def start(self) -> None:
        """Begin to look."""
        self._state, self._trouble = HealthState.OK, ""
        self._tasks.spawn(self._look_forever(), name="ports-look")

    async def stop(self) -> None:
        """Look no more; may be called twice."""
        self._state = HealthState.STOPPED
        await self._tasks.close()

    def health(self) -> Health:
        """Say what was in the way of telling, if anything; nobody depends on it."""
        return Health(state=self._state, detail=self._trouble)

    def look(self) -> None:
        """Tell the others if there is an occasion."""
        ports, now_s = self._ports(), self._clock.monotonic_s()
        if ports == self._told and now_s - self._told_s < RENEW_S:
            return
        try:
            self._tell.publish_fact(PORTS, encode_payload(ports))
        except SeipdError as error:
            self._trouble = f"not told: {error}"
            logger.debug("the ports were not told: %s", error)
            return
        self._trouble, self._told, self._told_s = "", ports, now_s

    async def _look_forever(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    def _on_crash(self, task: str, error: BaseException) -> None:
        self._state, self._trouble = HealthState.FAILED, f"{task} ended: {error!r}"
