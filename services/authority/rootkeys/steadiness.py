"""Whether a machine's clock went evenly of late. Pure: both clocks' times come in.

What is done once and for good by the time alone must not be done by a clock that was just set: it
may be set again. The clock that counts seconds since the start is what it is held against.
"""

from __future__ import annotations

from typing import Final

JUMP_MS: Final = 60_000
"""More than any clock is slewed by between two looks."""
STEADY_S: Final = 3600.0


class Steadiness:
    """Fed at each look; a clock that was never seen to jump is steady."""

    def __init__(self) -> None:
        self._offset_ms: int | None = None
        self._jump_ms = 0
        self._jumped_s: float | None = None

    def look(self, *, now_ms: int, monotonic_s: float) -> None:
        """Take what both clocks say."""
        offset_ms = now_ms - int(monotonic_s * 1000)
        before, self._offset_ms = self._offset_ms, offset_ms
        if before is not None and abs(offset_ms - before) > JUMP_MS:
            self._jump_ms, self._jumped_s = offset_ms - before, monotonic_s

    def trouble(self, *, monotonic_s: float) -> str:
        """Say by how much the clock jumped within the last hour; empty where it did not."""
        if self._jumped_s is None or monotonic_s - self._jumped_s >= STEADY_S:
            return ""
        minutes = -(-(STEADY_S - (monotonic_s - self._jumped_s)) // 60)
        return (
            f"this machine's clock jumped by {self._jump_ms // 1000} s: the root is rotated by "
            f"itself in {minutes:.0f} min, if the clock goes evenly until then"
        )
