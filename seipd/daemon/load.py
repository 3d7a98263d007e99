"""Tells the other servers how much this one has to do, seldom enough for the size of the mesh."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from typing_extensions import override

from seipd.daemon.telling import TellingService
from services.kernel.versions import known_version
from services.mesh.facts.kinds import KINDS, LOAD
from services.mesh.facts.payloads import MAX_PERMILLE, LoadPayload, encode_payload

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from seipd.daemon.telling import FactTeller
    from services.base.ledger.service import LedgerService
    from services.edge.wireguard.model import PeerStatus
    from services.kernel.clock import Clock

MIN_INTERVAL_S: Final = 30.0
LOOKS_AN_INTERVAL: Final = 6
LIFETIME_INTERVALS: Final = 4
NEWS_PERMILLE: Final = 100
CONNECTED_S: Final = 180  # after so long without a handshake a WireGuard session is dead


class PeerReader(Protocol):
    """The part of the WireGuard service that is needed here."""

    async def peers(self) -> Mapping[bytes, PeerStatus]:
        """Read the peers from the device.

        Raises:
            UnavailableError: it is away.
        """


def interval_s(servers_count: int) -> float:
    """Return how often a server tells its load: all together once in two seconds at most."""
    return max(MIN_INTERVAL_S, 2.0 * servers_count)


def lifetime_ms(servers_count: int) -> int:
    """Return how long a load holds: a few may get lost."""
    wanted_ms = int(LIFETIME_INTERVALS * interval_s(servers_count) * 1000)
    return min(wanted_ms, KINDS[LOAD].max_lifetime_ms)


class Occasions:
    """When a load is worth telling: regularly, and when it has changed much. Pure."""

    def __init__(self) -> None:
        self._told_s: float | None = None
        self._told_permille = 0

    def is_one(self, permille: int, *, servers_count: int, now_s: float) -> bool:
        """Say whether to tell this load now."""
        if self._told_s is None or now_s - self._told_s >= interval_s(servers_count):
            return True
        return abs(permille - self._told_permille) > NEWS_PERMILLE

    def told(self, permille: int, *, now_s: float) -> None:
        """Note that it was told."""
        self._told_s, self._told_permille = now_s, permille


def cpu_permille() -> int:
    """Return what the CPUs had to do in the last minute, in thousandths of what they can."""
    return min(round(os.getloadavg()[0] / (os.cpu_count() or 1) * 1000), MAX_PERMILLE)


class LoadService(TellingService):
    """Looks several times an interval, and tells when there is an occasion."""

    name: ClassVar[str] = "load"

    def __init__(
        self,
        *,
        ledger: LedgerService,
        tell: FactTeller,
        tunnels: PeerReader,
        version: str,
        clock: Clock,
        measure: Callable[[], int] = cpu_permille,
    ) -> None:
        super().__init__(tell=tell, clock=clock)
        self._ledger = ledger
        self._tunnels = tunnels
        self._version = version
        self._measure = measure
        self._occasions = Occasions()

    async def look(self) -> None:
        """Measure, and tell the others if there is an occasion."""
        permille, now_s = self._measure(), self._clock.monotonic_s()
        servers_count = len(self._ledger.charter.servers())
        if not self._occasions.is_one(permille, servers_count=servers_count, now_s=now_s):
            return
        with self._telling():
            load = LoadPayload(
                cpu_permille=permille,
                endpoints_count=await self._connected_count(),
                version=self._version,
                protocol=known_version(),
            )
            self._tell.publish_fact(
                LOAD, encode_payload(load), lifetime_ms=lifetime_ms(servers_count)
            )
            self._occasions.told(permille, now_s=now_s)

    @override
    async def _turn(self) -> float:
        await self.look()
        servers_count = len(self._ledger.charter.servers())
        return interval_s(servers_count) / LOOKS_AN_INTERVAL

    async def _connected_count(self) -> int:
        """Return how many endpoints had a handshake of late."""
        servers = {one.wireguard_key for one in self._ledger.charter.servers().values()}
        since_s = self._clock.now_ms() // 1000 - CONNECTED_S
        peers = await self._tunnels.peers()
        return sum(
            key not in servers and peer.last_handshake_s > since_s for key, peer in peers.items()
        )
