"""What is said about feeds: who holds how much, what is asked for, given and told. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.kernel.errors import SeipdError
from services.mesh.gossip.answers import answer_pull
from services.mesh.gossip.counters import Count
from services.mesh.gossip.digests import is_ahead, sizes_of
from services.mesh.gossip.effects import SendPull
from services.mesh.gossip.messages import Digest, Pull, id_of_raw, raw_id
from services.mesh.gossip.news import News
from services.mesh.gossip.replication import Replicator
from services.mesh.gossip.suspicions import Suspicions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from services.mesh.gossip.counters import Counters
    from services.mesh.gossip.digests import Holdings
    from services.mesh.gossip.effects import Catching, Effect
    from services.mesh.gossip.links import Link
    from services.mesh.gossip.messages import Entries, Message
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
        usable: Callable[[str], bool],
        send: Callable[[str, Message], None],
    ) -> None:
        self._feeds = feeds
        self._counters = counters
        self._holdings = holdings
        self._links = links
        self._send = send
        self._suspicions = Suspicions(feeds)
        self.replicator = Replicator(rng=rng, counters=counters, usable=usable, own_id=own_id)
        self.news = News(feeds)
        self.effects: list[Effect] = []

    def plan(self, now: Moment) -> None:
        """Ask for what is missing; cheap when nothing is."""
        self._catch_up(self.replicator.plan(self._feeds.feeds(), now.s))

    def grew(self, server_id: str) -> FeedHead | None:
        """Note that more is held of a feed."""
        head = self._feeds.feeds().get(server_id)
        self._holdings.feed(server_id, head)
        self.news.grew(server_id)
        return head

    def stored(self, server_id: str, now: Moment) -> None:
        """Note that entries of a feed were stored; go on if there is more."""
        head = self.grew(server_id)
        self._catch_up(self.replicator.stored(server_id, head, now.s))

    def forget(self, server_id: str) -> None:
        """Drop what a server has offered and sent."""
        self.replicator.forget(server_id)
        self.news.forget(server_id)

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
        self._catch_up(self.replicator.entries(peer, message, head, now.s))
        self.plan(now)

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
