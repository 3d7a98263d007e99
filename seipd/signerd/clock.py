"""The signer's time: what the system's clock says, but not before what it has seen.

A clock that is set back opens no window that has closed. One that is over a day behind was wrong
before, not now: to go by that would refuse every rotation until the wrong day has come. What had
closed by then stays closed: the rows say so, and such a key is destroyed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

MAX_BACK_MS: Final = 86_400_000


class GuardedClock:
    """Goes only forward, over restarts too, unless it was over a day ahead."""

    def __init__(self, clock: Clock, *, floor_ms: int = 0) -> None:
        self._clock = clock
        self._seen_ms = floor_ms

    def now_ms(self) -> int:
        """Milliseconds of UTC since 1970."""
        now_ms = self._clock.now_ms()
        if self._seen_ms - now_ms > MAX_BACK_MS:
            logger.warning("the clock was ahead by %d hours", (self._seen_ms - now_ms) // 3_600_000)
            self._seen_ms = now_ms
        self._seen_ms = max(self._seen_ms, now_ms)
        return self._seen_ms
