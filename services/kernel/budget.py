"""A token bucket: so much at once, so much a second. Pure."""

from __future__ import annotations


class Budget:
    """Lets through while anything is left; what goes beyond is owed before the next."""

    __slots__ = ("_burst", "_filled_s", "_level", "_rate_per_s")

    def __init__(self, *, rate_per_s: float, burst: float, now_s: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._level = burst
        self._filled_s = now_s

    def spend(self, amount: float, now_s: float) -> bool:
        """Take an amount and say so, unless nothing is left; an amount of 0 only asks."""
        elapsed_s = max(now_s - self._filled_s, 0.0)
        self._level = min(self._level + elapsed_s * self._rate_per_s, self._burst)
        self._filled_s = now_s
        if self._level <= 0:
            return False
        self._level -= amount
        return True
