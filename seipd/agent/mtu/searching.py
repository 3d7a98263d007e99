"""Finds out whether packets of the tunnel's MTU come through, and of which size they do. Pure.

A router on the way drops what is too large for its next link and says so (RFC 1191, RFC 8201).
Where another one drops those words, a firewall as a rule, large packets vanish and small ones pass:
names are found and connections begin, and then stand still. So it is asked in the way of RFC 8899:
a small echo and one of the full size, and more sizes only where the small one alone came back,
twice. What a lossy way loses by chance is asked for again.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from services.edge.wireguard.model import MIN_MTU
from services.edge.wireguard.mtu import MOST_MTU

if TYPE_CHECKING:
    from collections.abc import Collection

SMALL: Final = 100
STEPS: Final[tuple[int, ...]] = (MOST_MTU, *range(1408, MIN_MTU - 1, -16))
"""WireGuard fills packets up to multiples of 16 bytes, as long as the interface takes that."""
_ASKED_MOST: Final = 4
_SEARCHED: Final = 3
_ENOUGH: Final = 2


class Outcome(enum.Enum):
    """What came of it."""

    FITS = "packets of the full size come through"
    SMALLER = "smaller ones do"
    NONE = "only small ones do"
    SILENT = "nothing comes back, so nothing is known"


class Search:
    """One search: ask for ``sizes`` until there is an ``outcome``."""

    def __init__(self, mtu: int) -> None:
        """Begin, with an interface that has this MTU."""
        self.mtu = mtu
        self._steps = tuple(one for one in STEPS if one < mtu)
        self._rounds = self._heard = self._best = 0
        self._is_searching = False
        self.outcome: Outcome | None = None

    @property
    def sizes(self) -> tuple[int, ...]:
        """What to ask for in the next round, in bytes with the head of IP."""
        return (SMALL, *(reversed(self._steps) if self._is_searching else ()), self.mtu)

    @property
    def smallest(self) -> int:
        """The smallest full size that is asked for."""
        return min(self.mtu, *STEPS)

    @property
    def fits_bytes(self) -> int:
        """The largest size that came through beside the small one; 0 for none."""
        return self._best

    def take(self, answered: Collection[int]) -> None:
        """Take which sizes came back in a round."""
        self._rounds += 1
        self._heard += bool(answered)
        self._best = max(self._best, *(one for one in answered if one != SMALL), 0)
        if self._best == self.mtu:
            self.outcome = Outcome.FITS
        elif self._is_searching:
            self._end_search()
        elif self._heard >= _ENOUGH:
            self._is_searching, self._rounds, self._heard = True, 0, 0
        elif self._rounds >= _ASKED_MOST:
            self.outcome = Outcome.SILENT

    def _end_search(self) -> None:
        if self._rounds < _SEARCHED:
            return
        if self._heard < _ENOUGH:
            self.outcome = Outcome.SILENT
        else:
            self.outcome = Outcome.SMALLER if self._best else Outcome.NONE
