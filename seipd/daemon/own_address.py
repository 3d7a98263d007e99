"""Looks now and then whether STUN servers see this server at the address that it tells others.

It was found by them when the daemon started, since nobody had said one; a provider may give another
at any time. Two looks in a row have to agree before the others are told.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar, Final

from typing_extensions import override

from seipd.daemon.telling import TellingService
from services.edge.stun.client import find_address
from services.kernel.service import Health

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from seipd.daemon.telling import FactTeller
    from services.edge.stun.asking import Seen
    from services.edge.stun.messages import Address
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

LOOK_S: Final = 300.0
CONFIRM_S: Final = 10.0


class AddressWatch(TellingService):
    """Holds the address as it is now; tells whoever wants to know of another one."""

    name: ClassVar[str] = "public-address"

    def __init__(
        self,
        *,
        host: str,
        servers: Callable[[], Sequence[Address]],
        is_inner: Callable[[str], bool],
        tell: FactTeller,
        clock: Clock,
        find: Callable[[Sequence[Address]], Awaitable[Seen | None]] = find_address,
    ) -> None:
        super().__init__(tell=tell, clock=clock)
        self.host = host
        self._servers = servers
        self._is_inner = is_inner
        self._find = find
        self._other = ""
        self.on_change: list[Callable[[str], None]] = []
        """Told the new address."""

    @override
    def health(self) -> Health:
        """Say which address was found."""
        return Health(state=self._state, detail=self._trouble or f"{self.host}, found by STUN")

    async def look(self) -> float:
        """Ask once; return the seconds until the next look."""
        seen = await self._find(self._servers())
        if seen is None or seen.host == self.host or self._is_inner(seen.host):
            self._other = ""
            return LOOK_S
        if seen.host != self._other:
            self._other = seen.host
            return CONFIRM_S
        logger.info("others see this server at another address than before")
        self.host, self._other = seen.host, ""
        for tell in self.on_change:
            with self._telling():
                tell(self.host)
        return LOOK_S

    @override
    async def _turn(self) -> float:
        return await self.look()
