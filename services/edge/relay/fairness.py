"""Watches what sessions use, and says how fast each may be. Pure."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from services.edge.relay.shares import Want, fair_rates

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.edge.relay.sessions import Book


class Fairness:
    """Remembers the last look at the book, so that two looks make a rate."""

    def __init__(self, capacity_kbits: int) -> None:
        self._capacity_kbits = capacity_kbits
        self._before = array("Q")
        self._looked_s: float | None = None

    def rates(
        self, book: Book, *, rate_kbits: Callable[[int], int], now_s: float
    ) -> dict[int, int]:
        """Return the rate of every session.

        Args:
            book: with what was carried so far.
            rate_kbits: what a session is allowed now.
            now_s: the time that never goes back.
        """
        elapsed_s = now_s - self._looked_s if self._looked_s is not None else 0.0
        self._looked_s = now_s
        wants = []
        for number in book.numbers():
            session = book.session(number)
            most_bytes = max(self._more(book, 2 * number), self._more(book, 2 * number + 1))
            if session is None or elapsed_s <= 0:
                continue
            ticket_kbits = book.rate_kbits(number)
            wants.append(
                Want(
                    number=number,
                    customer=session.customer,
                    used_kbits=most_bytes * 8 / 1000 / elapsed_s,
                    rate_kbits=rate_kbits(number) or ticket_kbits,
                    ticket_kbits=ticket_kbits,
                )
            )
        return fair_rates(self._capacity_kbits, wants)

    def _more(self, book: Book, direction: int) -> int:
        while direction >= len(self._before):
            self._before.append(0)
        total, before = book.carried_bytes(direction), self._before[direction]
        self._before[direction] = total
        return total - before if total >= before else total
