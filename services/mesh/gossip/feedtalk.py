"""What is said about feeds: who holds how much, what is asked for, given and told. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.kernel.errors import SeipdError
from services.mesh.gossip.answers import answer_pull
from services.mesh.gossip.counters import Count
from services.mesh.gossip.digests import is_ahead, sizes_of
from services.mesh.gossip.effects import Forked, OwnFeedCurrent, SendPull
from services.mesh.gossip.messages import Digest, Pull, id_of_raw, raw_id
from services.mesh.gossip.news import News
from services.mesh.gossip.ownfeed import OwnFeed
from services.mesh.gossip.replication import Replicator
from services.mesh.gossip.summary import HASH_BYTES
from services.mesh.gossip.suspicions import Suspicions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from services.mesh.gossip.counters import Counters
    from services.mesh.gossip.digests import Holdings
    from services.mesh.gossip.effects import Catching, Effect
    from services.mesh.gossip.links import Link
    from services.mesh.gossip.messages import Entries, FeedSize, Message
    from services.mesh.gossip.ports import FeedHead, FeedReader, Moment, Rng


class FeedTalk:
    """Keeps the feeds here as long as anywhere; what else is to be done gathers in ``effects``."""

    def __init__(
        self,
        *,
        feeds: FeedReader,
        counters: Counters,
        holdings: Holdings,
        links: Mapping[str, Link],
        rng: Rng,
        own_id: str,
        now_s: float,
        usable: Callable[[str], bool],
        rtt_s: Callable[[str], float | None],
        send: Callable[[str, Message], None],
    ) -> None:
        self._feeds = feeds
        self._counters = counters
        self._holdings = holdings
        self._links = links
        self._send = send
        self._suspicions = Suspicions(feeds)
        self.replicator = Replicator(
            rng=rng, counters=counters, usable=usable, own_id=own_id, rtt_s=rtt_s
        )
        self._own_id = own_id
        self._usable = usable
        self.own = OwnFeed(own_id=own_id, now_s=now_s)
        self.news = News(feeds)
        self.effects: list[Effect] = []

    def plan(self, now: Moment) -> None:
        """Ask for what is missing; cheap when nothing is."""
        self._catch_up(self.replicator.plan(self._feeds.feeds(), now.s))
        if not self.own.is_current:
            self._mind_own(now)

    def _mind_own(self, now: Moment) -> None:
        """Find out whether anybody holds more of our own feed, until we may write."""
        head = self._feeds.feeds().get(self._own_id)
        others = self._feeds.servers().keys() - {self._own_id}
        in_session = [peer for peer in sorted(others) if self._usable(peer)]
        for peer in in_session:
            question = self.own.question(peer, head, now.s)
            if question is not None:
                self._send(peer, question)
        if self.own.decide(
            others=others,
            witnesses=self._feeds.witnesses(),
            in_session=in_session,
            head=head,
            now_s=now.s,
        ):
            self.effects.append(OwnFeedCurrent())

    def grew(self, server_id: str) -> FeedHead | None:
        """Note that more is held of a feed."""
        head = self._feeds.feeds().get(server_id)
        self._holdings.feed(server_id, head)
        self.news.grew(server_id, known_by=self.replicator.holders(server_id, head))
        return head

    def stored(self, server_id: str, now: Moment) -> None:
        """Note that entries of a feed were stored; go on if there is more."""
        head = self.grew(server_id)
        self._catch_up(self.replicator.stored(server_id, head, now.s))

    def forget(self, server_id: str) -> None:
        """Drop what a server has offered and sent."""
        self.replicator.forget(server_id)
        self.news.forget(server_id)

    def on_same_feeds(self, peer: str) -> None:
        """Take it from a peer that it holds of every feed what is held here."""
        if not self.own.is_current:
            own = self._feeds.feeds().get(self._own_id)
            self.own.told(peer, *((own.epoch, own.size) if own else (0, 0)))

    def on_digest(self, peer: str, digest: Digest, now: Moment) -> None:
        """Compare what a peer holds with what is held here."""
        heads = self._feeds.feeds()
        behind = self._links[peer].behind
        newer_here = []
        for one in digest.feeds:
            server_id = id_of_raw(one.server)
            if not self._feeds.is_author(server_id):
                self._counters.add(Count.UNKNOWN_FEED)
                continue
            head = heads.get(server_id)
            if server_id == self._own_id and not self.own.is_current:
                self._own_digest(peer, one, head)
            self.replicator.offered(peer, server_id, one.epoch, one.size, head)
            behind.pop(server_id, None)
            if is_ahead(head, one.epoch, one.size):
                newer_here.append(server_id)
                behind[server_id] = (one.epoch, one.size)
            wish = self._suspicions.compare(peer, one, head, now.s)
            if wish is not None:
                self._send(peer, wish)
        if digest.asks and newer_here:
            self._send(peer, Digest(feeds=tuple(sizes_of(newer_here, heads)), asks=False))
        self.plan(now)

    def on_pull(self, peer: str, pull: Pull, now: Moment) -> None:
        """Give entries, as many as the peer may still have."""
        link = self._links[peer]
        own = self._feeds.feeds().get(self._own_id)
        # Whoever asks for what follows our end may be asking for a proof against us.
        if id_of_raw(pull.server) == self._own_id and own and pull.start < own.size:
            self.own.told(peer, pull.epoch, pull.start)
        try:
            if not link.budget.spend(0, now.s):
                self._counters.add(Count.PULLS_REFUSED)
                return
            answers = answer_pull(pull, self._feeds)
        except SeipdError:
            self._counters.add(Count.PULLS_REFUSED)
            return
        for answer in answers:
            self._counters.add(Count.ENTRIES_SENT, len(answer.entries))
            link.budget.spend(sum(map(len, answer.entries)) + 400, now.s)
            self._send(peer, answer)

    def on_entries(self, peer: str, message: Entries, now: Moment) -> None:
        """Take entries, asked for or not."""
        server_id = id_of_raw(message.server)
        if not self._feeds.is_author(server_id):
            self._counters.add(Count.UNKNOWN_FEED)
            return
        self._suspicions.answered(peer, message, self.effects)
        head = self._feeds.feeds().get(server_id)
        if server_id == self._own_id and not self.own.is_current:
            self._own_entries(peer, message, head)
        self._catch_up(self.replicator.entries(peer, message, head, now.s))
        self.plan(now)

    def _own_digest(self, peer: str, one: FeedSize, head: FeedHead | None) -> None:
        if head is not None and 0 < one.size <= head.size and one.epoch == head.epoch:
            root = self._feeds.root_at(self._own_id, one.epoch, one.size)
            if root is None or root[:HASH_BYTES] != one.root:
                return
        self.own.told(peer, one.epoch, one.size)

    def _own_entries(self, peer: str, message: Entries, head: FeedHead | None) -> None:
        """Take what a peer shows of our own feed: more than we hold, the same, or another story."""
        if head is None or (message.epoch, message.size) > (head.epoch, head.size):
            self.own.told(peer, message.epoch, message.size)
        elif message.checkpoint is None:
            return
        elif message.checkpoint == self._feeds.checkpoint(self._own_id, message.epoch):
            self.own.told(peer, message.epoch, message.size)
        elif message.size == head.size:
            self.effects.append(
                Forked(
                    server_id=self._own_id,
                    epoch=message.epoch,
                    checkpoint=message.checkpoint,
                    source=peer,
                )
            )

    def _catch_up(self, steps: Iterable[Catching]) -> None:
        for step in steps:
            if not isinstance(step, SendPull):
                self.effects.append(step)
                continue
            self._send(
                step.peer,
                Pull(
                    server=raw_id(step.server_id),
                    epoch=step.epoch,
                    start=step.start,
                    stop=step.stop,
                ),
            )
