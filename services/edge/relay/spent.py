"""Up to which counters tickets have been used, once their sessions know it no more. Pure."""

from __future__ import annotations

from collections import OrderedDict


class Spent:
    """A bounded memory: the ticket that was noted first is forgotten first."""

    __slots__ = ("_counters", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._counters: OrderedDict[bytes, tuple[int, int]] = OrderedDict()

    def floor(self, nonce: bytes, *, is_b: bool) -> int:
        """Return the last counter of one party under a ticket."""
        return self._counters.get(nonce, (0, 0))[is_b]

    def note(self, nonce: bytes, a: int, b: int) -> None:
        """Remember the last counters of both."""
        self._counters[nonce] = (a, b)
        while len(self._counters) > self._most:
            self._counters.popitem(last=False)
