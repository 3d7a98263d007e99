"""The fold: from the entries of all feeds to one state, whatever order they arrive in.

Entries take effect in the order (settled time, stamp, author, index); those that no attest covers
yet come after all settled ones, by (stamp, author, index), and are provisional. Authority is
checked as each entry takes effect. When the order changes, what stood after the first difference is
taken back and applied again; an entry that had effect and has none any more is *voided* and told.

Pure: no I/O, no clock. Entries of one feed come in their order; feeds come in any.
"""

from __future__ import annotations

import bisect
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING

from services.base.ledger.feed import ATTEST_KIND
from services.base.ledger.feedrules import FeedRules, item_of, settle
from services.base.ledger.limits import Limits
from services.base.ledger.rootwatch import RootWatch, offer_changes
from services.base.ledger.rosterview import put_roster
from services.base.ledger.rulestate import RuleState
from services.base.ledger.standing import (
    UNSETTLED_MS,
    Checked,
    Feed,
    FeedPoint,
    Item,
    OrderKey,
)
from services.kernel.errors import InputError, RejectedError, SeipdError
from services.kernel.hlc import hlc_ms
from services.kernel.records import PLATFORM
from services.kernel.versions import require_in_version
from services.kernel.views import FoldContext

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from services.base.ledger.feedrules import RootAt, Verify
    from services.base.ledger.limits import Prefix
    from services.base.ledger.roster import Charter
    from services.base.ledger.state import State
    from services.kernel.ids import MeshId, ServerId
    from services.kernel.records import Record
    from services.kernel.views import Appliers

logger = logging.getLogger(__name__)

RETAIN_SETTLED = 4096
KEEP_VOIDED = 1024
NO_LIMIT = 1 << 62


class HorizonError(SeipdError):
    """An entry belongs before what can be taken back: fold again from the first record."""

    default_code = "fold_horizon"


