"""Claims the lowest free name server slot for this server, while it has none."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar

from services.authority.names.view import CLAIM_KIND, SLOTS, VIEW, slots_held
from services.authority.trust import view as trust_view
from services.kernel.errors import SeipdError
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    import random  # noqa: TID251 (handed in)

    from services.authority.ports import Ledger
    from services.base.ledger.author import Author
    from services.kernel.ids import ServerId
    from services.kernel.views import RosterReader

logger = logging.getLogger(__name__)

JITTER_S = 2.0
RETRY_S = 30.0


class NamesService:
    """At most one claim is under way; each waits a random while, in which others are heard."""

    name: ClassVar[str] = "names"

    def __init__(
        self, *, ledger: Ledger, author: Author, rng: random.Random, jitter_s: float = JITTER_S
    ) -> None:
        self._ledger = ledger
        self._author = author
        self._rng = rng
        self._jitter_s = jitter_s
        self._changed = asyncio.Event()
        self._tasks = TaskOwner("names")
        self._subscribed = False

    async def start(self) -> None:
        """Begin to look for a free slot."""
        if not self._subscribed:
            views = [VIEW, "roster", trust_view.VIEW]
            self._ledger.subscribe(views, lambda _: self._changed.set())
        self._subscribed = True
        self._changed.set()
        self._tasks.spawn(self._claim_forever(), name="names-claim")

    async def stop(self) -> None:
        """Claim no more; what is held stays so."""
        await self._tasks.close()

    def health(self) -> Health:
        """Say which slot this server has."""
        slot = self.slots().get(self._ledger.server_id)
        detail = f"ns{slot}" if slot else "no name server slot"
        return Health(state=HealthState.OK, detail=detail)

    def slots(self) -> dict[ServerId, int]:
        """Return the slot of every server that has one."""
        held = slots_held(self._ledger.state, self._roster())
        return {holder: slot for slot, holder in held.items()}

    async def _claim_forever(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._wanted() is None:
                continue
            await asyncio.sleep(self._rng.uniform(0, self._jitter_s))
            slot = self._wanted()
            if slot is None:
                continue
            try:
                await self._ledger.submit([self._author.record(CLAIM_KIND, {"slot": slot})])
            except SeipdError as error:
                logger.info("ns%d was not claimed: %s", slot, error)
                await asyncio.sleep(RETRY_S * self._rng.uniform(0.5, 1.0))
                self._changed.set()

    def _wanted(self) -> int | None:
        """Return the lowest free slot if this server has none."""
        own = self._ledger.server_id
        held = slots_held(self._ledger.state, self._roster())
        is_worthy = self._ledger.charter.server(own) is not None
        is_worthy = is_worthy and self._ledger.state.get(trust_view.VIEW, own) is None
        if not is_worthy or own in held.values():
            return None
        return next((slot for slot in SLOTS if slot not in held), None)

    def _roster(self) -> RosterReader:
        charter = self._ledger.charter
        return charter.at(charter.number)
