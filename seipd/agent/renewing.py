"""Renews the certificates that ``seip cert issue`` made, when they are due.

Whether the CA wants one renewed sooner or later is asked of the server once an hour.

Whatever goes wrong is logged and tried again later: the tunnel is never the worse for it, and the
certificate in use stays.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.base.jobs.model import Backoff
from services.edge.acme.renewal import standing_of
from services.kernel.errors import CorruptError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random  # noqa: TID251 (handed in)

    from services.edge.acme.certfiles import CertificateFiles
    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

LOOK_S: Final = 60.0
"""How soon a certificate is noticed that was made meanwhile."""
MIN_PAUSE_S: Final = 0.5
LEARN_MS: Final = 3_600_000
LEARN_AGAIN_MS: Final = 300_000
AWAY: Final = Backoff(first_s=5.0, max_s=300.0)
"""While nobody answers: a laptop that wakes up should not wait for long."""
REFUSED: Final = Backoff(first_s=10.0, max_s=6 * 3600.0)
"""After an answer: a CA counts what it is asked for in vain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failed:
    """What is in the way of a renewal."""

    count: int
    why: str
    again_ms: int


def overdue(files: CertificateFiles, now_ms: int) -> list[str]:
    """Return the names whose certificate should long have been renewed, or is damaged."""
    found = []
    for name in files.names():
        try:
            held = files.load(name)
        except CorruptError:
            found.append(name)
            continue
        if held is not None and standing_of(held.leaf, None, now_ms).is_alarming:
            found.append(name)
    return found


class Renewing:
    """Looks after the certificates of this endpoint."""

    def __init__(
        self,
        *,
        files: CertificateFiles,
        renew: Callable[[str], Awaitable[object]],
        learn: Callable[[str], Awaitable[object]],
        clock: Clock,
        rng: Random,
    ) -> None:
        """Make it; nothing is started.

        Args:
            files: where the certificates are.
            renew: gets another one for a name, and installs it.
            learn: asks when the CA wants one renewed, and remembers it beside the certificate.
            clock: the time.
            rng: so that those who failed together don't all come again together.
        """
        self._files = files
        self._renew = renew
        self._learn = learn
        self._clock = clock
        self._rng = rng
        self._failed: dict[str, _Failed] = {}
        self._learn_at_ms: dict[str, int] = {}

    async def run(self) -> None:
        """Renew what is due, until cancelled."""
        while True:
            pause_s = await self.look()
            await asyncio.sleep(pause_s)

    async def look(self) -> float:
        """Renew what is due; return after how many seconds to look again."""
        try:
            dues_ms = await asyncio.to_thread(self._dues_ms)
            for name, due_ms in dues_ms.items():
                if due_ms > self._clock.now_ms():
                    await self._ask_when(name)
                else:
                    await self._try(name)
            dues_ms = await asyncio.to_thread(self._dues_ms)
        except Exception:
            # A disk that fails, or a file that nobody thought of, is no reason to end the tunnel.
            logger.exception("certificates can't be looked at")
            return LOOK_S
        now_ms = self._clock.now_ms()
        soonest_s = min([(due_ms - now_ms) / 1000 for due_ms in dues_ms.values()], default=LOOK_S)
        return min(max(soonest_s, MIN_PAUSE_S), LOOK_S)

    async def _ask_when(self, name: str) -> None:
        now_ms = self._clock.now_ms()
        if now_ms < self._learn_at_ms.get(name, 0):
            return
        try:
            await self._learn(name)
        except Exception as error:  # noqa: BLE001 (nothing here may end the tunnel)
            logger.debug("when to renew %s is not known: %s", name, error)
            wait_ms = LEARN_AGAIN_MS
        else:
            wait_ms = LEARN_MS
        self._learn_at_ms[name] = now_ms + int(wait_ms * self._rng.uniform(0.8, 1.2))

    async def _try(self, name: str) -> None:
        try:
            await self._renew(name)
        except Exception as error:  # noqa: BLE001 (nothing here may end the tunnel)
            self._note(name, error)
        else:
            self._failed.pop(name, None)
            logger.info("a new certificate of %s is installed", name)

    def _note(self, name: str, error: Exception) -> None:
        before = self._failed.get(name)
        count = before.count + 1 if before is not None else 1
        why = str(error) or type(error).__name__
        wait = AWAY if isinstance(error, UnreachableError) else REFUSED
        wait_ms = wait.delay_ms(count, self._rng)
        self._failed[name] = _Failed(count=count, why=why, again_ms=self._clock.now_ms() + wait_ms)
        # Said once: the same again in a minute tells nobody more.
        level = logging.DEBUG if before is not None and before.why == why else logging.WARNING
        logger.log(
            level,
            "the certificate of %s is not renewed, again in %d s: %s",
            name,
            wait_ms // 1000,
            why,
        )

    def _dues_ms(self) -> dict[str, int]:
        """Return when each certificate is to be tried, those that failed not before their wait."""
        found: dict[str, int] = {}
        for name in self._files.names():
            due_ms = self._due_ms(name)
            if due_ms is None:
                continue
            failed = self._failed.get(name)
            found[name] = due_ms if failed is None else max(due_ms, failed.again_ms)
        return found

    def _due_ms(self, name: str) -> int | None:
        now_ms = self._clock.now_ms()
        try:
            held = self._files.load(name)
        except CorruptError:
            return now_ms
        if held is None:
            return None
        standing = standing_of(held.leaf, self._files.advice(name), now_ms)
        # By a wrong clock nothing is due; it is looked at again when the clock was set.
        return None if standing.is_clock_wrong else standing.due_ms
