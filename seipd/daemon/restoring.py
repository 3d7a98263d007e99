"""After a restore: the feed goes on in a new epoch, and no invitation of before is good any more.

A token that was used after the backup was taken would look unused again, so every open invitation
that this server issued is cancelled, before anything else is appended.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from seipd.daemon.restored import remove_restored
from services.kernel.errors import SeipdError, UnavailableError
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from seipd.daemon.restored import Restored
    from services.authority.rootkeys.service import RootKeysService
    from services.base.ledger.author import Author
    from services.base.ledger.changes import EpochEnd
    from services.base.ledger.service import LedgerService
    from services.kernel.records import Record
    from services.mesh.bulk.ports import Place

logger = logging.getLogger(__name__)

RETRY_S: Final = 1.0
MAX_CANCELS_AT_ONCE: Final = 64


class Asks(Protocol):
    """Asks another server for the root's signature."""

    async def end_epoch(self, place: Place, end: EpochEnd, epoch: int) -> list[Record]:
        """Return the roster in which the epoch has ended.

        Raises:
            SeipdError: it can't be reached, or what it refuses with.
        """


class RestoringService:
    """Brings a restored server back into the mesh; without a restore it has nothing to do."""

    name: ClassVar[str] = "restoring"

    def __init__(
        self,
        *,
        identity: Path,
        mark: Restored | None,
        ledger: LedgerService,
        author: Author,
        root_keys: RootKeysService,
        asks: Asks,
        places: Callable[[], Sequence[Place]],
    ) -> None:
        self._identity = identity
        self._ledger = ledger
        self._author = author
        self._root_keys = root_keys
        self._asks = asks
        self._places = places
        self._mark = mark
        self._tasks = TaskOwner("restoring")
        self._why = ""

    async def start(self) -> None:
        """Go on in the background: others may be needed, and tunnels work meanwhile."""
        if self._mark is not None:
            self._why = "this server was restored from a backup"
            self._tasks.spawn(self._run(self._mark), name="restoring")

    async def stop(self) -> None:
        """Leave the rest to the next start."""
        await self._tasks.close()

    def health(self) -> Health:
        """Say what writes wait for."""
        if self._why:
            return Health(state=HealthState.DEGRADED, detail=f"no writes yet: {self._why}")
        return Health(state=HealthState.OK)

    async def _run(self, mark: Restored) -> None:
        while True:
            try:
                if await self._has_epoch(mark):
                    await self._go_on()
                    break
            except SeipdError as error:
                self._say(f"{error}" + (f" ({error.mend})" if error.mend else ""))
            await asyncio.sleep(RETRY_S)
        await asyncio.to_thread(remove_restored, self._identity)
        self._why = ""
        logger.warning("the restore is complete: this server takes writes again")

    async def _has_epoch(self, mark: Restored) -> bool:
        """Ask for the next epoch until the roster names one."""
        own = self._ledger.charter.server(self._ledger.server_id)
        if own is None:
            self._say("this server was revoked; join anew with an empty data root")
            return False
        if own.epoch > mark.epoch:
            return True
        end = self._ledger.own_feed_end()
        if end is None:
            self._say("getting newer entries of its own feed back from the others")
            return False
        if self._root_keys.holds_root:
            async with self._root_keys.turn():
                await self._ledger.learn_roster([await self._root_keys.end_own_epoch(end)])
        else:
            await self._ask_others(end, mark.epoch)
        return False

    async def _ask_others(self, end: EpochEnd, epoch: int) -> None:
        refused: SeipdError = UnavailableError(
            "the root key is not here, and no other server is reached yet"
        )
        for place in self._places():
            try:
                await self._ledger.learn_roster(await self._asks.end_epoch(place, end, epoch))
            except SeipdError as error:
                # What stands in the way at the server with the root key tells more than the rest.
                refused = refused if refused.code == "feed_behind" else error
            else:
                return
        raise refused

    async def _go_on(self) -> None:
        ledger = self._ledger
        open_ones = [
            key
            for _, key, invite in ledger.state.scan("invite")
            if invite["server"] == ledger.server_id
        ]
        records = [self._author.record("auth.cancel", {"invite": one}) for one in open_ones]
        await ledger.go_on(
            [
                records[at : at + MAX_CANCELS_AT_ONCE]
                for at in range(0, len(records), MAX_CANCELS_AT_ONCE)
            ]
        )
        logger.warning("%d invitations of before the restore were cancelled", len(records))

    def _say(self, why: str) -> None:
        if why != self._why:
            logger.warning("no writes yet: %s", why)
        self._why = why
