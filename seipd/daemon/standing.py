"""Asks whether this server is one still, when nobody talks to it any more.

Whoever was revoked is met with silence: its HELLOs are dropped before anything is looked at. The
roster is no secret, so it is asked for over HTTPS, and what comes is believed as far as the root
signed it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from services.kernel.errors import SeipdError
from services.kernel.service import Health, HealthState
from services.mesh.membership.states import State
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    import random  # noqa: TID251 (handed in)
    from collections.abc import Callable, Collection, Sequence

    from services.base.ledger.service import LedgerService
    from services.kernel.clock import Clock
    from services.kernel.records import Record
    from services.mesh.bulk.ports import Place
    from services.mesh.gossip.peerstate import PeerState

logger = logging.getLogger(__name__)

LOOK_S: Final = 5.0
SILENCE_S: Final = 15.0
MAX_PAUSE_S: Final = 300.0
ASKED_AT_ONCE: Final = 3
ANSWER_TIMEOUT_S: Final = 10.0


class Asks(Protocol):
    """Asks another server for the roster."""

    async def changes_after(self, place: Place, number: int) -> list[Record]:
        """Return the next changes of the roster after a number, not checked.

        Raises:
            SeipdError: it can't be reached, or what it refuses with.
        """


def is_shunned(peers: Collection[PeerState]) -> bool:
    """Say whether it looks as if nobody wants to talk: none was heard, or most are held dead."""
    dead = sum(peer.state is State.DEAD for peer in peers)
    heard = (peer.last_heard_s for peer in peers)
    is_silent = all(one is None or one > SILENCE_S for one in heard)
    return bool(peers) and (is_silent or 2 * dead > len(peers))


class StandingService:
    """Looks for silence, and asks a few servers, ever more rarely while it lasts."""

    name: ClassVar[str] = "standing"

    def __init__(
        self,
        *,
        ledger: LedgerService,
        asks: Asks,
        peers: Callable[[], Collection[PeerState]],
        places: Callable[[], Sequence[Place]],
        remember: Callable[[Sequence[Record]], None],
        rng: random.Random,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._asks = asks
        self._peers = peers
        self._places = places
        self._remember = remember
        self._rng = rng
        self._clock = clock
        self._since_s: float | None = None
        self._next_s = 0.0
        self._tasks = TaskOwner("standing", on_crash=self._on_crash)
        self._state = HealthState.STOPPED
        self._trouble = ""

    async def start(self) -> None:
        """Begin to look."""
        self._state, self._trouble = HealthState.OK, ""
        self._tasks.spawn(self._look_forever(), name="standing-look")

    async def stop(self) -> None:
        """Look no more; may be called twice."""
        self._state = HealthState.STOPPED
        await self._tasks.close()

    def health(self) -> Health:
        """Say whether this server was revoked, or only met with silence."""
        removal = self._ledger.charter.removal(self._ledger.server_id)
        if removal is not None:
            detail = f"this server was revoked; {removal.size} entries of its feed count"
            return Health(state=HealthState.FAILED, detail=detail)
        return Health(state=self._state, detail=self._trouble)

    async def look(self) -> None:
        """Ask for the roster if nobody has talked to this server for a while."""
        now_s = self._clock.monotonic_s()
        if self._is_removed() or not is_shunned(self._peers()):
            self._since_s, self._trouble = None, ""
            return
        if self._since_s is None:
            self._since_s, self._next_s = now_s, now_s + SILENCE_S
        if now_s < self._next_s:
            return
        self._next_s = now_s + min(max(now_s - self._since_s, SILENCE_S), MAX_PAUSE_S)
        self._trouble = "no other server talks to this one"
        places = list(self._places())
        for place in self._rng.sample(places, min(ASKED_AT_ONCE, len(places))):
            await self._ask(place)
        if self._is_removed():
            logger.error("this server was revoked")
            await asyncio.to_thread(self._remember, self._ledger.charter.records)

    def _is_removed(self) -> bool:
        return self._ledger.charter.removal(self._ledger.server_id) is not None

    async def _ask(self, place: Place) -> None:
        """Take the changes that a server has after ours, until it has none."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                while not self._is_removed():
                    number = self._ledger.charter.number
                    await self._ledger.learn_roster(await self._asks.changes_after(place, number))
                    if self._ledger.charter.number == number:
                        return
        except (SeipdError, TimeoutError) as error:
            logger.debug("%s was asked for the roster: %s", place.server_id, error)

    async def _look_forever(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    def _on_crash(self, task: str, error: BaseException) -> None:
        self._state, self._trouble = HealthState.FAILED, f"{task} ended: {error!r}"
