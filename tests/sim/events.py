"""Virtual time: what happens next, in an order that nothing but the calls decides."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class EventQueue:
    """Calls functions at their virtual time; those of one instant in the order of asking."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.count = 0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def later(self, delay_s: float, action: Callable[..., None], *arguments: Any) -> None:
        self.count += 1
        heapq.heappush(self._heap, (self.now_s + delay_s, self.count, action, arguments))

    def run(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        heap = self._heap
        while heap and heap[0][0] <= until_s:
            self.now_s, _, action, arguments = heapq.heappop(heap)
            action(*arguments)
        self.now_s = until_s

    def run_until(self, holds: Callable[[], bool], *, at_most_s: float, step_s: float) -> bool:
        """Run until something holds; say whether it ever did."""
        end_s = self.now_s + at_most_s
        while not holds():
            if self.now_s >= end_s:
                return False
            self.run(step_s)
        return True
