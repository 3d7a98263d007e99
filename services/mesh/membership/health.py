"""How well this server itself is: who stalls or is cut off must not blame others. Pure."""

from __future__ import annotations

from typing import Final

MAX_SCORE: Final = 8
MAX_STEP_S: Final = 0.5


class LocalHealth:
    """Lifeguard's local health multiplier: 0 is well, 8 is as bad as it gets."""

    def __init__(self) -> None:
        self.score = 0

    @property
    def factor(self) -> int:
        """How many times longer others may take to answer."""
        return self.score + 1

    def better(self) -> None:
        """Note an answer that came in time."""
        self.score = max(0, self.score - 1)

    def worse(self, by: int = 1) -> None:
        """Note signs that the fault may lie here."""
        self.score = min(MAX_SCORE, self.score + by)


class OwnTime:
    """Seconds for which this server was awake.

    A step of more than half a second is a stall of our own; it counts as half a second, so
    that what arrived meanwhile is read before any of our timers runs out.
    """

    def __init__(self, now_s: float) -> None:
        self._seen_s = now_s
        self.s = 0.0

    def advance(self, now_s: float) -> float:
        """Go on to ``now_s``; return for how many seconds we had stalled."""
        step_s = now_s - self._seen_s
        if step_s <= 0.0:
            return 0.0
        self._seen_s = now_s
        if step_s <= MAX_STEP_S:
            self.s += step_s
            return 0.0
        self.s += MAX_STEP_S
        return step_s - MAX_STEP_S
