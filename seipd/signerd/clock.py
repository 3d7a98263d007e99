"""The signer's time: what the system's clock says, but never before what it has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.kernel.clock import Clock


class GuardedClock:
    """Goes only forward, over restarts too: a clock set back opens no window that has closed."""

    def __init__(self, clock: Clock, *, floor_ms: int = 0) -> None:
        self._clock = clock
        self._seen_ms = floor_ms

    def now_ms(self) -> int:
        """Milliseconds of UTC since 1970."""
        self._seen_ms = max(self._seen_ms, self._clock.now_ms())
        return self._seen_ms
