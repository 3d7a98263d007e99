"""What a path wants of others: meetings, asked for less and less often, and a relay. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from seipd.agent.paths.effects import LeaveRelay, SeekRelay

if TYPE_CHECKING:
    from services.edge.punch.messages import RelayOffer
    from services.edge.wireguard.model import Endpoint

IDLE_S: Final = 300.0
OFFERS_S: Final = 600.0
"""Tickets live for an hour: older offers are hardly worth a try."""
STEADY_S: Final = 60.0
ASKED_S: Final = 5.0
"""A meeting is made of a call within that time, or not at all."""

_RETRY_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_FIRST_ON_RELAY: Final = 2
_NEVER: Final = float("-inf")


class Meetings:
    """Whether a path is wanted, and when to ask for a meeting."""

    def __init__(self) -> None:
        self._wanted_until_s = _NEVER
        self._due_s = self._asked_s = _NEVER
        self._retry_count = 0

    def want(self, now_s: float) -> None:
        """Note that packets go there; at first it is asked at once."""
        if not self.is_wanted(now_s):
            self.soon(now_s)
        self._wanted_until_s = now_s + IDLE_S

    def forget(self) -> None:
        """Want it no more."""
        self._wanted_until_s = _NEVER

    def is_wanted(self, now_s: float) -> bool:
        """Say whether packets went there lately."""
        return now_s <= self._wanted_until_s

    def is_due(self, now_s: float) -> bool:
        """Say whether it is time to ask."""
        return self.is_wanted(now_s) and now_s >= self._due_s

    def soon(self, now_s: float) -> None:
        """Begin anew: something is other than before."""
        self._retry_count, self._due_s = 0, now_s

    def restart(self) -> None:
        """Take short pauses again."""
        self._retry_count = 0

    def steady(self, for_s: float) -> None:
        """Take for how long the best way there is has lasted: after a while nothing counts on."""
        if for_s > STEADY_S:
            self._retry_count = 0

    def met(self, now_s: float) -> None:
        """Take a meeting, by whoever's wish: it counts once, also where both asked for it."""
        if now_s - self._asked_s > ASKED_S:
            self.later(now_s)
        self._due_s = now_s + _RETRY_S[min(max(self._retry_count - 1, 0), len(_RETRY_S) - 1)]

    def asked(self, now_s: float) -> None:
        """Take that a meeting was asked for."""
        self._asked_s = now_s
        self.later(now_s)

    def later(self, now_s: float, *, on_relay: bool = False) -> None:
        """Ask again after a while, each time a longer one."""
        if on_relay:
            self._retry_count = _FIRST_ON_RELAY
        self._due_s = now_s + _RETRY_S[min(self._retry_count, len(_RETRY_S) - 1)]
        self._retry_count += 1


class RelayWish:
    """The relay of one path: offered, sought, bound."""

    def __init__(self) -> None:
        self._offers: tuple[RelayOffer, ...] = ()
        self._offered_s = _NEVER
        self.is_sought = False
        self.address: Endpoint | None = None

    def offered(self, offers: tuple[RelayOffer, ...], now_s: float) -> None:
        """Take the relays that would carry."""
        self._offers, self._offered_s = offers, now_s

    def seek(self, now_s: float) -> list[SeekRelay]:
        """Have one carry, if there is an offer."""
        if not self._offers or self.is_sought or now_s - self._offered_s > OFFERS_S:
            return []
        self.is_sought = True
        return [SeekRelay(self._offers)]

    def leave(self) -> list[LeaveRelay]:
        """Let it go, if there is one."""
        was_there = self.is_sought or self.address is not None
        self.lost()
        return [LeaveRelay()] if was_there else []

    def lost(self) -> None:
        """Take that it is gone."""
        self.is_sought, self.address = False, None
