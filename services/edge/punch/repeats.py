"""What is sent again until its receipt comes, a few times, less and less often. Pure.

Each attempt has a queue of its own: since all in it wait equally long, the first is due first, and
nothing is ever sorted or searched.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

K = TypeVar("K", bound="Hashable")


class Repeats(Generic[K]):
    """Names of things without a receipt."""

    def __init__(self, delays_s: Sequence[float], *, limit: int) -> None:
        """Prepare.

        Args:
            delays_s: how long to wait after each time that a thing was sent, before it is sent
                again or, after the last, given up.
            limit: how many things may wait; what comes beyond is not repeated.
        """
        self._delays_s = delays_s
        self._limit = limit
        self._queues: tuple[deque[tuple[float, K, object]], ...] = tuple(deque() for _ in delays_s)
        self._waiting: dict[K, object] = {}
        self.dropped_count = 0

    def __len__(self) -> int:
        """How many wait for their receipt."""
        return len(self._waiting)

    def __contains__(self, key: K) -> bool:
        """Whether this waits for its receipt."""
        return key in self._waiting

    def sent(self, key: K, now_s: float) -> None:
        """Note that a thing was sent for the first time, or a newer one under its name."""
        if key not in self._waiting and len(self._waiting) >= self._limit:
            self.dropped_count += 1
            return
        mark = object()
        self._waiting[key] = mark
        self._queues[0].append((now_s + self._delays_s[0], key, mark))

    def settle(self, key: K) -> None:
        """Note a receipt."""
        self._waiting.pop(key, None)

    @property
    def next_s(self) -> float:
        """When something may be due next; infinity if nothing waits."""
        return min((queue[0][0] for queue in self._queues if queue), default=float("inf"))

    def due(self, now_s: float) -> tuple[list[K], list[K]]:
        """Return what is to be sent again now, and what is given up."""
        again: list[K] = []
        lost: list[K] = []
        for level in reversed(range(len(self._queues))):
            queue = self._queues[level]
            while queue and queue[0][0] <= now_s:
                _, key, mark = queue.popleft()
                if self._waiting.get(key) is not mark:
                    continue
                if level + 1 == len(self._queues):
                    del self._waiting[key]
                    lost.append(key)
                    continue
                self._queues[level + 1].append((now_s + self._delays_s[level + 1], key, mark))
                again.append(key)
        return again, lost
