"""When an address is told: on a change alone, and later and later while that fails. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random  # noqa: TID251 (handed in)

FIRST_PAUSE_S: Final = 30.0
MAX_PAUSE_S: Final = 3600.0
MAX_TRIED: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was told, and what was tried since."""

    told: str = ""
    """The address that stands there, as far as is known."""
    failure_count: int = 0
    due_s: float = 0.0
    """Not before; by the clock that never goes back."""
    tried: frozenset[str] = frozenset()
    """What failed since the last time that something was told."""

    def is_due(self, address: str, *, now_s: float) -> bool:
        """Say whether an address is to be told now; a newer one is not made to wait."""
        if not address or address == self.told:
            return False
        return now_s >= self.due_s or address not in self.tried

    def succeeded(self, address: str) -> Plan:
        """Return the plan after an address was told."""
        return Plan(told=address)

    def failed(self, address: str, *, now_s: float, rng: random.Random) -> Plan:
        """Return the plan after a try that failed: twice the pause, of which a half is by chance.

        Those who lose their provider at one moment do not all come back at one moment.
        """
        pause_s = min(FIRST_PAUSE_S * 2.0**self.failure_count, MAX_PAUSE_S)
        return replace(
            self,
            failure_count=min(self.failure_count + 1, 16),
            due_s=now_s + pause_s * rng.uniform(0.5, 1.0),
            # One that comes and goes is no newer each time.
            tried=self.tried | {address} if len(self.tried) < MAX_TRIED else frozenset({address}),
        )
