"""A job, and how many, how large and how long jobs may be. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from services.kernel import canonical
from services.kernel.errors import (
    ConflictError,
    InputError,
    RejectedError,
    TooLargeError,
    UnavailableError,
)

if TYPE_CHECKING:
    from random import Random  # noqa: TID251 (handed in)

MAX_PAYLOAD_BYTES: Final = 16 * 1024
MAX_KEY_CHARS: Final = 300
MAX_ERROR_CHARS: Final = 500
CLOCK_SLACK_MS: Final = 3_600_000
"""How far in the future a job may have been written before that clock is held to be wrong."""


class StaleLeaseError(ConflictError):
    """Another attempt holds the job, or it is over: what this one brings is not taken."""

    default_code = "stale_lease"


class QueueFullError(UnavailableError):
    """So many jobs wait that no more is taken."""

    default_code = "queue_full"


class TryLaterError(UnavailableError):
    """Raised by a job: try again, and not before so many seconds have gone by.

    ``counted=False`` where the wait is no fault of the job, so that it never ends as a dead letter.
    """

    default_code = "later"

    def __init__(
        self, what: str, *, after_s: float, code: str | None = None, counted: bool = True
    ) -> None:
        super().__init__(what, code=code)
        self.after_s = after_s
        self.counted = counted


class HopelessError(RejectedError):
    """Raised by a job: no other attempt will do better."""

    default_code = "hopeless"


class JobState(Enum):
    """Where a job is in its life.

    ready → running → done, or back to ready after a failure, or dead after the last one.
    """

    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"


LIVE: Final = (JobState.READY, JobState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long a failed job waits: twice as long each time, up to a bound, never quite the same."""

    first_s: float = 5.0
    max_s: float = 3600.0
    jitter: float = 0.2
    """The share by which a wait may be longer or shorter."""

    def delay_ms(self, attempt: int, rng: Random) -> int:
        """Return how long to wait after the attempt of this number, from 1."""
        wait_s = min(self.first_s * 2.0 ** min(attempt - 1, 40), self.max_s)
        return int(wait_s * rng.uniform(1 - self.jitter, 1 + self.jitter) * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLimits:
    """The bounds of the queue."""

    max_live: int = 10_000
    """Jobs that wait or run; more are refused."""
    max_over: int = 1_000
    """Jobs that are done, and as many that are dead; the oldest of each are dropped."""
    keep_done_ms: int = 86_400_000
    keep_dead_ms: int = 30 * 86_400_000
    workers: int = 4
    """Jobs that run at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row of the queue; ``payload``, ``progress`` and ``result`` are JSON objects in bytes."""

    id: str
    kind: str
    payload: bytes
    key: str | None
    """What is not to be done twice at once: of live jobs of a kind, one has this key."""
    state: JobState
    attempt: int
    max_attempts: int
    run_at_ms: int
    lease_until_ms: int
    token: str
    """The fence: given to one attempt, and asked back with all that it brings."""
    created_ms: int
    changed_ms: int
    error_code: str
    error: str
    progress: bytes
    result: bytes

    @property
    def is_live(self) -> bool:
        """Whether something is still to happen."""
        return self.state in LIVE


def encode_object(value: dict[str, Any], what: str) -> bytes:
    """Return an object that a job carries as bytes.

    Raises:
        InputError: not an object.
        BadJsonError: not our JSON.
        TooLargeError: over its bound.
    """
    if type(value) is not dict:
        raise InputError(f"{what} is an object")
    data = canonical.encode(value)
    if len(data) > MAX_PAYLOAD_BYTES:
        raise TooLargeError(f"{what} has at most {MAX_PAYLOAD_BYTES} bytes")
    return data


def shown(job: Job) -> dict[str, Any]:
    """Return a job as an operator sees it; its payload may name keys, so it is not in here."""
    return {
        "id": job.id,
        "kind": job.kind,
        "key": job.key,
        "state": job.state.value,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "run_at_ms": job.run_at_ms,
        "created_ms": job.created_ms,
        "changed_ms": job.changed_ms,
        "error_code": job.error_code or None,
        "error": job.error or None,
    }
