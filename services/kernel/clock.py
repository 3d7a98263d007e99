"""Time as an argument: what reads a clock is handed one."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """The two clocks that code may ask for."""

    def now_ms(self) -> int:
        """Milliseconds of UTC since 1970; may jump."""

    def monotonic_s(self) -> float:
        """Seconds that never go back; for timeouts and intervals."""
