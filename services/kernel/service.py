"""What the daemon needs of each of its services."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Protocol


class HealthState(Enum):
    """How a service is doing."""

    STARTING = "starting"
    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """One service's answer to "how are you": a state and a sentence for people."""

    state: HealthState
    detail: str = ""


class Service(Protocol):
    """One part of the daemon: started in order, stopped in reverse."""

    name: ClassVar[str]

    async def start(self) -> None:
        """Become usable.

        Raises:
            StartError: it can't; nothing is left behind.
        """

    async def stop(self) -> None:
        """Release everything; may be called twice."""

    def health(self) -> Health:
        """Say how it is doing, without waiting for anything."""
