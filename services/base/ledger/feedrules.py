"""What the fold reads in feeds about feeds: the roster, what is settled, what counts. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.base.ledger import feed as feeds
from services.base.ledger.changes import CHANGE_KINDS, GENESIS_KIND
from services.base.ledger.limits import KEPT_KIND, LIMIT_KINDS, Limits, cosigned_times
from services.base.ledger.standing import Attested, Checked, Feed, Item
from services.kernel.errors import InputError
from services.kernel.ids import ServerId, server_id_of

if TYPE_CHECKING:
    from services.base.ledger.roster import Charter
    from services.kernel.records import Entry, Record

Verify = Callable[[bytes, bytes, bytes], bool]
RootAt = Callable[[ServerId, int], bytes | None]

SELF_KINDS = CHANGE_KINDS | {GENESIS_KIND, feeds.ROSTER_KIND, feeds.ATTEST_KIND, KEPT_KIND}


@dataclass(frozen=True, slots=True)
class Heard:
    """What an entry changed: whether entries were settled, and whose limit is another now."""

    rekeyed: bool = False
    limited: ServerId | None = None


_NOTHING = Heard()


def settle(feed: Feed, size: int, time_ms: int) -> bool:
    """Settle a feed up to a size; say whether entries that were known already are settled now."""
    feed.attested = size
    # A witness's clock may step back; the entries of one feed keep their order nevertheless.
    feed.settled_ms = max(feed.settled_ms, time_ms)
    feed.attests.append(Attested(size, feed.settled_ms))
    rekeyed = False
    while feed.unsettled and feed.unsettled[0].index < size:
        item = feed.unsettled.popleft()
        item.settled_ms = feed.settled_ms
        feed.settled_hlc = item.hlc
        rekeyed = True
    return rekeyed


class FeedRules:
    """Reads the entries by which feeds go."""

    def __init__(
        self, *, charter: Charter, limits: Limits, verify: Verify, root_at: RootAt
    ) -> None:
        self._charter = charter
        self._limits = limits
        self._verify = verify
        self.root_at = root_at

    def is_blocked(self, feed: Feed, one: Checked) -> bool:
        """Say whether an entry, and all after it, wait for a roster that is not known yet."""
        if one.entry is None:
            return False
        named = feeds.roster_named(feed.author, one.entry.record)
        if named is None or named[0] <= self._charter.number:
            return False
        # What a recovery took back never comes again.
        return named[1] not in self._charter.passed_over

    def hear(self, feed: Feed, index: int, record: Record) -> Heard:
        """Take what an entry says about its own feed or what counts of another."""
        if record.kind == feeds.ROSTER_KIND:
            named = feeds.roster_named(feed.author, record)
            if named is not None:
                self._go_by(feed, index, *named)
        elif record.kind == feeds.ATTEST_KIND:
            return Heard(rekeyed=self._attest(feed, index, record))
        elif record.kind in LIMIT_KINDS:
            return Heard(limited=self._limits.offer(record, roster_number=feed.roster_number))
        return _NOTHING

    def _go_by(self, feed: Feed, index: int, number: int, text: str) -> None:
        # Only a roster that is known is compared, so that all servers decide alike.
        if number > feed.roster_number and self._charter.hash_at(number) == text:
            feed.named.append((index, number))

    def _attest(self, feed: Feed, index: int, record: Record) -> bool:
        """Settle what is attested; say whether entries that were known already are settled now."""
        if server_id_of(record.actor) != feed.author:
            return False
        try:
            attest = feeds.attest_from_body(record.body)
        except InputError:
            return False
        if attest.size > index or attest.size <= feed.attested:
            return False
        time_ms = self._attested_ms(feed, feed.roster_number_at(index), attest)
        if time_ms is None:
            return False
        feed.attested_roster = feed.roster_number_at(index)
        feed.attested_at = index
        return settle(feed, attest.size, time_ms)

    def _attested_ms(self, feed: Feed, number: int, attest: feeds.Attest) -> int | None:
        """Return the median time if more than half of the witnesses signed this feed's root."""
        roster = self._charter.at(number)
        certificate = roster.server(feed.author)
        if certificate is None or self.root_at(feed.author, attest.size) != attest.root:
            return None
        origin = feeds.feed_origin(self._charter.genesis.mesh_id, feed.author, certificate.epoch)
        times_s = cosigned_times(attest, origin=origin, roster=roster, verify=self._verify)
        return feeds.settled_ms(times_s) if times_s is not None else None


def item_of(feed: Feed, index: int, entry: Entry, settled_ms: int) -> Item | None:
    """Return what views may act on, or None where an entry is nothing of that kind."""
    if entry.record.kind in SELF_KINDS or entry.hlc <= feed.last_hlc:
        return None
    feed.last_hlc = entry.hlc
    number = feed.roster_number_at(index)
    item = Item(feed.author, index, entry.hlc, entry.record, number, settled_ms)
    if item.provisional:
        feed.unsettled.append(item)
    else:
        feed.settled_hlc = entry.hlc
    return item
