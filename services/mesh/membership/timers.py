"""What is to be done when, in the order of time. Pure."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_SLACK_S: Final = 0.01  # a tick that is a trifle early does not wait for the next


class Timers:
    """Actions and their times; who sets one checks in the action whether it still matters."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def set(self, due_s: float, action: Callable[[], None]) -> None:
        """Have something done at a time."""
        self._count += 1
        heapq.heappush(self._heap, (due_s, self._count, action))

    def run(self, now_s: float) -> None:
        """Do what is due."""
        while self._heap and self._heap[0][0] <= now_s + _SLACK_S:
            heapq.heappop(self._heap)[2]()

    def __len__(self) -> int:
        return len(self._heap)
