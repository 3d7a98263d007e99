"""Runs jobs: claims what is due, gives each its time, writes down what became of it.

A job runs inside the daemon's event loop and is cancelled when its time is up. One that blocks the
loop stops the watchdog's beat, and systemd ends the process: that counts as an attempt, so after a
few of them such a job is a dead letter and the daemon goes on without it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, Any, ClassVar, Final

from services.base.jobs import transitions
from services.base.jobs.attempt import LEASE_MARGIN_S, Attempt, JobKind
from services.base.jobs.model import (
    MAX_KEY_CHARS,
    Backoff,
    HopelessError,
    Job,
    JobLimits,
    JobState,
    StaleLeaseError,
    TryLaterError,
    encode_object,
)
from services.base.jobs.store import JobStore
from services.kernel import canonical
from services.kernel.errors import CorruptError, InputError, SeipdError, StartError
from services.kernel.service import Health, HealthState
from services.runtime.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random  # noqa: TID251 (handed in)

    from services.kernel.clock import Clock

logger = logging.getLogger(__name__)

MAX_SLEEP_S: Final = 30.0
PRUNE_INTERVAL_S: Final = 3600.0
_EMPTY: Final = canonical.encode({})


class JobsService:
    """The queue and its workers."""

    name: ClassVar[str] = "jobs"

    def __init__(
        self, *, path: Path, clock: Clock, rng: Random, limits: JobLimits | None = None
    ) -> None:
        self._path = path
        self._clock = clock
        self._rng = rng
        self._limits = limits or JobLimits()
        self._store = JobStore(path, self._limits)
        self._kinds: dict[str, JobKind] = {}
        self._running: dict[str, str] = {}
        self._tasks = TaskOwner(self.name, on_crash=self._on_crash)
        self._wake = asyncio.Event()
        self._pruned_s: float | None = None
        self._state = HealthState.STOPPED
        self._trouble = ""
        self._damaged = ""
        self._counts: dict[str, int] = {}

    def register(self, kind: JobKind) -> None:
        """Say how jobs of a name are done; before the start."""
        self._kinds[kind.name] = kind

    async def start(self) -> None:
        """Open the queue, take back what the last run left unfinished, and begin.

        Raises:
            StartError: a newer seipd wrote the queue, or the disk refuses.
        """
        try:
            await self._open()
        except SeipdError as error:
            raise StartError(
                str(error), service=self.name, code=error.code, mend=error.mend
            ) from error
        # The data root is this process's alone: whoever held these jobs is gone.
        await self._reclaim(lambda _: True, "the daemon ended while it ran")
        await self._count()
        self._state = HealthState.OK
        self._tasks.spawn(self._run(), name="jobs")

    async def stop(self) -> None:
        """End what runs and give it back; may be called twice."""
        self._state = HealthState.STOPPED
        await self._tasks.close()
        await self._store.close()

    def health(self) -> Health:
        """Say how many wait, and what is in the way."""
        if self._state is HealthState.STOPPED:
            return Health(state=self._state)
        numbers = ", ".join(f"{count} {state}" for state, count in self._counts.items())
        trouble = self._trouble or self._damaged
        if trouble:
            return Health(state=HealthState.DEGRADED, detail=f"{numbers}; {trouble}")
        return Health(state=self._state, detail=numbers)

    async def enqueue(
        self, kind: str, payload: dict[str, Any], *, key: str | None = None, delay_s: float = 0.0
    ) -> Job:
        """Put a job in the queue, durably.

        Args:
            kind: a name that was registered.
            payload: a JSON object of 16 KiB at most.
            key: while a job of this kind and key is live, that one is returned instead.
            delay_s: how long it waits at least.

        Raises:
            InputError: an unknown kind, or an unfit key.
            TooLargeError: the payload.
            QueueFullError: too many wait.
            StorageError: the disk refused; nothing was put in.
        """
        known = self._kinds.get(kind)
        if known is None:
            raise InputError(f"there are no jobs of kind {kind[:64]}", code="unknown_type")
        if key is not None and not 0 < len(key) <= MAX_KEY_CHARS:
            raise InputError(f"a key has 1 to {MAX_KEY_CHARS} characters")
        now_ms = self._clock.now_ms()
        job = Job(
            id=f"job-{secrets.token_hex(8)}",
            kind=kind,
            payload=encode_object(payload, "a payload"),
            key=key,
            state=JobState.READY,
            attempt=0,
            max_attempts=known.max_attempts,
            run_at_ms=now_ms + int(delay_s * 1000),
            lease_until_ms=0,
            token="",
            created_ms=now_ms,
            changed_ms=now_ms,
            error_code="",
            error="",
            progress=_EMPTY,
            result=_EMPTY,
        )
        job = await self._store.add(job)
        self._wake.set()
        return job

    async def get(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            NotFoundError: there is none.
        """
        return await self._store.get(job_id)

    async def newest_of(self, kind: str, key: str) -> Job | None:
        """Return the job of a kind and key that was put in last, while it is kept."""
        return await self._store.newest_of(kind, key)

    async def page(
        self,
        *,
        state: JobState | None = None,
        kind: str | None = None,
        before: tuple[int, str] | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """Return jobs, the newest first, that are older than ``before`` (creation, id)."""
        return await self._store.page(state=state, kind=kind, before=before, limit=limit)

    async def retry(self, job_id: str) -> Job:
        """Let a dead letter begin anew, or a waiting job run at once.

        Raises:
            NotFoundError: there is none of this id.
            ConflictError: it runs, it is done, or another one does the same by now.
        """
        now_ms = self._clock.now_ms()
        job = await self._store.change(job_id, lambda job: transitions.revive(job, now_ms=now_ms))
        self._wake.set()
        return job

    async def _open(self) -> None:
        try:
            await self._store.open()
        except CorruptError as error:
            # What waits is asked for again by those who need it; a server must not stay away
            # because of its queue. The damaged file is kept for a person to look at.
            aside = self._path.with_name(f"{self._path.name}.damaged-{self._clock.now_ms()}")
            self._path.rename(aside)
            for suffix in ("-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            self._damaged = f"the old queue was damaged and is now {aside.name}"
            logger.error("%s: %s", error, self._damaged)  # noqa: TRY400 (no fault of ours)
            await self._store.open()

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            wait_s = MAX_SLEEP_S
            try:
                await self._reclaim_overdue()
                await self._start_due()
                await self._prune()
                await self._count()
                wait_s = await self._until_next_s()
                self._trouble = ""
            except SeipdError as error:
                if self._trouble != str(error):
                    logger.warning("jobs wait: %s", error)
                self._trouble = str(error)
                wait_s = 5.0
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _start_due(self) -> None:
        while len(self._running) < self._limits.workers:
            job = await self._store.claim(
                token=secrets.token_hex(16),
                now_ms=self._clock.now_ms(),
                lease_ms=self._lease_ms,
                busy=self._busy(),
            )
            if job is None:
                return
            self._running[job.token] = job.kind
            self._tasks.spawn(self._work(job), name=f"job-{job.kind}")

    async def _work(self, job: Job) -> None:
        try:
            await self._settle(job)
        except StaleLeaseError:
            logger.warning("job %s (%s) was overtaken by another attempt", job.id, job.kind)
        except SeipdError as error:
            # Its lease runs out, and then it is tried again.
            logger.warning("job %s (%s): its end was not written: %s", job.id, job.kind, error)
        finally:
            del self._running[job.token]
            self._wake.set()

    async def _settle(self, job: Job) -> None:
        kind, token = self._kinds.get(job.kind), job.token
        if kind is None:
            await self._fail(job, "unknown_type", f"nobody knows {job.kind[:64]}", hopeless=True)
            return
        try:
            result = await self._attempt(kind, job)
        except asyncio.CancelledError:
            now_ms = self._clock.now_ms()
            await self._store.change(
                job.id, lambda held: transitions.release(held, token=token, now_ms=now_ms)
            )
            raise
        except StaleLeaseError:
            raise
        except TryLaterError as error:
            await self._fail(
                job,
                error.code,
                str(error),
                wait_ms=int(error.after_s * 1000),
                counted=error.counted,
            )
        except Exception as error:  # noqa: BLE001 (a job may fail in any way; the others go on)
            await self._fail_by(job, error, kind)
        else:
            data, now_ms = encode_object(result or {}, "a result"), self._clock.now_ms()
            await self._store.change(
                job.id,
                lambda held: transitions.finish(held, token=token, result=data, now_ms=now_ms),
            )

    async def _attempt(self, kind: JobKind, job: Job) -> dict[str, Any] | None:
        attempt = Attempt(job=job, store=self._store, clock=self._clock)
        try:
            canonical.decode_object(job.payload)
            canonical.decode_object(job.progress)
        except SeipdError as error:
            raise HopelessError(f"what it carries is damaged: {error}", code=error.code) from error
        async with asyncio.timeout(kind.timeout_s) as deadline:
            attempt.deadline = deadline
            return await kind.run(attempt)

    async def _fail_by(self, job: Job, error: Exception, kind: JobKind) -> None:
        code = error.code if isinstance(error, SeipdError) else "crashed"
        text = str(error) or type(error).__name__
        if isinstance(error, TimeoutError):
            code, text = "timeout", "it did not end in its time"
        if code == "crashed":
            logger.error("job %s (%s) crashed", job.id, job.kind, exc_info=error)
        await self._fail(
            job,
            code,
            text,
            wait_ms=kind.backoff.delay_ms(job.attempt, self._rng),
            hopeless=isinstance(error, HopelessError),
        )

    async def _fail(
        self,
        job: Job,
        code: str,
        error: str,
        *,
        wait_ms: int = 0,
        hopeless: bool = False,
        counted: bool = True,
    ) -> None:
        now_ms = self._clock.now_ms()
        failed = await self._store.change(
            job.id,
            lambda held: transitions.fail(
                held,
                token=job.token,
                code=code,
                error=error,
                wait_ms=wait_ms,
                now_ms=now_ms,
                hopeless=hopeless,
                counted=counted,
            ),
        )
        level = logging.ERROR if failed.state is JobState.DEAD else logging.INFO
        logger.log(
            level, "job %s (%s) is %s: %s", job.id, job.kind, failed.state.value, failed.error
        )

    async def _reclaim_overdue(self) -> None:
        now_ms = self._clock.now_ms()
        await self._reclaim(lambda job: transitions.is_lost(job, now_ms), "its lease ran out")

    async def _reclaim(self, lost: Callable[[Job], bool], why: str) -> None:
        now_ms = self._clock.now_ms()

        def taken(job: Job) -> Job:
            kind = self._kinds.get(job.kind)
            backoff = kind.backoff if kind is not None else Backoff()
            wait_ms = backoff.delay_ms(job.attempt, self._rng)
            return transitions.reclaim(job, why=why, wait_ms=wait_ms, now_ms=now_ms)

        for job in await self._store.reclaim(lost=lost, change=taken):
            logger.warning("job %s (%s) is %s: %s", job.id, job.kind, job.state.value, why)

    async def _prune(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._pruned_s is None or now_s - self._pruned_s >= PRUNE_INTERVAL_S:
            await self._store.prune(self._clock.now_ms())
            self._pruned_s = now_s

    async def _count(self) -> None:
        self._counts = await self._store.counts()

    async def _until_next_s(self) -> float:
        if len(self._running) >= self._limits.workers:
            return MAX_SLEEP_S
        next_ms = await self._store.next_ms(self._busy())
        if next_ms is None:
            return MAX_SLEEP_S
        return min(max((next_ms - self._clock.now_ms()) / 1000, 0.01), MAX_SLEEP_S)

    def _busy(self) -> list[str]:
        """Return the kinds of which as many run as may."""
        running = list(self._running.values())
        return [name for name, kind in self._kinds.items() if running.count(name) >= kind.parallel]

    def _lease_ms(self, kind: str) -> int:
        known = self._kinds.get(kind)
        return int(((known.timeout_s if known else 0.0) + LEASE_MARGIN_S) * 1000)

    def _on_crash(self, task: str, error: BaseException) -> None:
        self._state, self._trouble = HealthState.FAILED, f"{task} ended: {error!r}"
