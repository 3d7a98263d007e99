"""Asks the CA when to renew, as often as it wants to be asked (RFC 9773), and remembers it.

For this server's own certificates when they are looked at; for those of endpoints when they ask,
one after the other and behind their backs: what is heard is told to them the next time.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from services.edge.acme.failures import retry_after_s
from services.edge.acme.renewal import ASK_AGAIN_MS, Advice, advice_of, ask_again_ms
from services.kernel.errors import SeipdError

if TYPE_CHECKING:
    from services.edge.acme.ca import Authority
    from services.edge.acme.certfiles import CertificateFiles, Installed
    from services.kernel.clock import Clock
    from services.runtime.tasks import TaskOwner

logger = logging.getLogger(__name__)

MAX_WAITING: Final = 64


class Advising:
    """What the CA last said of each certificate."""

    def __init__(self, *, authority: Authority, files: CertificateFiles, clock: Clock) -> None:
        self._authority = authority
        self._files = files
        self._clock = clock
        self._not_before_ms: dict[str, int] = {}
        self._silent_until_ms = 0
        self._waiting: set[str] = set()
        self._turn = asyncio.Lock()

    def soon(self, held: Installed, tasks: TaskOwner) -> None:
        """Ask behind the back of who wants to know, if not too many wait for that already."""
        if held.name not in self._waiting and len(self._waiting) < MAX_WAITING:
            self._waiting.add(held.name)
            tasks.spawn(self._in_turn(held), name="acme-advice")

    async def _in_turn(self, held: Installed) -> None:
        try:
            async with self._turn:
                await self.refresh(held)
        except SeipdError as error:
            logger.warning("when to renew %s is not remembered: %s", held.name, error)
        finally:
            self._waiting.discard(held.name)

    async def refresh(self, held: Installed) -> None:
        """Ask, if it is time to; an answer that does not come changes nothing.

        Raises:
            StorageError: the disk refused what was answered.
        """
        fingerprint, now_ms = held.leaf.fingerprint, self._clock.now_ms()
        not_before_ms = max(self._silent_until_ms, self._not_before_ms.get(fingerprint, 0))
        if held.leaf.renewal_id is None or now_ms < not_before_ms:
            return
        known = await asyncio.to_thread(self._files.advice, held.name)
        if known is not None and known.fingerprint == fingerprint and now_ms < known.ask_again_ms:
            return
        self._not_before_ms[fingerprint] = now_ms + ASK_AGAIN_MS
        try:
            advice = await self._ask(held, held.leaf.renewal_id)
        except SeipdError as error:
            logger.info("the CA does not say when to renew %s: %s", held.name, error)
            return
        if advice is not None:
            await asyncio.to_thread(self._files.save_advice, held.name, advice)
            self._not_before_ms = {}

    async def _ask(self, held: Installed, certificate_id: str) -> Advice | None:
        async with self._authority.stranger() as talk:
            if not await talk.call(lambda ca: ca.tells_renewal):
                self._silent_until_ms = self._clock.now_ms() + ASK_AGAIN_MS
                return None
            start, end, header = await talk.call(lambda ca: ca.renewal_window(certificate_id))
        now_ms = self._clock.now_ms()
        wait_s = retry_after_s(header, now_ms=now_ms, default_s=ASK_AGAIN_MS / 1000)
        return advice_of(
            start,
            end,
            fingerprint=held.leaf.fingerprint,
            ask_again_ms=now_ms + ask_again_ms(wait_s),
        )
