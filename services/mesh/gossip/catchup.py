"""A feed that is shorter here than elsewhere: what is known of it, what has come. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from services.mesh.gossip.messages import MAX_INDEX

MAX_GAPS: Final = 4


class Doing(Enum):
    """What is being done about it."""

    NOTHING = "nothing"
    PULLING = "pulling"
    FETCHING = "fetching"
    STORING = "storing"


@dataclass(slots=True, kw_only=True)
class Catchup:
    """The state of one feed that is shorter here than elsewhere."""

    server_id: str
    offers: dict[str, tuple[int, int]] = field(default_factory=dict)  # peer: epoch, size
    epoch: int = 0
    have: int = 0
    doing: Doing = Doing.NOTHING
    source: str = ""
    tries: int = 0
    deadline_s: float = 0.0
    started_s: float = 0.0
    by_https: bool = False
    bursts: int = 0  # answers whose end was not seen yet
    progressed: bool = False  # since the last PULL
    entries: dict[int, bytes] = field(default_factory=dict)
    buffered_bytes: int = 0
    checkpoint: tuple[int, bytes] | None = None
    left_aside: dict[str, tuple[float, float]] = field(default_factory=dict)

    def first_gap(self) -> int:
        """Return the index of the first entry that is missing."""
        start = self.have
        while start in self.entries:
            start += 1
        return start

    def gaps(self) -> list[tuple[int, int]]:
        """Return the first ranges that are missing; the last of them may have no end."""
        gaps = []
        start = self.have
        for index in sorted(self.entries):
            if index > start:
                gaps.append((start, index))
            start = index + 1
        if self.checkpoint is None or self.checkpoint[0] > start:
            gaps.append((start, MAX_INDEX))
        return gaps[:MAX_GAPS]

    def clear(self) -> None:
        """Forget what a source has sent."""
        self.entries.clear()
        self.buffered_bytes = 0
        self.checkpoint = None
        self.doing = Doing.NOTHING
        self.tries = 0
