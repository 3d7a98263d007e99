"""How much of what it may carry a relay carries: the part that others are told. Pure."""

from __future__ import annotations

from typing import Final

FULL: Final = 1000
SMOOTH_S: Final = 30.0
LEAST_S: Final = 1.0


class LoadMeter:
    """Sessions of those there may be, or bits of those there may be: whichever is more."""

    def __init__(self, *, max_sessions: int, capacity_kbits: int) -> None:
        self._max_sessions = max_sessions
        self._capacity_kbits = capacity_kbits
        self._carried_bytes = 0
        self._looked_s: float | None = None
        self._rate_kbits = 0.0

    def look(self, *, sessions_count: int, carried_bytes: int, now_s: float) -> int:
        """Return the load in thousandths, 1000 at most; the rate is that of half a minute."""
        if self._looked_s is None or carried_bytes < self._carried_bytes:
            self._looked_s, self._carried_bytes = now_s, carried_bytes
        elapsed_s = now_s - self._looked_s
        if elapsed_s >= LEAST_S:
            rate = (carried_bytes - self._carried_bytes) / 125 / elapsed_s
            weight = min(elapsed_s / SMOOTH_S, 1.0)
            self._rate_kbits += (rate - self._rate_kbits) * weight
            self._looked_s, self._carried_bytes = now_s, carried_bytes
        by_sessions = sessions_count / self._max_sessions
        by_rate = self._rate_kbits / self._capacity_kbits
        return min(round(FULL * max(by_sessions, by_rate)), FULL)
