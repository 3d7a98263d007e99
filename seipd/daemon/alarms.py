"""Raises the alarm where servers tell different states of the same feeds, and keeps the proof."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar, Final

from services.base.storage.files import make_private_dir, write_atomic
from services.kernel.errors import SeipdError
from services.kernel.service import Health, HealthState
from services.mesh.facts.contradictions import WordWatch
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from pathlib import Path

    from services.kernel.clock import Clock
    from services.kernel.ids import MeshId, ServerId
    from services.mesh.facts.contradictions import Contradiction
    from services.mesh.facts.envelope import Fact

logger = logging.getLogger(__name__)

KEPT_FILES: Final = 16
FRESH_S: Final = 600.0


class AlarmService:
    """Compares every word on the state with those of the others on the same."""

    name: ClassVar[str] = "alarm"

    def __init__(self, *, folder: Path, mesh_id: MeshId, own_id: ServerId, clock: Clock) -> None:
        self._folder = folder
        self._mesh_id = mesh_id
        self._own_id = own_id
        self._clock = clock
        self._watch = WordWatch()
        self._writing = asyncio.Lock()
        self._tick_ms = 0
        self._last: Contradiction | None = None
        self._last_s = 0.0
        self._tasks = TaskOwner("alarm")
        self._state = HealthState.STOPPED
        self._trouble = ""
        self.count = 0

    async def start(self) -> None:
        """Begin to write down what is found."""
        self._state = HealthState.OK

    async def stop(self) -> None:
        """Write nothing more; may be called twice."""
        self._state = HealthState.STOPPED
        await self._tasks.close()

    def health(self) -> Health:
        """Say who says what, while it is fresh; this server may be the one that is wrong."""
        last = self._last
        if last is None or self._clock.monotonic_s() - self._last_s > FRESH_S:
            return Health(state=self._state, detail=self._trouble)
        most, *fewer = last.told.values()
        is_alone = any(self._own_id in names and len(names) < len(most) for names in fewer)
        state = HealthState.FAILED if is_alone else HealthState.DEGRADED
        said = f"{last.sentence}; at {self.count} ticks; proofs in {self._folder}"
        return Health(state=state, detail=f"{said}; {self._trouble}" if self._trouble else said)

    def learn(self, fact: Fact) -> None:
        """Take a fact; one that is no word on the state is left alone."""
        found = self._watch.learn(fact)
        if found is None:
            return
        if found.time_ms > self._tick_ms:
            self._tick_ms = found.time_ms
            self.count += 1
        if self._last is None:
            logger.error("alarm: %s", found.sentence)
        self._last, self._last_s = found, self._clock.monotonic_s()
        if self._state is HealthState.OK:
            self._tasks.spawn(self._keep(found), name="alarm-keep")

    async def _keep(self, found: Contradiction) -> None:
        try:
            async with self._writing:
                await asyncio.to_thread(self._write, found)
        except SeipdError as error:
            self._trouble = f"a proof was not kept: {error}"
        else:
            self._trouble = ""

    def _write(self, found: Contradiction) -> None:
        make_private_dir(self._folder)
        path = self._folder / f"{found.time_ms}.json"
        write_atomic(path, found.encode(self._mesh_id))
        # The first one tells when it began, the newest who is still wrong.
        _, *others = sorted(self._folder.glob("*.json"), key=lambda one: one.name)
        for old in others[: max(len(others) - KEPT_FILES + 1, 0)]:
            old.unlink(missing_ok=True)
