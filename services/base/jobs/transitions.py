"""What becomes of a job, and when. Pure.

    ready    --claim-->    running    a new token, a lease, the attempt counted
    running  --finish-->   done
    running  --fail-->     ready      after a wait, while attempts are left
    running  --fail-->     dead       after the last attempt, or at once where none would help
    running  --release-->  ready      stopped with the daemon: not counted
    running  --reclaim-->  as by fail the lease ran out, or the process ended
    dead     --revive-->   ready      by the operator; attempts are counted from 0

All but ``claim``, ``reclaim`` and ``revive`` ask for the token of the attempt: an attempt that was
overtaken changes nothing any more.
"""

from __future__ import annotations

import dataclasses

from services.base.jobs.model import CLOCK_SLACK_MS, MAX_ERROR_CHARS, Job, JobState, StaleLeaseError
from services.kernel.errors import ConflictError


def is_due(job: Job, now_ms: int) -> bool:
    """Say whether a job waits to be claimed."""
    is_time = job.run_at_ms <= now_ms or _is_of_future(job, now_ms)
    return job.state is JobState.READY and is_time


def is_lost(job: Job, now_ms: int) -> bool:
    """Say whether a job's attempt has had its time."""
    is_time = job.lease_until_ms <= now_ms or _is_of_future(job, now_ms)
    return job.state is JobState.RUNNING and is_time


def claim(job: Job, *, token: str, now_ms: int, lease_ms: int) -> Job:
    """Begin an attempt.

    Raises:
        ConflictError: it is not due.
    """
    if not is_due(job, now_ms):
        raise ConflictError(f"job {job.id} is not due")
    return dataclasses.replace(
        job,
        state=JobState.RUNNING,
        attempt=job.attempt + 1,
        token=token,
        lease_until_ms=now_ms + lease_ms,
        changed_ms=now_ms,
    )


def extend(job: Job, *, token: str, now_ms: int, lease_ms: int) -> Job:
    """Give an attempt more time.

    Raises:
        StaleLeaseError: it is not the attempt that holds the job.
    """
    _require_holder(job, token)
    return dataclasses.replace(job, lease_until_ms=now_ms + lease_ms, changed_ms=now_ms)


def note(job: Job, *, token: str, progress: bytes, now_ms: int) -> Job:
    """Write down how far an attempt came, for itself or the next.

    Raises:
        StaleLeaseError: it is not the attempt that holds the job.
    """
    _require_holder(job, token)
    return dataclasses.replace(job, progress=progress, changed_ms=now_ms)


def finish(job: Job, *, token: str, result: bytes, now_ms: int) -> Job:
    """End a job well.

    Raises:
        StaleLeaseError: it is not the attempt that holds the job.
    """
    _require_holder(job, token)
    return _over(job, JobState.DONE, now_ms, result=result, error_code="", error="")


def fail(
    job: Job,
    *,
    token: str,
    code: str,
    error: str,
    wait_ms: int,
    now_ms: int,
    hopeless: bool = False,
    counted: bool = True,
) -> Job:
    """End an attempt badly: the next one begins after ``wait_ms``, if there is a next one.

    Raises:
        StaleLeaseError: it is not the attempt that holds the job.
    """
    _require_holder(job, token)
    job = dataclasses.replace(job, error_code=code, error=error[:MAX_ERROR_CHARS])
    if not counted:
        job = dataclasses.replace(job, attempt=job.attempt - 1)
    if hopeless or job.attempt >= job.max_attempts:
        return _over(job, JobState.DEAD, now_ms)
    return _waiting(job, now_ms + wait_ms, now_ms)


def release(job: Job, *, token: str, now_ms: int) -> Job:
    """Give a job back unfinished, by no fault of its own.

    Raises:
        StaleLeaseError: it is not the attempt that holds the job.
    """
    _require_holder(job, token)
    return _waiting(dataclasses.replace(job, attempt=job.attempt - 1), now_ms, now_ms)


def reclaim(job: Job, *, why: str, wait_ms: int, now_ms: int) -> Job:
    """Take a job from an attempt that will not come back.

    Whoever held it still may try to bring something; the token is gone, so it is refused.
    """
    lost = dataclasses.replace(job, error_code="lost", error=why)
    if lost.attempt >= lost.max_attempts:
        return _over(lost, JobState.DEAD, now_ms)
    return _waiting(lost, now_ms + wait_ms, now_ms)


def bury(job: Job, *, code: str, error: str, now_ms: int) -> Job:
    """Make a waiting job a dead letter: nobody here knows what to do with it."""
    buried = dataclasses.replace(job, error_code=code, error=error[:MAX_ERROR_CHARS])
    return _over(buried, JobState.DEAD, now_ms)


def revive(job: Job, *, now_ms: int) -> Job:
    """Let a dead letter begin anew, or a waiting job run at once.

    Raises:
        ConflictError: it runs, or it is done.
    """
    if job.state is JobState.READY:
        return dataclasses.replace(job, run_at_ms=now_ms, changed_ms=now_ms)
    if job.state is not JobState.DEAD:
        raise ConflictError(f"job {job.id} is {job.state.value}")
    return _waiting(dataclasses.replace(job, attempt=0), now_ms, now_ms)


def _is_of_future(job: Job, now_ms: int) -> bool:
    """Say whether the clock was ahead when a job was written: what it waits for may be years."""
    return job.changed_ms > now_ms + CLOCK_SLACK_MS


def _require_holder(job: Job, token: str) -> None:
    if job.state is not JobState.RUNNING or not token or job.token != token:
        raise StaleLeaseError(f"job {job.id} is no longer this attempt's")


def _waiting(job: Job, run_at_ms: int, now_ms: int) -> Job:
    return dataclasses.replace(
        job,
        state=JobState.READY,
        run_at_ms=run_at_ms,
        token="",
        lease_until_ms=0,
        changed_ms=now_ms,
    )


def _over(job: Job, state: JobState, now_ms: int, **changes: object) -> Job:
    return dataclasses.replace(
        job,
        state=state,
        token="",
        lease_until_ms=0,
        changed_ms=now_ms,
        **changes,  # type: ignore[arg-type]  # fields of a Job
    )
