"""Finds the best relays between two endpoints. Pure.

What a relay costs is the time that a packet needs on its way over it: the great circle from each
end to the relay's region at the speed of light in glass, and what its load and its reputation put
on top. Only regions have a place on the map, so relays are kept by region, the best first, and a
search looks at each region once and at as many relays as it returns: a thousand relays more in a
region cost it nothing.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.kernel.regions import PLACES, distance_km

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Iterator, Sequence

SUSPENDED_BELOW: Final = 0.3
FULL_PERMILLE: Final = 950
KM_A_MS: Final = 100.0
"""How far a packet gets and back in a millisecond: light in glass does 200 km."""
UNKNOWN_KM: Final = 20_015.0
"""Half of the way around the earth: what nobody knows the place of comes last."""
LOAD_MS: Final = 40.0
REPUTATION_MS: Final = 100.0
MAX_REMEMBERED: Final = 1024
MAX_UNREACHABLE: Final = 64
"""So many relays that the two can't reach are passed over to find one that they can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """A relay as the directory knows it now."""

    relay_id: str
    key: bytes
    """The Ed25519 key that signs what it says."""
    box: bytes
    host: str
    host6: str
    port: int
    region: str
    owner: str | None = None
    """The customer that runs it; None for a server of the mesh."""
    server_id: str | None = None
    load_permille: int = 0
    sessions_count: int = 0
    reputation: float = 1.0
    is_up: bool = True

    @property
    def why_not(self) -> str:
        """Say why nobody is sent there; empty where they are."""
        if self.reputation < SUSPENDED_BELOW:
            return "suspended"
        if not self.is_up:
            return "down"
        return "full" if self.load_permille >= FULL_PERMILLE else ""

    def is_reached_by(self, versions: Sequence[Collection[int]]) -> bool:
        """Say whether each end reaches it, by the versions of IP that it is known to have."""
        own = {version for version, host in ((4, self.host), (6, self.host6)) if host}
        return all(own.intersection(one) for one in versions if one)

    @property
    def penalty_ms(self) -> float:
        """What its load and its reputation put on top of the distance."""
        load = min(self.load_permille, 1000) / 1000
        return LOAD_MS * load * load + REPUTATION_MS * (1.0 - self.reputation)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A relay that was found, and why it stands where it stands."""

    relay: Relay
    cost_ms: float
    distance_km: float | None
    """The way over it from one end to the other; None where a place is not known."""


class Finder:
    """Relays by region, the best first."""

    def __init__(self, relays: Iterable[Relay] = ()) -> None:
        self._regions: dict[str, list[tuple[float, str, Relay]]] = {}
        self._held: dict[str, Relay] = {}
        self._ways: OrderedDict[tuple[str | None, ...], list[_Way]] = OrderedDict()
        for relay in relays:
            self.put(relay)

    def put(self, relay: Relay) -> None:
        """Take a relay in, or what is new about it."""
        self.remove(relay.relay_id)
        self._held[relay.relay_id] = relay
        if relay.region not in self._regions:
            self._regions[relay.region] = []
            self._ways.clear()
        if not relay.why_not:
            insort(self._regions[relay.region], _entry(relay), key=lambda one: one[:2])

    def remove(self, relay_id: str) -> None:
        """Forget a relay; it need not be known."""
        relay = self._held.pop(relay_id, None)
        if relay is not None and not relay.why_not:
            entries = self._regions[relay.region]
            del entries[bisect_left(entries, _entry(relay)[:2], key=lambda one: one[:2])]

    def get(self, relay_id: str) -> Relay | None:
        """Return a relay, usable or not."""
        return self._held.get(relay_id)

    def all(self) -> list[Relay]:
        """Return every relay, usable or not, by region and id."""
        return sorted(self._held.values(), key=lambda one: (one.region, one.relay_id))

    def nearest(
        self,
        ends: Sequence[str | None],
        *,
        limit: int,
        excluded: Container[str] = (),
        versions: Sequence[Collection[int]] = (),
    ) -> list[Found]:
        """Return the usable relays that cost least between these regions, the best first.

        Args:
            ends: the region of each end; one for whoever asks what is near itself.
            limit: how many at most.
            excluded: the ids of relays not to return.
            versions: of IP, that each end is known to have; relays that it can't reach by those
                come last, for more may be there than is known.
        """
        found: list[Found] = []
        beyond: list[Found] = []
        for one in self._best_first(tuple(sorted(ends, key=str))):
            if len(found) == limit or len(beyond) == MAX_UNREACHABLE:
                break
            if one.relay.relay_id in excluded:
                continue
            (found if one.relay.is_reached_by(versions) else beyond).append(one)
        return [*found, *beyond][:limit]

    def _best_first(self, ends: tuple[str | None, ...]) -> Iterator[Found]:
        ways = self._ways_of(ends)
        heap = [
            (way.cost_ms + entries[0][0], way.region, 0, way)
            for way in ways
            if (entries := self._regions[way.region])
        ]
        heapq.heapify(heap)
        while heap:
            cost_ms, region, index, way = heapq.heappop(heap)
            entries = self._regions[region]
            yield Found(relay=entries[index][2], cost_ms=cost_ms, distance_km=way.distance_km)
            if index + 1 < len(entries):
                following = way.cost_ms + entries[index + 1][0]
                heapq.heappush(heap, (following, region, index + 1, way))

    def _ways_of(self, ends: tuple[str | None, ...]) -> list[_Way]:
        ways = self._ways.get(ends)
        if ways is None:
            ways = [_way(region, ends) for region in self._regions]
            self._ways[ends] = ways
            while len(self._ways) > MAX_REMEMBERED:
                self._ways.popitem(last=False)
        return ways


@dataclass(frozen=True, slots=True)
class _Way:
    """From all ends to a region."""

    region: str
    cost_ms: float
    distance_km: float | None


def way_km(region: str, end: str | None) -> float | None:
    """Return how far it is from an end to a region; None where a place is not known."""
    if region == end:
        return 0.0
    start, place = PLACES.get(end or ""), PLACES.get(region)
    return None if start is None or place is None else distance_km(start, place)


def _way(region: str, ends: tuple[str | None, ...]) -> _Way:
    parts = [way_km(region, end) for end in ends]
    known = [one for one in parts if one is not None]
    total_km = sum(known) + UNKNOWN_KM * (len(parts) - len(known))
    is_known = len(known) == len(parts)
    return _Way(region, total_km / KM_A_MS, total_km if is_known else None)


def _entry(relay: Relay) -> tuple[float, str, Relay]:
    return relay.penalty_ms, relay.relay_id, relay
