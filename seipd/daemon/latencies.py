"""Tells the other servers how far some of them are from this one, seldom enough for the mesh."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from typing_extensions import override

from seipd.daemon.telling import TellingService
from services.kernel.ids import raw_server_id, server_id_of_raw
from services.mesh.facts.kinds import KINDS, LATENCY
from services.mesh.facts.payloads import (
    MAX_LATENCIES,
    MAX_LATENCY_MS,
    Latency,
    LatencyPayload,
    decode_payload,
    encode_payload,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from seipd.daemon.telling import FactTeller
    from services.kernel.clock import Clock
    from services.mesh.facts.envelope import Fact
    from services.mesh.gossip.service import GossipService

LOOK_S: Final = 10.0
MIN_INTERVAL_S: Final = 60.0
LIFETIME_INTERVALS: Final = 4


def interval_s(servers_count: int) -> float:
    """Return how often a server tells: all together once in sixteen seconds at most."""
    return max(MIN_INTERVAL_S, 16.0 * servers_count)


def lifetime_ms(servers_count: int) -> int:
    """Return how long it holds: a few may get lost."""
    wanted_ms = int(LIFETIME_INTERVALS * interval_s(servers_count) * 1000)
    return min(wanted_ms, KINDS[LATENCY].max_lifetime_ms)


def measured(gossip: GossipService) -> dict[str, float]:
    """Return the round trips measured, in ms by server."""
    return {
        peer.server_id: peer.latency_ms for peer in gossip.peers() if peer.latency_ms is not None
    }


def nearest(measured: Mapping[str, float]) -> LatencyPayload:
    """Return what to tell of the round trips measured, in ms by server: those of the nearest."""
    chosen = sorted(measured.items(), key=lambda one: (one[1], one[0]))[:MAX_LATENCIES]
    return LatencyPayload(
        latencies=tuple(
            sorted(
                (
                    Latency(
                        server=raw_server_id(name), round_trip_ms=min(round(ms), MAX_LATENCY_MS)
                    )
                    for name, ms in chosen
                ),
                key=lambda one: one.server,
            )
        )
    )


def told_in(fact: Fact) -> dict[str, int]:
    """Return the round trips of a fact of kind 3, in ms by server."""
    told = decode_payload(fact.payload, LatencyPayload).latencies
    return {server_id_of_raw(one.server): one.round_trip_ms for one in told}


class LatencyService(TellingService):
    """Tells regularly, and as soon as another server was measured for the first time."""

    name: ClassVar[str] = "latency"

    def __init__(
        self, *, measured: Callable[[], Mapping[str, float]], tell: FactTeller, clock: Clock
    ) -> None:
        super().__init__(tell=tell, clock=clock)
        self._measured = measured
        self._told: frozenset[str] = frozenset()
        self._told_s = 0.0

    def look(self) -> None:
        """Tell the others if it is time to."""
        measured, now_s = self._measured(), self._clock.monotonic_s()
        count = len(measured) + 1
        is_time = now_s - self._told_s >= interval_s(count)
        is_news = len(measured) <= MAX_LATENCIES and not measured.keys() <= self._told
        if not measured or not (is_time or is_news):
            return
        with self._telling():
            payload = encode_payload(nearest(measured))
            self._tell.publish_fact(LATENCY, payload, lifetime_ms=lifetime_ms(count))
            self._told, self._told_s = frozenset(measured), now_s

    @override
    async def _turn(self) -> float:
        self.look()
        return LOOK_S