class Fold:
    """Holds the state and everything needed to put it in order again."""

    def __init__(
        self,
        *,
        charter: Charter,
        state: State,
        appliers: Appliers,
        verify: Verify,
        root_at: RootAt,
        retain_settled: int = RETAIN_SETTLED,
    ) -> None:
        self.charter = charter
        self.state = state
        self.feeds: dict[ServerId, Feed] = {}
        self.voided: deque[Item] = deque(maxlen=KEEP_VOIDED)
        self._appliers = appliers
        self._retain_settled = retain_settled
        self._items: list[Item] = []
        self._rekeyed = False
        self._judge_anew: dict[ServerId, int] = {}
        self._limit_of: dict[ServerId, Prefix] = {}
        self.limit_count = 0
        self.limits = Limits(charter=charter, verify=verify)
        self.rules = FeedRules(charter=charter, limits=self.limits, verify=verify, root_at=root_at)
        self._horizon: OrderKey = (-1, 0, "", 0)
        self._root = RootWatch(charter)

    @property
    def mesh_id(self) -> MeshId:
        """The mesh that this state belongs to."""
        return self.charter.genesis.mesh_id

    def resume(self, points: dict[ServerId, FeedPoint], horizon_ms: int) -> None:
        """Continue from a state file: its feeds' settled sizes and its newest settled time."""
        self.feeds |= {author: Feed.resumed(author, one) for author, one in points.items()}
        self._horizon = (horizon_ms, 1 << 64, "", 0) if points else self._horizon

    def publish_charter(self, standing: Iterable[Record] = ()) -> None:
        """Begin: write the genesis and every server of the roster into the state.

        Args:
            standing: the records on which the limits of a state file rest.
        """
        for record in standing:
            self.limits.offer(record, roster_number=self.charter.number)
        self._publish_charter()
        for author in self.limits.limited():
            self._limit_changed(author)
        self._judge_anew.clear()

    def add(self, author: ServerId, start: int, entries: Sequence[Checked]) -> list[Item]:
        """Take entries of one feed that follow what is there; return the new items.

        Raises:
            HorizonError: the order reaches back before what can be undone.
            ValueError: the entries do not follow the feed.
        """
        feed = self.feed(author)
        if start != feed.size:
            raise ValueError(f"{author}: entries from {start}, held are {feed.size}")
        feed.size += len(entries)
        grown = self.feeds.values() if self.offer_changes(entries) else (feed,)
        feed.blocked.extend(entries)
        fresh = [item for one in grown for item in self._process(one)]
        self._integrate(fresh)
        return fresh

    def items_of(self, records: Iterable[str]) -> list[Item]:
        """Return the retained items with these record ids."""
        wanted = set(records)
        return [item for item in self._items if item.record.id in wanted]

    def forget_last(self, count: int) -> None:
        """Take back the newest ``count`` entries of the order, which nobody was answered for.

        The writer uses it when a transaction fails half way: they are the last of their feed.
        """
        for _ in range(count):
            item = self._items.pop()
            self._undo(item)
            feed = self.feeds[item.author]
            feed.unsettled.pop()
            feed.size -= 1
            feed.processed -= 1

    @property
    def horizon_ms(self) -> int:
        """The settled time up to which nothing can be taken back; below 0 before the first."""
        return self._horizon[0]

    def settled_until(self, time_ms: int = UNSETTLED_MS - 1) -> list[Item]:
        """Return the retained items that were settled by a time, in order."""
        return self._items[: self._count_until(time_ms)]

    def rewind(self, horizon_ms: int = UNSETTLED_MS - 1) -> list[Item]:
        """Take back what was settled after a time, and all that is provisional.

        Returns:
            What was taken back, for ``forward``.
        """
        later = self._items[self._count_until(horizon_ms) :]
        for item in reversed(later):
            self._undo(item)
        return later

    def forward(self, later: list[Item]) -> None:
        """Apply again what ``rewind`` took back."""
        for item in later:
            self._apply(item)

    def _count_until(self, horizon_ms: int) -> int:
        return bisect.bisect_right(self._items, horizon_ms, key=lambda item: item.settled_ms)

    def is_beyond(self, author: ServerId, index: int) -> bool:
        """Say whether an entry stands beyond what counts of its feed: nobody need hold it."""
        limit = self._limit_of.get(author)
        return limit is not None and index >= limit.size

    def settle_kept(self, feed: Feed, have: int) -> bool:
        """Settle what witnesses saw of a liar's feed once that is here; say if it is news."""
        limit = self._limit_of.get(feed.author)
        if limit is None or limit.settled_ms is None or not feed.attested < limit.size <= have:
            return False
        if self.rules.root_at(feed.author, limit.size) != limit.root:
            return False
        feed.bound = feed.bound or limit
        self._rekeyed = settle(feed, limit.size, limit.settled_ms) or self._rekeyed
        return True

    def limit_of(self, author: ServerId) -> Prefix | None:
        """Return what counts of a feed; None where all of it does."""
        return self._limit_of.get(author)

    def feed(self, author: ServerId) -> Feed:
        """Return what is known of a feed; an empty one where nothing is."""
        return self.feeds.setdefault(author, Feed(author=author))

    def append(self, item: Item) -> None:
        """Apply an item that comes after all others.

        Raises:
            HorizonError: it belongs before what can be taken back.
        """
        if item.order_key <= self._horizon:
            raise HorizonError("an entry settled before what can be taken back")
        self._items.append(item)
        self._apply(item)
        self._trim()

    def begin(self) -> None:
        """Begin to append: what is to be judged anew has not been applied yet.

        Raises:
            HorizonError: it was, before the state that the fold began with.
        """
        for author, first in self._judge_anew.items():
            if author in self.feeds and first < self.feeds[author].trimmed:
                raise HorizonError("what can't be taken back is to be judged anew")
        self._judge_anew.clear()
        self._follow_root()

    def _follow_root(self) -> None:
        """Have everything judged anew that another chain of root keys lets count or not."""
        moved = self._root.has_moved()
        self._rekeyed = self._rekeyed or moved
        if moved and self._root.reaches_behind(self.horizon_ms, began=bool(self._items)):
            raise HorizonError("the root was another one where nothing can be taken back")

    def offer_changes(self, entries: Sequence[Checked]) -> bool:
        """Take the roster changes among entries; say whether the roster moved on by them."""
        applied = offer_changes(self.charter, entries)
        if applied:
            self._publish_charter()
        return bool(applied)

    @contextlib.contextmanager
    def as_of(self, time_ms: int, roster_number: int) -> Iterator[None]:
        """Have the state for a while as it was settled at a time, under a roster."""
        later = self.rewind(time_ms)
        if roster_number != (newest := self.charter.number):
            put_roster(self.state, self.charter, roster_number)
        try:
            yield
        finally:
            if roster_number != newest:
                put_roster(self.state, self.charter, newest)
            self.forward(later)

    def _publish_charter(self) -> None:
        self.state.put("mesh", "genesis", self.charter.records[0].value())
        put_roster(self.state, self.charter, self.charter.number)
        for server_id in self.charter.former():
            self._limit_changed(server_id)

    def _process(self, feed: Feed) -> list[Item]:
        """Go through what is not blocked by a roster that is not known yet."""
        fresh: list[Item] = []
        while feed.blocked and not self.rules.is_blocked(feed, feed.blocked[0]):
            entry = feed.blocked.popleft().entry
            index = feed.processed
            feed.processed += 1
            if entry is None:
                continue
            self.hear(feed, index, entry.record)
            item = item_of(feed, index, entry, UNSETTLED_MS)
            if item is not None:
                fresh.append(item)
        self.settle_kept(feed, feed.processed)
        return fresh

    def hear(self, feed: Feed, index: int, record: Record) -> None:
        """Take what an entry says about its own feed or what counts of another."""
        if record.kind == ATTEST_KIND and self.is_beyond(feed.author, index):
            feed.bound = feed.bound or self._limit_of[feed.author]
            return
        heard = self.rules.hear(feed, index, record)
        self._rekeyed = self._rekeyed or heard.rekeyed
        if heard.limited is not None:
            self._limit_changed(heard.limited)

    def _limit_changed(self, author: ServerId) -> None:
        """Have the entries judged anew that one limit lets count and the other does not."""
        before, limit = self._limit_of.get(author), self.limits.of(author)
        if limit is None or limit == before:
            return
        self._limit_of[author] = limit
        self.limit_count += 1
        sizes = [limit.size, before.size if before is not None else NO_LIMIT]
        self._judge_anew[author] = min(*sizes, self._judge_anew.get(author, NO_LIMIT))
        if author in self.feeds:
            self.settle_kept(self.feeds[author], self.feeds[author].processed)

    def _integrate(self, fresh: list[Item]) -> None:
        self._follow_root()
        last = self._items[-1].order_key if self._items else self._horizon
        if not (self._rekeyed or self._judge_anew) and all(one.order_key > last for one in fresh):
            fresh.sort(key=lambda item: item.order_key)
            self._items.extend(fresh)
            for item in fresh:
                self._apply(item)
        else:
            ordered = sorted(self._items + fresh, key=lambda item: item.order_key)
            self._reorder(ordered, self._judge_anew)
            self._rekeyed = False
            self._judge_anew.clear()
        self._trim()

    def _reorder(self, ordered: list[Item], judge_anew: Mapping[ServerId, int]) -> None:
        if ordered and ordered[0].order_key <= self._horizon:
            raise HorizonError("an entry settled before what can be taken back")
        for author, first in judge_anew.items():
            feed = self.feeds.get(author)
            if feed is not None and not feed.can_go_back(first, self._limit_of[author]):
                raise HorizonError("what can't be taken back is to be judged anew")
        same = 0
        for held, wanted in zip(self._items, ordered, strict=False):
            if held is not wanted or held.index >= judge_anew.get(held.author, NO_LIMIT):
                break
            if not self._root.still_judged(held):
                break
            same += 1
        undone, self._items = self._items[same:], ordered
        had_effect = {id(item) for item in undone if item.refusal is None}
        for item in reversed(undone):
            self._undo(item)
        for item in ordered[same:]:
            self._apply(item)
            if item.refusal is not None and id(item) in had_effect:
                self.voided.append(item)

    def _apply(self, item: Item) -> None:
        self.state.begin()
        try:
            self._judge(item)
            item.refusal, item.error = None, None
        except (RejectedError, InputError) as error:
            item.refusal, item.error = error.code, error
        except Exception:
            # A record that trips a rule of ours must not stop every server of the mesh.
            logger.exception("record %s trips its rule", item.record.id)
            item.refusal, item.error = "internal", None
        item.undo = self.state.take_undo()
        if item.refusal is not None:
            self.state.revert(item.undo)
            item.undo = None

    def _judge(self, item: Item) -> None:
        record = item.record
        root_keys = self._root.keys(item)
        item.by_root = record.actor in root_keys
        applier = self._appliers.get(record.kind)
        if applier is None:
            raise RejectedError(f"unknown kind {record.kind}", code="unknown_kind")
        require_in_version(applier, self.state)
        roster = self.charter.at(item.roster_number)
        author = roster.server(item.author)
        if author is None:
            raise RejectedError("the author is no server", code="rejected_unauthorised")
        if self.is_beyond(item.author, item.index):
            code = "untrusted" if self.limits.is_untrusted(item.author) else "revoked"
            raise RejectedError("this part of the author's feed does not count", code=code)
        if record.module != PLATFORM:
            raise RejectedError(f"{record.kind} is not for {record.module}", code="rejected_scope")
        if hlc_ms(item.hlc) > record.not_after:
            raise RejectedError("accepted after not_after", code="record_expired")
        if self.state.get("id", record.id) is not None:
            raise RejectedError("this id has counted already", code="duplicate_id")
        context = FoldContext(
            state=RuleState(self.state),
            record=record,
            hlc=item.hlc,
            author=author,
            roster=roster,
            root_keys=root_keys,
            mesh_id=self.mesh_id,
        )
        applier(context, record.body)
        self.state.put("id", record.id, [item.author.removeprefix("server-"), item.index])

    def _undo(self, item: Item) -> None:
        if item.undo is not None:
            self.state.revert(item.undo)
            item.undo = None

    def _trim(self) -> None:
        if len(self._items) <= 2 * self._retain_settled:
            return
        # What is provisional stands last, and may be much while witnesses are out of reach.
        drop = self._count_until(UNSETTLED_MS - 1) - self._retain_settled
        if drop > 0:
            self._horizon = self._items[drop - 1].order_key
            for item in self._items[:drop]:
                feed = self.feeds[item.author]
                feed.trimmed, feed.trimmed_hlc = item.index + 1, item.hlc
            del self._items[:drop]
