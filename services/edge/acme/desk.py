"""Tells the mesh what CAs will look for while orders are open, and waits until all name it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

from services.base.jobs.model import TryLaterError
from services.edge.acme.challenges import payload_of
from services.kernel.errors import SeipdError
from services.mesh.facts.kinds import CHALLENGE
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from services.mesh.facts.payloads import Challenge

logger = logging.getLogger(__name__)

LIFETIME_MS: Final = 10 * 60_000
TELL_AGAIN_S: Final = 240.0
TAKE_BACK_S: Final = 2.0
LOOK_INTERVAL_S: Final = 0.5
SEEN_WITHIN_S: Final = 60.0


class FactTeller(Protocol):
    """The part of gossip that is needed here."""

    def publish_fact(self, kind: int, payload: bytes, *, lifetime_ms: int | None = None) -> None:
        """Say something about this server from now on."""


class ChallengeDesk:
    """The challenges of the orders that are open here."""

    def __init__(
        self,
        *,
        tell: FactTeller,
        missing: Callable[[Mapping[str, Collection[str]]], Awaitable[list[str]]],
        seen_within_s: float = SEEN_WITHIN_S,
    ) -> None:
        """Make the desk.

        Args:
            tell: gossip.
            missing: asks every name server of the mesh for TXT records (texts by name below the
                domain, without the prefix) and returns those servers that do not answer all.
            seen_within_s: how long they may take to learn of them.
        """
        self._tell = tell
        self._missing = missing
        self._seen_within_s = seen_within_s
        self._open: dict[str, tuple[Challenge, ...]] = {}
        self._tasks = TaskOwner("acme-challenges")
        self._is_running = False
        self._is_closing = False

    async def start(self) -> None:
        """Tell again what is open, as long as it is."""
        self._is_running, self._is_closing = True, False
        self._tasks.spawn(self._keep_telling(), name="acme-challenges")

    async def stop(self) -> None:
        """Tell nothing more; what was told expires by itself."""
        self._is_running = False
        await self._tasks.close()
        self._open.clear()

    def open(self, order: str, challenges: tuple[Challenge, ...]) -> None:
        """Say what the CA of an order will look for.

        Raises:
            SeipdError: ``too_many_orders``, or gossip does not run.
        """
        before = dict(self._open)
        self._open[order] = challenges
        try:
            self._publish()
        except SeipdError:
            self._open = before
            raise

    def close(self, order: str) -> None:
        """Take back what was said for an order, soon: with what others say by then, in one fact.

        Facts that come too often are not listened to, and orders come together.
        """
        if self._open.pop(order, None) is None or not self._is_running or self._is_closing:
            return
        self._is_closing = True
        self._tasks.spawn(self._take_back(), name="acme-take-back")

    async def wait(self, texts: Mapping[str, Collection[str]]) -> None:
        """Wait until every name server answers these texts.

        Raises:
            TryLaterError: ``challenge_not_seen``: some do not, in all that time.
        """
        left: list[str] = []
        try:
            async with asyncio.timeout(self._seen_within_s):
                while True:
                    left = await self._missing(texts)
                    if not left:
                        return
                    await asyncio.sleep(LOOK_INTERVAL_S)
        except TimeoutError:
            names = ", ".join(left[:9]) or "the name servers"
            raise TryLaterError(
                f"not answered yet by {names}, so the CA was not asked to look",
                after_s=60.0,
                code="challenge_not_seen",
            ) from None

    def _publish(self) -> None:
        told = [one for challenges in self._open.values() for one in challenges]
        self._tell.publish_fact(CHALLENGE, payload_of(told), lifetime_ms=LIFETIME_MS)

    async def _take_back(self) -> None:
        await asyncio.sleep(TAKE_BACK_S)
        self._is_closing = False
        try:
            self._publish()
        except SeipdError as error:
            logger.debug("challenges were not taken back, they expire: %s", error)

    async def _keep_telling(self) -> None:
        while True:
            await asyncio.sleep(TELL_AGAIN_S)
            if not self._open:
                continue
            try:
                self._publish()
            except SeipdError as error:
                logger.warning("challenges were not told: %s", error)
