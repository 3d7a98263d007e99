"""Tells the other servers the IPv6 address of this one, if it has one for everybody."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from typing_extensions import override

from seipd.daemon.telling import TellingService
from services.mesh.facts.kinds import ADDRESS6
from services.mesh.facts.payloads import Address6Payload, encode_payload

if TYPE_CHECKING:
    from seipd.daemon.telling import FactTeller
    from services.kernel.clock import Clock

LOOK_S: Final = 5.0
RENEW_S: Final = 3600.0
LIFETIME_MS: Final = 4 * 3_600_000


class Address6Teller(TellingService):
    """Tells as soon as it may, and again long before it would be forgotten."""

    name: ClassVar[str] = "address6"

    def __init__(self, *, host: str, tell: FactTeller, clock: Clock) -> None:
        super().__init__(tell=tell, clock=clock)
        self._host = host
        self._told_s: float | None = None

    def look(self) -> None:
        """Tell the others if there is an occasion."""
        now_s = self._clock.monotonic_s()
        if not self._host or (self._told_s is not None and now_s - self._told_s < RENEW_S):
            return
        with self._telling():
            payload = encode_payload(Address6Payload(host=self._host))
            self._tell.publish_fact(ADDRESS6, payload, lifetime_ms=LIFETIME_MS)
            self._told_s = now_s

    @override
    async def _turn(self) -> float:
        self.look()
        return LOOK_S
