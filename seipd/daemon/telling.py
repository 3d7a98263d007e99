"""Services that look now and then whether there is something to tell the other servers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Protocol

from services.kernel.errors import SeipdError
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)


class FactTeller(Protocol):
    """The part of gossip that is needed here."""

    def publish_fact(self, kind: int, payload: bytes, *, lifetime_ms: int | None = None) -> None:
        """Say something about this server from now on."""


class TellingService(ABC):
    """Starts, stops and says how it does; what is told, and when, is said by who derives of it."""

    name: ClassVar[str]

    def __init__(self, *, tell: FactTeller, clock: Clock) -> None:
        self._tell = tell
        self._clock = clock
        self._tasks = TaskOwner(self.name, on_crash=self._on_crash)
        self._state = HealthState.STOPPED
        self._trouble = ""

    async def start(self) -> None:
        """Begin to look."""
        self._state, self._trouble = HealthState.OK, ""
        self._tasks.spawn(self._look_forever(), name=f"{self.name}-look")

    async def stop(self) -> None:
        """Look no more; may be called twice."""
        self._state = HealthState.STOPPED
        await self._tasks.close()

    def health(self) -> Health:
        """Say what was in the way of telling, if anything; nobody depends on it."""
        return Health(state=self._state, detail=self._trouble)

    @abstractmethod
    async def _turn(self) -> float:
        """Look once; return the seconds until the next look."""

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Take note of what is in the way of telling; what stands after it inside is left out."""
        try:
            yield
        except SeipdError as error:
            self._trouble = f"not told: {error}"
            logger.debug("%s: not told: %s", self.name, error)
        else:
            self._trouble = ""

    async def _look_forever(self) -> None:
        while True:
            pause_s = await self._turn()
            await asyncio.sleep(pause_s)

    def _on_crash(self, task: str, error: BaseException) -> None:
        self._state, self._trouble = HealthState.FAILED, f"{task} ended: {error!r}"
