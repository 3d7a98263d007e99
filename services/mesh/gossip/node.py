"""One gossiping server without its socket: datagrams and time in, effects out.

Whatever is malformed, from a stranger, replayed or not for us ends in a counter and in silence; a
message is acted upon only when it came in a BOX of a session whose both ends have proved
themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from services.kernel.errors import SeipdError
from services.kernel.ids import server_id_of
from services.mesh.facts.kinds import ADDRESS
from services.mesh.gossip.channel import Channel
from services.mesh.gossip.cosigns import CosignOutbox
from services.mesh.gossip.counters import Count, Counters
from services.mesh.gossip.digests import Holdings
from services.mesh.gossip.directory import Directory
from services.mesh.gossip.effects import (
    AddressChanged,
    DeliverCosign,
    Effect,
    FactLearnt,
    MemberChanged,
)
from services.mesh.gossip.feedtalk import FeedTalk
from services.mesh.gossip.messages import (
    Buckets,
    Cosign,
    Cosigned,
    Digest,
    Entries,
    FactCounters,
    Message,
    Peers,
    Pull,
    Summary,
    encode_message,
    id_of_raw,
    raw_id,
)
from services.mesh.gossip.peerstate import PeerState, peer_states
from services.mesh.gossip.session import SessionTable
from services.mesh.membership.membership import Membership
from services.mesh.membership.ports import Changed, Tell
from services.mesh.membership.settings import MembershipSettings
from services.mesh.membership.states import State

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence

    from services.base.crypto.signatures import Signer
    from services.mesh.facts.envelope import Fact
    from services.mesh.gossip.addresses import Advertisement
    from services.mesh.gossip.ports import FeedReader, Moment, Rng
    from services.mesh.gossip.settings import GossipSettings
    from services.mesh.membership.messages import MembershipMessage
    from services.runtime.udp import Address

ROSTER_INTERVAL_S: Final = 0.5
NEWS_GAP_S: Final = 0.02
NEWS_PEERS: Final = 8
FACT_PEERS: Final = 2  # nothing waits for facts, and there are two a second
_REFUSED_FACT: Final = {
    "unknown_kind": Count.FACT_OF_UNKNOWN_KIND,
    "rate_limited": Count.FACT_TOO_OFTEN,
}
_BELIEVED: Final = frozenset({State.ALIVE, State.UNKNOWN, State.SUSPECT})


class GossipNode:
    """Decides everything; the service around it only carries it out."""

    def __init__(
        self,
        *,
        settings: GossipSettings,
        key: Signer,
        mesh_id: bytes,
        feeds: FeedReader,
        rng: Rng,
        now: Moment,
        backbone_of: Callable[[str], str | None],
        is_inner: Callable[[str], bool] = lambda _: False,
        newest_hello_ms: Mapping[str, int] | None = None,
        membership: Mapping[str, object] | None = None,
    ) -> None:
        self._settings = settings
        self._feeds = feeds
        self._rng = rng
        self.server_id = server_id_of(key.public_key)
        self.counters = Counters()
        self.directory = Directory(
            key=key,
            mesh_id=mesh_id,
            key_of=feeds.server_key,
            backbone_of=backbone_of,
            is_inner=is_inner,
        )
        self.sessions = SessionTable(
            key=key,
            mesh_id=mesh_id,
            key_of=feeds.server_key,
            rng=rng,
            newest_hello_ms=newest_hello_ms,
        )
        self._channel = Channel(
            own_id=self.server_id,
            sessions=self.sessions,
            counters=self.counters,
            rng=rng,
            places_of=self.directory.places,
            is_believed=lambda peer: self.membership.state(peer) in _BELIEVED,
            now_s=now.s,
        )
        self.membership = Membership(
            own_id=self.server_id,
            key=key,
            mesh_id=mesh_id,
            settings=MembershipSettings(interval_s=settings.interval_s),
            rng=rng,
            now=now,
            key_of=feeds.server_key,
            saved=membership,
        )
        self._now = now
        self._cosigns = CosignOutbox()
        self._holdings = Holdings(mesh_id=mesh_id, rng=rng)
        self._talk = FeedTalk(
            feeds=feeds,
            counters=self.counters,
            holdings=self._holdings,
            links=self._channel.links,
            rng=rng,
            own_id=self.server_id,
            now_s=now.s,
            usable=lambda peer: self._channel.is_live(peer, self._now.s),
            rtt_s=self.membership.rtt_s,
            send=self._send,
        )
        self._standing: Hashable = None
        self._next_news_s = now.s
        self._next_roster_s = now.s
        self._next_round_s = now.s
        self._effects: list[Effect] = []
        self._handlers: dict[type, Callable[[str, Any, Moment], None]] = {
            Digest: self._talk.on_digest,
            Pull: self._talk.on_pull,
            Entries: self._talk.on_entries,
            Peers: self._on_peers,
            Cosign: self._on_cosign,
            Cosigned: self._on_cosigned,
            Summary: self._on_hashes,
            Buckets: self._on_hashes,
            FactCounters: self._on_fact_counters,
        }

    def datagram(self, data: bytes, address: Address, now: Moment) -> list[Effect]:
        """Take a datagram from the network."""
        self._now = now
        received = self._channel.receive(data, address, now)
        if received is not None:
            if received.fresh:
                self._send(received.peer, self._holdings.summary())
                for facts in self.directory.greeting(now):
                    self._send(received.peer, facts)
            self._on_message(received.peer, received.message, now)
        return self._flush()

    def tick(self, now: Moment) -> list[Effect]:
        """Do what is due; to be called several times an interval."""
        self._now = now
        self._holdings.advance(now.ms)
        if now.s >= self._next_roster_s:
            self._next_roster_s = now.s + ROSTER_INTERVAL_S
            self._refresh_roster(now)
        self._channel.expect(self.membership.coming())
        self._channel.upkeep(now)
        self._mind(self.membership.tick(now))
        for author, message in self._cosigns.due(now.s):
            self._send(author, message)
        self._talk.plan(now)
        self._tell_news()
        if now.s >= self._next_round_s:
            jitter = 0.9 + self._rng.random() / 5
            self._next_round_s = now.s + self._settings.interval_s * jitter
            self._round()
        return self._flush()

    def appended(self, now: Moment) -> list[Effect]:
        """Tell some peers that our own feed has grown."""
        self._now = now
        self._talk.grew(self.server_id)
        self._tell_news()
        return self._flush()

    def stored(self, server_id: str, now: Moment) -> list[Effect]:
        """Note that entries of a feed were stored; pass the news on."""
        self._now = now
        self._talk.stored(server_id, now)
        self._tell_news()
        return self._flush()

    @property
    def is_behind_itself(self) -> bool:
        """Whether another server claims to hold more of our own feed than we do."""
        return self._talk.replicator.is_behind_with(self.server_id)

    def failed(self, server_id: str, source: str, count: Count, now: Moment) -> None:
        """Note that what a source gave, or should have given, was not stored."""
        self.counters.add(count)
        self._talk.replicator.failed(server_id, source, now.s)

    def announce(self, advertisement: Advertisement, gossip_port: int, now: Moment) -> list[Effect]:
        """Say from now on that this server is there.

        Raises:
            InputError: a host that is no address, or a region that is no label.
        """
        self._now = now
        self.directory.announce(advertisement, gossip_port, now)
        self._note_fact(self.directory.book.fact(self.server_id, ADDRESS))
        self._tell_news()
        return self._flush()

    def publish(self, kind: int, payload: bytes, lifetime_ms: int, now: Moment) -> list[Effect]:
        """Say something about this server from now on, for so long.

        Raises:
            InputError: it is nothing that a fact of this kind may say.
            UnavailableError: this server is not in the roster.
        """
        self._now = now
        self._note_fact(self.directory.publish(kind, payload, lifetime_ms, now))
        self._tell_news()
        return self._flush()

    def learn(self, data: bytes, now: Moment, *, stored: bool = False) -> list[Effect]:
        """Take a fact that did not come by gossip.

        Raises:
            WireError: malformed, or of a server that is not in the roster.
            BadSignatureError: not signed by the server that it is about.
        """
        self._now = now
        self._learn(data, now, stored=stored)
        return self._flush()

    def cosign(self, author: str, epoch: int, size: int, line: bytes, now: Moment) -> list[Effect]:
        """Send our cosignature of an author's feed until it has arrived."""
        self._now = now
        message = Cosign(server=raw_id(author), epoch=epoch, size=size, line=line)
        encode_message(message)
        self._cosigns.put(author, message, now.s)
        for to, due in self._cosigns.due(now.s):
            self._send(to, due)
        return self._flush()

    def cosign_taken(self, effect: DeliverCosign) -> list[Effect]:
        """Tell a witness that its cosignature has arrived and need not come again."""
        server = raw_id(effect.server_id)
        confirmation = Cosigned(server=server, epoch=effect.epoch, size=effect.size)
        self._send(effect.witness, confirmation)
        return self._flush()

    def peers(self, now: Moment) -> list[PeerState]:
        """Return what is known of every other server of the roster."""
        return peer_states(self._channel, self.directory, self.membership, self._feeds.feeds(), now)

    def _on_message(self, peer: str, message: Message | None, now: Moment) -> None:
        handler = self._handlers.get(type(message))
        if handler is None and message is not None:
            self._mind(self.membership.on_message(peer, cast("MembershipMessage", message), now))
            return
        self._mind(self.membership.heard(peer, now))
        if handler is not None:
            handler(peer, message, now)

    def _mind(self, steps: Iterable[Tell | Changed]) -> None:
        for step in steps:
            if isinstance(step, Tell):
                self._send(step.peer, step.message)
            else:
                self._effects.append(
                    MemberChanged(server_id=step.server_id, old=step.old, new=step.new)
                )

    def _on_hashes(self, peer: str, hashes: Summary | Buckets, _: Moment) -> None:
        ours = self._holdings.summary()
        if isinstance(hashes, Summary) and hashes.feeds == ours.feeds:
            self._talk.on_same_feeds(peer)
        answers = self._holdings.answer(hashes, self._feeds.feeds()) if hashes != ours else []
        for answer in answers:
            self._send(peer, answer)
        if not answers:
            self._channel.links[peer].behind.clear()

    def _on_cosigned(self, peer: str, message: Cosigned, _: Moment) -> None:
        self._cosigns.arrived(peer, message.epoch, message.size)

    def _on_fact_counters(self, peer: str, theirs: FactCounters, now: Moment) -> None:
        newer_here, wishes = self._holdings.compare_facts(theirs)
        for wish in wishes:
            self._send(peer, wish)
        for facts in self.directory.packed(newer_here, now):
            self._send(peer, facts)

    def _on_peers(self, _: str, message: Peers, now: Moment) -> None:
        for data in message.facts:
            try:
                self._learn(data, now)
            except SeipdError as error:
                self.counters.add(_REFUSED_FACT.get(error.code, Count.BAD_FACT))

    def _learn(self, data: bytes, now: Moment, *, stored: bool = False) -> None:
        if (learnt := self.directory.learn(data, now, stored=stored)) is None:
            return
        fact = learnt.fact
        self._note_fact(fact)
        if learnt.moved:
            self._channel.moved(fact.server_id, now.s)
        if fact.kind == ADDRESS:
            self._effects.append(AddressChanged(fact.server_id))
        self._effects.append(FactLearnt(fact))

    def _on_cosign(self, peer: str, message: Cosign, _: Moment) -> None:
        server_id = id_of_raw(message.server)
        if server_id != self.server_id:
            self.counters.add(Count.UNKNOWN_FEED)
            return
        if peer not in self._feeds.witnesses():
            self.counters.add(Count.FORBIDDEN_TYPE)
            return
        self._effects.append(
            DeliverCosign(
                witness=peer,
                server_id=server_id,
                epoch=message.epoch,
                size=message.size,
                line=message.line,
            )
        )

    def _round(self) -> None:
        summary = self._holdings.summary()
        for peer in self._channel.some_live(self._settings.fanout, self._now.s):
            self._send(peer, summary)

    def _note_fact(self, fact: Fact | None) -> None:
        if fact is not None:
            self._holdings.fact(fact, self._now.ms)

    def _tell_news(self) -> None:
        if self._now.s < self._next_news_s or not (self._talk.news or self.directory.has_news):
            return
        self._next_news_s = self._now.s + NEWS_GAP_S
        known_by = self._talk.news.known_by
        self._tell_some(NEWS_PEERS, self._talk.news.take(), known_by)
        self._tell_some(FACT_PEERS, self.directory.take_news(self._now), ())

    def _tell_some(
        self, count: int, messages: Sequence[Message], known_by: Collection[str]
    ) -> None:
        if not messages:
            return
        for peer in self._channel.audience(count, self._now.s, without=known_by):
            for message in messages:
                self._send(peer, message)

    def _send(self, peer: str, message: Message) -> None:
        self._channel.send(peer, message, self._now)

    def _refresh_roster(self, now: Moment) -> None:
        self._note_fact(self.directory.renew(now))
        self._holdings.feed(self.server_id, self._feeds.feeds().get(self.server_id))
        if self._feeds.standing == self._standing:
            return
        self._standing = self._feeds.standing
        servers, heads = self._feeds.servers(), self._feeds.feeds()
        others = {name: key for name, key in servers.items() if name != self.server_id}
        for gone in sorted(self._channel.links.keys() - others.keys()):
            self._talk.forget(gone)
            self.sessions.newest_hello_ms.pop(gone, None)
        self._channel.set_peers(others, now.s)
        self.membership.set_members(servers, now)
        self.directory.keep_only(servers)
        self._cosigns.keep_only(servers)
        self._holdings.set_servers(self._feeds.authors(), servers, heads)
        for fact in self.directory.book.all():
            self._note_fact(fact)
        for name in servers:
            if (head := heads.get(name)) is not None:
                self._talk.news.begin(name, head)

    def _flush(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        effects += self._talk.effects
        self._talk.effects.clear()
        return effects + self._channel.take()
