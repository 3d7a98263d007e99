"""What membership refused, by reason: what arrives from outside can't make a new name."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Refused(Enum):
    """Everything that is dropped and counted."""

    STRANGER = "stranger"
    RUMOUR_OF_A_STRANGER = "rumour_of_a_stranger"
    REPORTER = "reporter"
    STALE_SUSPICION = "stale_suspicion"
    STALE_ALIVE = "stale_alive"
    FUTURE_ALIVE = "future_alive"
    JUMP = "jump"
    SIGNATURE = "signature"
    ERRAND = "errand"


class Counters:
    """One number for each reason."""

    def __init__(self) -> None:
        self._values = dict.fromkeys(Refused, 0)

    def add(self, reason: Refused) -> None:
        """Count something that was dropped."""
        self._values[reason] += 1

    def __getitem__(self, reason: Refused) -> int:
        return self._values[reason]

    def snapshot(self) -> Mapping[str, int]:
        """Return every number by its name."""
        return {reason.value: value for reason, value in self._values.items()}
