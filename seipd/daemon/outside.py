"""How this server is seen from outside: asked of STUN servers when somebody wants to know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from services.edge.stun.natkind import NatReport, look_at_nat

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from services.edge.stun.messages import Address
    from services.kernel.clock import Clock

FRESH_S: Final = 600.0


class Outside:
    """Asks, and remembers the answer for some minutes."""

    def __init__(
        self,
        *,
        servers: Callable[[], Sequence[Address]],
        clock: Clock,
        look: Callable[[Sequence[Address]], Awaitable[NatReport]] = look_at_nat,
    ) -> None:
        self._servers = servers
        self._clock = clock
        self._look = look
        self._seen: tuple[float, NatReport] | None = None

    async def shown(self) -> dict[str, Any] | None:
        """Return the ``nat`` of ``seipd doctor``; None where there is nobody to ask."""
        servers = self._servers()
        if not servers:
            return None
        now_s = self._clock.monotonic_s()
        if self._seen is None or now_s - self._seen[0] >= FRESH_S:
            self._seen = now_s, await self._look(servers)
        report = self._seen[1]
        return {"kind": report.kind.value, "seen_as": report.seen_as, "asked": report.asked}
