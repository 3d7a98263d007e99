"""Where one peer may be reached: pinged in short bursts, measured by what comes back. Pure.

A target gets five small packets a round, spread over 0.8 s, so that both routers open while both
sides send; whoever may be a stranger there gets no more than those, and the next round not soon.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from services.edge.wireguard.model import Endpoint

BURST_S: Final = (0.0, 0.1, 0.2, 0.4, 0.8)
ROUNDS_APART_S: Final = 2.5
"""One that never answered is left alone for so long, however often it is named."""
MAX_CANDIDATES: Final = 24
QUIET_S: Final = 2.5
"""What answered within that time is a way."""
QUIET_MISSED: Final = 4
"""So many answers in a row are to be missing before the way that is taken counts as silent."""
LATE_EACH_S: Final = 0.25
KEPT_S: Final = 5.0
DEAD_S: Final = 5.0
DEAD_ROUND_TRIPS: Final = 2.0
"""On top of that: a long way gets about as many chances as a short one."""

_SMOOTHING: Final = 0.3
_IPV4_COSTS_MS: Final = 5.0
_WORTH_MS: Final = 3.0
_WORTH_SHARE: Final = 0.25
_LATE_MS: Final = 200.0
_LATE_SHARE: Final = 1.5
_MAX_OPEN: Final = 16
_NEVER: Final = float("-inf")


@dataclass(slots=True)
class Candidate:
    """One address, and what is known of the way there."""

    address: Endpoint
    due_s: list[float] = field(default_factory=list)
    open: dict[int, float] = field(default_factory=dict)
    latency_ms: float | None = None
    answered_s: float = _NEVER
    answer_sent_s: float = _NEVER
    """When the newest ping that was answered had been sent."""

    @property
    def late_s(self) -> float:
        """After how long an answer is late."""
        return (_LATE_SHARE * (self.latency_ms or 0.0) + _LATE_MS) / 1000

    def missed(self, now_s: float) -> int:
        """Return how many answers are late, since the last that came."""
        late_s = now_s - self.late_s
        return sum(self.answer_sent_s < sent_s < late_s for sent_s in self.open.values())

    def is_silent(self, now_s: float) -> bool:
        """Say whether nothing comes back, though it was asked often enough: some get lost."""
        is_late = now_s - self.answered_s > QUIET_S
        return is_late and (self.answered_s == _NEVER or self.missed(now_s) >= QUIET_MISSED)

    @property
    def is_ipv6(self) -> bool:
        """Whether it goes by IPv6."""
        return ":" in self.address[0]

    @property
    def cost_ms(self) -> float:
        """The latency, and what is added so that IPv6 comes first where both are as good."""
        family_ms = 0.0 if self.is_ipv6 else _IPV4_COSTS_MS
        return (self.latency_ms or 0.0) + family_ms


class CandidateBook:
    """The candidates of one peer."""

    def __init__(self, start_ms: int) -> None:
        """Begin without any.

        Args:
            start_ms: UTC less the monotonic clock: counters of pings grow over restarts.
        """
        self._start_ms = start_ms
        self._counter = 0
        self._held: dict[Endpoint, Candidate] = {}
        self._rounds_s: dict[Endpoint, float] = {}

    def __contains__(self, address: Endpoint) -> bool:
        """Whether an address is a candidate."""
        return address in self._held

    @property
    def addresses(self) -> frozenset[Endpoint]:
        """All of them."""
        return frozenset(self._held)

    @property
    def is_pinging(self) -> bool:
        """Whether there are pings that are yet to be sent."""
        return any(one.due_s for one in self._held.values())

    def replace(self, addresses: Iterable[Endpoint], now_s: float) -> bool:
        """Take what the server told now, and keep what answered lately; say whether it is news."""
        told = list(dict.fromkeys(addresses))[:MAX_CANDIDATES]
        is_news = any(address not in self._held for address in told)
        kept = [one.address for one in self._held.values() if now_s - one.answered_s < KEPT_S]
        wanted = list(dict.fromkeys((*kept, *told)))[:MAX_CANDIDATES]
        self._held = {address: self._held.get(address) or Candidate(address) for address in wanted}
        return is_news

    def add(self, address: Endpoint, now_s: float) -> None:
        """Take an address from which the peer itself was heard, if there is room, and ping it."""
        if address in self._held or len(self._held) >= MAX_CANDIDATES:
            return
        self._held[address] = Candidate(address)
        self._begin_round(self._held[address], now_s)

    def burst(self, now_s: float) -> None:
        """Ping each of them, as often as a round allows."""
        late_s = now_s - ROUNDS_APART_S
        self._rounds_s = {at: begun_s for at, begun_s in self._rounds_s.items() if begun_s > late_s}
        for one in self._held.values():
            self._begin_round(one, now_s)

    def ping(self, address: Endpoint, now_s: float) -> None:
        """Ping one that ever answered once, if nothing is under way to it."""
        one = self._held.get(address)
        if one is not None and one.latency_ms is not None and not one.due_s:
            one.due_s = [now_s]

    def ping_known(self, now_s: float) -> None:
        """Ping once each that ever answered, to see whether it is the better one by now."""
        for address in self._held:
            self.ping(address, now_s)

    def take_due(self, now_s: float) -> list[tuple[Endpoint, int]]:
        """Return where a ping is to go now, and the counter that it carries."""
        due = [one for one in self._held.values() if one.due_s and one.due_s[0] <= now_s]
        taken = []
        for one in due:
            # Whoever comes late makes up for nothing: that would be a burst of its own.
            one.due_s = [at_s for at_s in one.due_s if at_s > now_s]
            self._counter = max(self._counter + 1, self._start_ms + int(now_s * 1000))
            one.open[self._counter] = now_s
            while len(one.open) > _MAX_OPEN:
                del one.open[next(iter(one.open))]
            taken.append((one.address, self._counter))
        return taken

    def answered(self, address: Endpoint, counter: int, now_s: float) -> bool:
        """Take an answer; False where none was waited for from there."""
        one = self._held.get(address)
        sent_s = one.open.pop(counter, None) if one is not None else None
        if one is None or sent_s is None:
            return False
        latency_ms = max(now_s - sent_s, 0.0) * 1000
        if one.latency_ms is not None:
            latency_ms = one.latency_ms + _SMOOTHING * (latency_ms - one.latency_ms)
        one.latency_ms, one.answered_s = latency_ms, now_s
        one.answer_sent_s = max(one.answer_sent_s, sent_s)
        return True

    def latency_ms(self, address: Endpoint) -> float | None:
        """Return the moving average of the round trip."""
        one = self._held.get(address)
        return one.latency_ms if one is not None else None

    def patience_s(self, address: Endpoint, unknown_s: float) -> float:
        """Return for how long to wait for an answer to something else than a ping.

        Args:
            address: where it went.
            unknown_s: if no ping ever came back from there.
        """
        one = self._held.get(address)
        return unknown_s if one is None or one.latency_ms is None else 2 * one.late_s

    def silent_s(self, address: Endpoint, now_s: float) -> float:
        """Return for how long nothing has come back from there."""
        one = self._held.get(address)
        return now_s - (one.answered_s if one is not None else _NEVER)

    def is_silent(self, address: Endpoint, now_s: float) -> bool:
        """Say whether the way there, if it is pinged again and again, leads nowhere any more."""
        one = self._held.get(address)
        return one is None or one.is_silent(now_s)

    def is_dead(self, address: Endpoint, now_s: float) -> bool:
        """Say whether nothing has come back from there for too long to wait any more."""
        way_s = (self.latency_ms(address) or 0.0) / 1000
        is_late = self.silent_s(address, now_s) > DEAD_S + DEAD_ROUND_TRIPS * way_s
        return is_late and self.is_silent(address, now_s)

    def again_s(self, address: Endpoint, now_s: float) -> float:
        """Return when to ping again since an answer is late; never where none is."""
        one = self._held.get(address)
        if one is None or not one.missed(now_s):
            return -_NEVER
        return max(one.open.values()) + LATE_EACH_S

    def best(self, now_s: float, current: Endpoint | None) -> Endpoint | None:
        """Return the way to take: the one that is taken, unless another is clearly better."""
        held = self._held.get(current) if current is not None else None
        is_good = held is not None and not held.is_silent(now_s)
        ways = [one for one in self._held.values() if now_s - one.answered_s < QUIET_S]
        if not ways:
            return current if held is not None else None
        best = min(ways, key=lambda one: one.cost_ms)
        if held is not None and is_good:
            # By IPv4 one is often heard first; to go to IPv6 for good is no going back and forth.
            is_upgrade = best.is_ipv6 and not held.is_ipv6
            worth_ms = 0.0 if is_upgrade else max(_WORTH_MS, _WORTH_SHARE * held.cost_ms)
            return best.address if best.cost_ms + worth_ms < held.cost_ms else current
        return best.address

    def _begin_round(self, one: Candidate, now_s: float) -> None:
        before_s = self._rounds_s.get(one.address, _NEVER)
        if one.answered_s == _NEVER and now_s - before_s < ROUNDS_APART_S:
            return
        self._rounds_s[one.address] = now_s
        one.due_s = [now_s + after_s for after_s in BURST_S]
