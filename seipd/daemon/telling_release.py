"""Tells the other servers what is installed here, and reads what they tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from typing_extensions import override

from seipd.daemon.telling import TellingService
from services.base.release.approval import Running
from services.mesh.facts.kinds import KINDS, RELEASE
from services.mesh.facts.payloads import ReleasePayload, decode_payload, encode_payload

if TYPE_CHECKING:
    from collections.abc import Callable

    from seipd.daemon.telling import FactTeller
    from services.kernel.clock import Clock
    from services.mesh.facts.envelope import Fact

LOOK_S: Final = 2.0
MIN_INTERVAL_S: Final = 3600.0
LIFETIME_INTERVALS: Final = 4


def interval_s(servers_count: int) -> float:
    """Return how often a server tells: all together once in sixteen seconds at most."""
    return max(MIN_INTERVAL_S, 16.0 * servers_count)


def lifetime_ms(servers_count: int) -> int:
    """Return how long it holds: a few may get lost."""
    wanted_ms = int(LIFETIME_INTERVALS * interval_s(servers_count) * 1000)
    return min(wanted_ms, KINDS[RELEASE].max_lifetime_ms)


def payload_of(running: Running) -> bytes:
    """Return what a fact of kind 5 says."""
    return encode_payload(
        ReleasePayload(
            version=running.version,
            platform=running.platform,
            python=running.python,
            measurement=bytes.fromhex(running.measurement),
        )
    )


def told_in(fact: Fact) -> Running:
    """Return what a server says that it runs, in a fact of kind 5."""
    said = decode_payload(fact.payload, ReleasePayload)
    return Running(
        version=said.version,
        platform=said.platform,
        python=said.python,
        measurement=said.measurement.hex(),
    )


class ReleaseTeller(TellingService):
    """Tells as soon as this installation is measured, then every hour; it changes by a restart."""

    name: ClassVar[str] = "release-teller"

    def __init__(
        self,
        *,
        running: Callable[[], Running],
        tell: FactTeller,
        servers_count: Callable[[], int],
        clock: Clock,
    ) -> None:
        super().__init__(tell=tell, clock=clock)
        self._running = running
        self._servers_count = servers_count
        self._told_s: float | None = None

    def look(self) -> None:
        """Tell the others if it is time to."""
        now_s, count = self._clock.monotonic_s(), self._servers_count()
        if self._told_s is not None and now_s - self._told_s < interval_s(count):
            return
        with self._telling():
            payload = payload_of(self._running())
            self._tell.publish_fact(RELEASE, payload, lifetime_ms=lifetime_ms(count))
            self._told_s = now_s

    @override
    async def _turn(self) -> float:
        self.look()
        return LOOK_S
