"""Where a feed stands in the fold: what of it was gone through, named and attested."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.base.ledger.fold import Checked, Item
    from services.kernel.ids import ServerId


@dataclass(slots=True)
class Feed:
    """What the fold knows of one feed."""

    author: ServerId
    size: int = 0
    processed: int = 0
    attested: int = 0
    last_hlc: int = 0
    settled_hlc: int = 0
    settled_ms: int = 0
    named: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    blocked: deque[Checked] = field(default_factory=deque)
    unsettled: deque[Item] = field(default_factory=deque)

    @property
    def roster_number(self) -> int:
        """The newest roster that the feed has named."""
        return self.named[-1][1]

    def roster_number_at(self, index: int) -> int:
        """Return the roster that the feed had named before an index."""
        return next(number for at, number in reversed(self.named) if at < index or not at)
