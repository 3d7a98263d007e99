"""What the fold keeps of entries and feeds: where each stands, what was named and attested."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.base.ledger.limits import Prefix
    from services.base.ledger.state import Undo
    from services.kernel.errors import SeipdError
    from services.kernel.hlc import Hlc
    from services.kernel.ids import ServerId
    from services.kernel.records import Entry, Record

UNSETTLED_MS = 1 << 62
KEPT_ATTESTS = 64

OrderKey = tuple[int, int, str, int]


@dataclass(frozen=True, slots=True)
class Checked:
    """An entry as read from a feed: None where it can't be read or its signature is wrong."""

    entry: Entry | None


@dataclass(slots=True, eq=False)
class Item:
    """One entry that views may act on."""

    author: ServerId
    index: int
    hlc: Hlc
    record: Record
    roster_number: int
    settled_ms: int = UNSETTLED_MS
    undo: Undo | None = None
    refusal: str | None = None
    error: SeipdError | None = None
    by_root: bool = False  # whether it was judged as the root's

    @property
    def order_key(self) -> OrderKey:
        """Where the entry stands among all."""
        return (self.settled_ms, self.hlc, self.author, self.index)

    @property
    def provisional(self) -> bool:
        """Whether no attest covers it yet."""
        return self.settled_ms == UNSETTLED_MS


@dataclass(frozen=True, slots=True)
class FeedPoint:
    """Where a feed stands at the settled point: entries included, roster named by then."""

    size: int
    roster_number: int
    settled_hlc: int
    settled_ms: int


@dataclass(frozen=True, slots=True)
class Attested:
    """How much of a feed was settled when."""

    size: int
    settled_ms: int


@dataclass(slots=True)
class Feed:
    """What the fold knows of one feed."""

    author: ServerId
    size: int = 0
    processed: int = 0
    attested: int = 0
    attested_roster: int = 0  # the roster whose witnesses attested it
    attested_at: int = -1  # where the attest stands
    bound: Prefix | None = None  # what counted of it when that decided what is settled when
    last_hlc: int = 0
    settled_hlc: int = 0
    settled_ms: int = 0
    trimmed: int = 0  # entries before this index can't be taken back
    trimmed_hlc: int = 0  # the stamp of the last of them
    attests: deque[Attested] = field(default_factory=lambda: deque(maxlen=KEPT_ATTESTS))
    named: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    blocked: deque[Checked] = field(default_factory=deque)
    unsettled: deque[Item] = field(default_factory=deque)

    @classmethod
    def resumed(cls, author: ServerId, point: FeedPoint) -> Feed:
        """Return a feed as it stood at a settled point."""
        feed = cls(
            author=author,
            size=point.size,
            processed=point.size,
            attested=point.size,
            attested_roster=point.roster_number,
            last_hlc=point.settled_hlc,
            settled_hlc=point.settled_hlc,
            settled_ms=point.settled_ms,
            named=[(0, point.roster_number)],
            trimmed=point.size,
            trimmed_hlc=point.settled_hlc,
        )
        feed.attests.append(Attested(point.size, point.settled_ms))
        return feed

    def can_go_back(self, first: int, limit: Prefix) -> bool:
        """Say whether entries from an index on may be judged anew now that so much counts.

        Not where an attest was heard that stands beyond, or was passed over and counts by now.
        """
        is_bound = self.bound is not None and self.bound != limit
        return not is_bound and first >= max(self.trimmed, self.attested_at + 1)

    @property
    def roster_number(self) -> int:
        """The newest roster that the feed has named."""
        return self.named[-1][1]

    def roster_number_at(self, index: int) -> int:
        """Return the roster that the feed had named before an index."""
        return next(number for at, number in reversed(self.named) if at < index or not at)
