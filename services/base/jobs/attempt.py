"""What is done with jobs of one name, and what a running job may say of itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from services.base.jobs import transitions
from services.base.jobs.model import Backoff, Job, encode_object
from services.kernel import canonical

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from services.base.jobs.store import JobStore
    from services.kernel.clock import Clock

LEASE_MARGIN_S: Final = 60.0
"""How much longer than its time a job is held: nobody takes over what is still being ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKind:
    """What is done with jobs of one name; the name carries a version: ``acme.order/1``."""

    name: str
    run: Callable[[Attempt], Awaitable[dict[str, Any] | None]]
    timeout_s: float
    max_attempts: int = 8
    parallel: int = 1
    """How many of them run at once."""
    backoff: Backoff = field(default_factory=Backoff)


class Attempt:
    """What a running job knows of itself; every word of it is fenced by the attempt's token."""

    def __init__(self, *, job: Job, store: JobStore, clock: Clock) -> None:
        self._job = job
        self._store = store
        self._clock = clock
        self.deadline: asyncio.Timeout | None = None

    @property
    def id(self) -> str:
        """The job's id."""
        return self._job.id

    @property
    def number(self) -> int:
        """The number of this attempt, from 1."""
        return self._job.attempt

    @property
    def payload(self) -> dict[str, Any]:
        """What was put in."""
        return canonical.decode_object(self._job.payload)

    @property
    def progress(self) -> dict[str, Any]:
        """What this or an earlier attempt wrote down."""
        return canonical.decode_object(self._job.progress)

    async def note(self, progress: dict[str, Any]) -> None:
        """Write down how far it came, durably.

        Raises:
            StaleLeaseError: another attempt holds the job by now.
            StorageError: the disk refused.
        """
        data = encode_object(progress, "progress")
        token, now_ms = self._job.token, self._clock.now_ms()
        self._job = await self._store.change(
            self._job.id,
            lambda job: transitions.note(job, token=token, progress=data, now_ms=now_ms),
        )

    async def extend(self, seconds: float) -> None:
        """Take so much more time from now on.

        Raises:
            StaleLeaseError: another attempt holds the job by now.
            StorageError: the disk refused.
        """
        token, now_ms = self._job.token, self._clock.now_ms()
        lease_ms = int((seconds + LEASE_MARGIN_S) * 1000)
        self._job = await self._store.change(
            self._job.id,
            lambda job: transitions.extend(job, token=token, now_ms=now_ms, lease_ms=lease_ms),
        )
        if self.deadline is not None:
            self.deadline.reschedule(asyncio.get_running_loop().time() + seconds)
