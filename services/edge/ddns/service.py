"""Keeps the address of this server at a name in somebody else's zone, by what the settings say."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from services.edge.ddns.planning import Plan
from services.kernel.errors import NotFoundError, SeipdError, UnavailableError
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    import random  # noqa: TID251 (handed in)
    from collections.abc import Callable
    from typing import Any

    from services.edge.ddns.store import Told, ToldFile
    from services.edge.ddns.target import Target
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

LOOK_S: Final = 10.0


class Teller(Protocol):
    """Writes an address down where it belongs."""

    async def tell(self, target: Target, address: str, secret: bytes) -> None:
        """Tell an address.

        Raises:
            SeipdError: it is not taken, or nobody is there.
        """


class DdnsService:
    """See the module; without a target it does nothing."""

    name: ClassVar[str] = "ddns"

    def __init__(
        self,
        *,
        target: Target | None,
        address: Callable[[], str],
        secret: Callable[[str], bytes],
        teller: Teller,
        file: ToldFile,
        rng: random.Random,
        clock: Clock,
        look_s: float = LOOK_S,
    ) -> None:
        self._target = target
        self._address = address
        self._secret = secret
        self._teller = teller
        self._file = file
        self._rng = rng
        self._clock = clock
        self._look_s = look_s
        self._plan = Plan()
        self._told: Told | None = None
        self._trouble: SeipdError | None = None
        self._turn = asyncio.Lock()
        self._tasks = TaskOwner("ddns")

    async def start(self) -> None:
        """Begin to look at the address."""
        if self._target is None:
            return
        self._told = await asyncio.to_thread(self._file.load, self._target)
        self._plan = Plan(told=self._told.address if self._told else "")
        self._tasks.spawn(self._keep(), name="ddns-keep")

    async def stop(self) -> None:
        """Look no more; may be called twice."""
        await self._tasks.close()

    def health(self) -> Health:
        """Say which address stands there, or what is in the way."""
        if self._target is None:
            return Health(state=HealthState.OK, detail="not used")
        if self._trouble is not None:
            return Health(state=HealthState.DEGRADED, detail=str(self._trouble))
        return Health(state=HealthState.OK, detail=f"{self._target.name} {self._plan.told}".strip())

    def status(self) -> dict[str, Any]:
        """Return what is kept where, and how it stands."""
        target, told, trouble = self._target, self._told, self._trouble
        if target is None:
            return {"way": None}
        return {
            "way": target.way.value,
            "name": target.name,
            "zone": target.zone,
            "server": target.server or None,
            "secret": target.secret,
            "address": told.address if told else None,
            "told_at_ms": told.at_ms if told else None,
            "failures": self._plan.failure_count,
            "code": trouble.code if trouble else None,
            "trouble": str(trouble) if trouble else None,
        }

    async def update(self) -> dict[str, Any]:
        """Tell the address now, whether it changed or not; return the status.

        Raises:
            NotFoundError: ``no_ddns``: the settings name no place.
            SeipdError: it was not taken.
        """
        if self._target is None:
            raise NotFoundError(
                "there is no name to be kept",
                code="no_ddns",
                mend="set ddns, ddns_name and what goes with them in seipd.toml",
            )
        async with self._turn:
            await self._try(self._target, self._address())
        return self.status()

    async def look(self) -> None:
        """Tell the address if it is due; what comes of it is kept for the status."""
        if self._target is None:
            return
        async with self._turn:
            try:
                address = self._address()
                if self._plan.is_due(address, now_s=self._clock.monotonic_s()):
                    await self._try(self._target, address)
                elif address == self._plan.told:
                    self._trouble = None
            except SeipdError as error:
                if str(error) != str(self._trouble):
                    logger.warning("%s: %s", self._target.name, error, extra={"code": error.code})
                self._trouble = error

    async def _try(self, target: Target, address: str) -> None:
        if not address:
            raise UnavailableError("this server has no public address", code="no_address")
        secret = self._secret(target.secret)
        try:
            await self._teller.tell(target, address, secret)
        except SeipdError as error:
            now_s = self._clock.monotonic_s()
            self._plan = self._plan.failed(address, now_s=now_s, rng=self._rng)
            self._trouble = error
            raise
        self._plan, self._trouble = self._plan.succeeded(address), None
        at_ms = self._clock.now_ms()
        self._told = await asyncio.to_thread(self._file.save, target, address, at_ms=at_ms)
        logger.info("%s is %s now", target.name, address)

    async def _keep(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self._look_s)
