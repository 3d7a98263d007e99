"""How a relay's capacity is shared: first among customers, then among the sessions of each. Pure.

While all want less than there is, everybody may send as fast as the ticket says. Beyond that, what
one customer leaves goes to the others, equally, and so it does inside of each: max-min fairness.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LEAST_KBITS: Final = 64

# Who uses nearly all that it may would like more; the others get some room to grow.
_FULL: Final = 0.9
_ROOM: Final = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """What one session used of late."""

    number: int
    customer: bytes
    used_kbits: float
    rate_kbits: int
    """What it was allowed."""
    ticket_kbits: int
    """The most that it ever is."""

    @property
    def kbits(self) -> float:
        """What it would use now, as far as can be told."""
        if self.used_kbits >= _FULL * self.rate_kbits:
            return float(self.ticket_kbits)
        return min(self.used_kbits * _ROOM + LEAST_KBITS, self.ticket_kbits)


def fair_rates(capacity_kbits: int, wants: Sequence[Want]) -> dict[int, int]:
    """Return for each session how fast its sides may send."""
    if sum(one.kbits for one in wants) <= capacity_kbits:
        return {one.number: one.ticket_kbits for one in wants}
    customers: defaultdict[bytes, list[Want]] = defaultdict(list)
    for one in wants:
        customers[one.customer].append(one)
    level = fair_level(capacity_kbits, [sum(w.kbits for w in each) for each in customers.values()])
    rates = {}
    for each in customers.values():
        of_one = fair_level(level, [one.kbits for one in each])
        for one in each:
            rates[one.number] = min(max(int(of_one), LEAST_KBITS), one.ticket_kbits)
    return rates


def fair_level(capacity: float, wants: Iterable[float]) -> float:
    """Return how much each may have at most so that together they have no more than there is."""
    ordered = sorted(wants)
    left = capacity
    for at, want in enumerate(ordered):
        level = left / (len(ordered) - at)
        if want >= level:
            return level
        left -= want
    return capacity
