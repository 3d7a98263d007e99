"""Who asks whom when: one schedule for all who hold the same roster. Pure.

In each period of UTC the sorted circle of servers is turned against itself by an offset that all
derive alike, so each server is asked once a period, by another one each time, and each at a moment
of its own within the period. Clocks that differ only make it as good as chance.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Ask the target when UTC reaches ``due_ms``."""

    period: int
    due_ms: float
    target: int


class Schedule:
    """The turns of one server."""

    def __init__(self, *, mesh_id: bytes, interval_s: float) -> None:
        self._mesh_id = mesh_id
        self._interval_ms = interval_s * 1000
        self._index = -1
        self._servers = 0
        self._next: Turn | None = None

    def set_circle(self, *, index: int, servers: int) -> None:
        """Take the place of this server in the sorted roster; -1: it is not in it."""
        self._index = index
        self._servers = servers
        self._next = None

    def due(self, now_ms: int) -> int | None:
        """Return the index of the server to ask now; a turn that was missed is not made up."""
        if self._index < 0 or self._servers < 2:
            return None
        period = int(now_ms // self._interval_ms)
        turn = self._next
        if turn is None or abs(turn.due_ms - now_ms) > 2 * self._interval_ms:
            turn = self._next = self._turn(period)
        if now_ms < turn.due_ms:
            return None
        late_ms = now_ms - turn.due_ms
        self._next = self._turn(max(period, turn.period + 1))
        return turn.target if late_ms <= self._interval_ms / 2 else None

    def coming(self) -> tuple[int, ...]:
        """Return the indices of the servers to ask in the next two turns."""
        turn = self._next
        return () if turn is None else (turn.target, self._turn(turn.period + 1).target)

    def _turn(self, period: int) -> Turn:
        seed = self._mesh_id + period.to_bytes(8, "big", signed=True)
        digest = hashlib.blake2b(seed, digest_size=8, person=b"seipd/swim/v1").digest()
        offset = 1 + int.from_bytes(digest, "big") % (self._servers - 1)
        target = (self._index + offset) % self._servers
        due_ms = (period + target / self._servers) * self._interval_ms
        return Turn(period=period, due_ms=due_ms, target=target)
