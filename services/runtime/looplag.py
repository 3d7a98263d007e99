"""How long the event loop was held up of late: the worst of the last minute, for all to see."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, ClassVar, Final

from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from services.kernel.clock import Clock

INTERVAL_S: Final = 1.0
REMEMBERED_S: Final = 60.0
TOO_LONG_S: Final = 1.0


class WorstOfLate:
    """Keeps the lags of the last minute that no later one exceeds. Pure."""

    def __init__(self) -> None:
        self._lags: deque[tuple[float, float]] = deque()

    def note(self, lag_s: float, *, now_s: float) -> None:
        """Remember a lag that was just seen."""
        while self._lags and self._lags[-1][1] <= lag_s:
            self._lags.pop()
        self._lags.append((now_s, lag_s))

    def worst_s(self, *, now_s: float) -> float:
        """Return the longest of the last minute."""
        while self._lags and now_s - self._lags[0][0] > REMEMBERED_S:
            self._lags.popleft()
        return self._lags[0][1] if self._lags else 0.0


class LoopLagService:
    """Wakes once a second and looks how late it is."""

    name: ClassVar[str] = "loop"

    def __init__(self, *, clock: Clock, interval_s: float = INTERVAL_S) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._worst = WorstOfLate()
        self._tasks = TaskOwner("loop")
        self._state = HealthState.STOPPED

    async def start(self) -> None:
        """Begin to look."""
        self._state = HealthState.OK
        self._tasks.spawn(self._look_forever(), name="loop-lag")

    async def stop(self) -> None:
        """Look no more; may be called twice."""
        self._state = HealthState.STOPPED
        await self._tasks.close()

    def worst_s(self) -> float:
        """Return the longest that the loop was held up in the last minute."""
        return self._worst.worst_s(now_s=self._clock.monotonic_s())

    def health(self) -> Health:
        """Say whether something held up all others."""
        worst_s = self.worst_s()
        if self._state is HealthState.OK and worst_s > TOO_LONG_S:
            detail = f"all work stood still for {worst_s:.1f} s in the last minute"
            return Health(state=HealthState.DEGRADED, detail=detail)
        return Health(state=self._state)

    async def _look_forever(self) -> None:
        while True:
            due_s = self._clock.monotonic_s() + self._interval_s
            await asyncio.sleep(self._interval_s)
            now_s = self._clock.monotonic_s()
            self._worst.note(max(now_s - due_s, 0.0), now_s=now_s)
