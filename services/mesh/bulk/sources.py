"""Who is asked: at most so many sources at once, each as fast as it lets us. Pure.

A source that sent something false is out and is named; one that fails is asked again later, is
asked for no tile that failed a few times, and is out after a few failures in a row.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol

from services.base.ledger.tiles import TILE_WIDTH, TileRef

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SOURCES: Final = 3
MAX_IN_FLIGHT: Final = 4
MAX_FAILURES: Final = 3
MAX_BUSY: Final = 20
FIRST_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 60.0


class Failure(Enum):
    """Why a request brought nothing."""

    LOST = "lost"  # no connection, no answer in time, an error of the server
    BUSY = "busy"  # it asks to be left alone for a while
    MISSING = "missing"
    REFUSED = "refused"
    TOO_LARGE = "too_large"


class Chance(Protocol):
    """Handed in: the system's in the daemon, a seeded one in tests."""

    def random(self) -> float:
        """Return a number from 0 up to 1."""


@dataclass(slots=True, kw_only=True)
class Source:
    """One that holds the feed up to ``size``."""

    name: str
    size: int
    in_flight: int = 0
    failures: int = 0
    busy: int = 0
    not_before_s: float = 0.0
    lacks_edge: bool = False
    misses: Counter[tuple[int | None, int]] = field(default_factory=Counter)
    out: str = ""

    def has(self, ref: TileRef) -> TileRef | None:
        """Return a tile as this source has it, wider than asked for or as wide; None if it has not.

        A server drops the partial tile once it has a wider one.
        """
        width = min((self.size >> 8 * (ref.level or 0)) - ref.index * TILE_WIDTH, TILE_WIDTH)
        if width < ref.width or self.misses[ref.level, ref.index] >= MAX_FAILURES:
            return None
        return TileRef(level=ref.level, index=ref.index, width=width)


@dataclass(slots=True)
class Sources:
    """All of them, in the order in which they are preferred."""

    rng: Chance
    all: dict[str, Source] = field(default_factory=dict)
    blamed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, sizes: Mapping[str, int], rng: Chance) -> Sources:
        """Return sources that each hold so much."""
        return cls(rng, {name: Source(name=name, size=size) for name, size in sizes.items()})

    def ready(self, now_s: float) -> list[Source]:
        """Return the sources that may be asked now: the first few, those that pause last."""
        usable = [one for one in self.all.values() if not one.out]
        usable.sort(key=lambda one: one.not_before_s > now_s)
        return [
            one
            for one in usable[:MAX_SOURCES]
            if one.not_before_s <= now_s and one.in_flight < MAX_IN_FLIGHT
        ]

    def wake_s(self, now_s: float) -> float | None:
        """Return when the next pause ends; None where nobody pauses."""
        ends = [one.not_before_s for one in self.all.values() if not one.out]
        return min((end for end in ends if end > now_s), default=None)

    def succeeded(self, name: str, ref: TileRef) -> None:
        """Note an answer that was good."""
        source = self.all[name]
        source.failures = 0
        if ref.level is None:
            source.busy = 0  # hash tiles may have another rate than entries

    def failed(
        self,
        name: str,
        ref: TileRef,
        failure: Failure,
        now_s: float,
        retry_after_s: float | None = None,
    ) -> None:
        """Note that a request brought nothing."""
        source = self.all[name]
        if failure is Failure.REFUSED:
            source.out = source.out or "it refuses"
            return
        if failure is Failure.BUSY:
            source.busy += 1
            pause_s = retry_after_s if retry_after_s is not None else FIRST_PAUSE_S
            if pause_s > MAX_PAUSE_S:
                source.out = source.out or "it asks for too long a pause"
        else:
            # Requests that were lost together are one failure.
            source.failures += source.not_before_s <= now_s
            source.misses[ref.level, ref.index] += 1 if failure is Failure.LOST else MAX_FAILURES
            pause_s = FIRST_PAUSE_S * 2.0**source.failures
        if source.failures >= MAX_FAILURES or source.busy >= MAX_BUSY:
            source.out = source.out or f"{failure.value} too often"
        pause_s = min(max(pause_s, 0.0), MAX_PAUSE_S) * (1 + self.rng.random() / 4)
        source.not_before_s = max(source.not_before_s, now_s + pause_s)

    def blame(self, name: str, what: str) -> None:
        """Leave a source aside for good: it sent something false."""
        self.all[name].out = what
        self.blamed.setdefault(name, what)
