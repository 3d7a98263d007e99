"""The system's clocks behind the port that everything else is handed."""

from __future__ import annotations

import time


class SystemClock:
    """Reads the real clocks; satisfies services.kernel.clock.Clock."""

    def now_ms(self) -> int:
        """Milliseconds of UTC since 1970."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()
