"""Who left the mesh, for as long as a ticket of theirs may still be good. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from services.edge.relay.tickets import CLOCK_SKEW_MS, MAX_LIFETIME_MS

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_KEYS: Final = 65_536
KEPT_S: Final = (MAX_LIFETIME_MS + 2 * CLOCK_SKEW_MS) / 1000


class Unwelcome:
    """WireGuard keys that a server said are of the mesh no more."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._until_s: OrderedDict[bytes, float] = OrderedDict()

    def add(self, key: bytes) -> None:
        """Turn a key away from now on."""
        self._until_s.pop(key, None)
        self._until_s[key] = self._now_s() + KEPT_S
        while len(self._until_s) > MAX_KEYS:
            self._until_s.popitem(last=False)

    def is_welcome(self, key: bytes) -> bool:
        """Say whether a key may take part in sessions."""
        until_s = self._until_s.get(key)
        if until_s is None or self._now_s() < until_s:
            return until_s is None
        del self._until_s[key]
        return True
