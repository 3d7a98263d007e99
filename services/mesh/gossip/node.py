"""One gossiping server without its socket: datagrams and time in, effects out.

Whatever is malformed, from a stranger, replayed or not for us ends in a counter and in silence; a
message is acted upon only when it came in a BOX of a session whose both ends have proved
themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from services.base.ledger.checkpoint import parse_checkpoint
from services.base.ledger.note import parse_note
from services.kernel.errors import SeipdError
from services.kernel.ids import server_id_of
from services.mesh.gossip.answers import pack_answer, wanted_range
from services.mesh.gossip.channel import Channel
from services.mesh.gossip.cosigns import CosignOutbox
from services.mesh.gossip.counters import Count, Counters
from services.mesh.gossip.digests import DigestCursor, is_ahead, sizes_of
from services.mesh.gossip.directory import Directory
from services.mesh.gossip.effects import (
    AddressChanged,
    Catching,
    DeliverCosign,
    Effect,
    SendPull,
)
from services.mesh.gossip.messages import (
    MAX_FEEDS,
    Cosign,
    Cosigned,
    Digest,
    Entries,
    Message,
    Peers,
    Ping,
    Pong,
    Pull,
    encode_message,
    id_of_raw,
    raw_id,
)
from services.mesh.gossip.peerstate import PeerState, peer_states
from services.mesh.gossip.replication import Replicator
from services.mesh.gossip.session import SessionTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from services.base.crypto.signatures import Signer
    from services.mesh.gossip.addresses import Advertisement
    from services.mesh.gossip.ports import FeedReader, Moment, Rng
    from services.mesh.gossip.settings import GossipSettings
    from services.runtime.udp import Address

ROSTER_INTERVAL_S: Final = 0.5
NEWS_GAP_S: Final = 0.02
NEWS_PEERS: Final = 8
FACT_ROUNDS: Final = 5
FACTS_AT_WELCOME: Final = 16
FACTS_A_ROUND: Final = 5


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
        newest_hello_ms: Mapping[str, int] | None = None,
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
            rng=rng,
        )
        self.sessions = SessionTable(
            key=key,
            mesh_id=mesh_id,
            key_of=feeds.server_key,
            rng=rng,
            newest_hello_ms=newest_hello_ms,
        )
        self._channel = Channel(
            sessions=self.sessions,
            counters=self.counters,
            rng=rng,
            places_of=self.directory.places,
            now_s=now.s,
        )
        self._now_s = now.s
        self._replicator = Replicator(
            rng=rng,
            counters=self.counters,
            usable=lambda peer: self._channel.is_live(peer, self._now_s),
            own_id=self.server_id,
        )
        self._cosigns = CosignOutbox()
        self._cursor = DigestCursor()
        self._servers: Mapping[str, bytes] = {}
        self._news: dict[str, None] = {}
        self._forward_only = True
        self._next_news_s = now.s
        self._next_roster_s = now.s
        self._next_round_s = now.s
        self._rounds = 0
        self._effects: list[Effect] = []

    def datagram(self, data: bytes, address: Address, now: Moment) -> list[Effect]:
        """Take a datagram from the network."""
        self._now_s = now.s
        received = self._channel.receive(data, address, now)
        if received is not None:
            if received.fresh:
                self._welcome(received.peer, now)
            if received.message is not None:
                self._on_message(received.peer, received.message, now)
        return self._flush()

    def tick(self, now: Moment) -> list[Effect]:
        """Do what is due; to be called several times an interval."""
        self._now_s = now.s
        if now.s >= self._next_roster_s:
            self._next_roster_s = now.s + ROSTER_INTERVAL_S
            self._refresh_roster(now)
        self._channel.upkeep(now)
        for author, message in self._cosigns.due(now.s):
            self._channel.send(author, message)
        self._catch_up(self._replicator.plan(self._feeds.feeds(), now.s))
        self._tell_news(now.s)
        if now.s >= self._next_round_s:
            jitter = 0.9 + self._rng.random() / 5
            self._next_round_s = now.s + self._settings.interval_s * jitter
            self._round(now)
        return self._flush()

    def appended(self, now: Moment) -> list[Effect]:
        """Tell some peers that our own feed has grown."""
        self._now_s = now.s
        self._news[self.server_id] = None
        self._forward_only = False
        self._tell_news(now.s)
        return self._flush()

    def stored(self, server_id: str, now: Moment) -> list[Effect]:
        """Note that entries of a feed were stored; pass the news on."""
        self._now_s = now.s
        self._news[server_id] = None
        head = self._feeds.feeds().get(server_id)
        self._catch_up(self._replicator.stored(server_id, head, now.s))
        self._tell_news(now.s)
        return self._flush()

    def failed(self, server_id: str, source: str, count: Count, now: Moment) -> None:
        """Note that what a source gave, or should have given, was not stored."""
        self.counters.add(count)
        self._replicator.failed(server_id, source, now.s)

    def announce(self, advertisement: Advertisement, gossip_port: int, now: Moment) -> list[Effect]:
        """Say from now on that this server is there.

        Raises:
            InputError: a host that is no address, or a region that is no label.
        """
        self.directory.announce(advertisement, gossip_port, now)
        self._tell_news(now.s)
        return self._flush()

    def learn(self, data: bytes, now: Moment, *, stored: bool = False) -> list[Effect]:
        """Take an address fact that did not come by gossip.

        Raises:
            WireError: malformed, or of a server that is not in the roster.
            BadSignatureError: not signed by the server that it is about.
        """
        self._learn(data, now, stored=stored)
        return self._flush()

    def cosign(self, author: str, epoch: int, size: int, line: bytes, now: Moment) -> list[Effect]:
        """Send our cosignature of an author's feed until it has arrived."""
        message = Cosign(server=raw_id(author), epoch=epoch, size=size, line=line)
        encode_message(message)
        self._cosigns.put(author, message, now.s)
        for to, due in self._cosigns.due(now.s):
            self._channel.send(to, due)
        return self._flush()

    def cosign_taken(self, effect: DeliverCosign) -> list[Effect]:
        """Tell a witness that its cosignature has arrived and need not come again."""
        server = raw_id(effect.server_id)
        confirmation = Cosigned(server=server, epoch=effect.epoch, size=effect.size)
        self._channel.send(effect.witness, confirmation)
        return self._flush()

    def peers(self, now: Moment) -> list[PeerState]:
        """Return what is known of every other server of the roster."""
        return peer_states(self._channel, self.directory, self._feeds.feeds(), now.s)

    def _on_message(self, peer: str, message: Message, now: Moment) -> None:
        match message:
            case Digest():
                self._on_digest(peer, message, now)
            case Pull():
                self._on_pull(peer, message, now)
            case Entries():
                head = self._feeds.feeds().get(id_of_raw(message.server))
                self._catch_up(self._replicator.entries(peer, message, head, now.s))
            case Peers():
                self._on_peers(message, now)
            case Cosign():
                self._on_cosign(peer, message)
            case Cosigned():
                self._cosigns.arrived(peer, message.epoch, message.size)
            case Ping():
                self._channel.send(peer, Pong(nonce=message.nonce))
            case Pong():
                if link := self._channel.links.get(peer):
                    link.ponged(message.nonce, now.s)

    def _on_digest(self, peer: str, digest: Digest, now: Moment) -> None:
        heads = self._feeds.feeds()
        link = self._channel.links.get(peer)
        newer_here = []
        for one in digest.feeds:
            server_id = id_of_raw(one.server)
            if self._feeds.server_key(server_id) is None:
                self.counters.add(Count.UNKNOWN_FEED)
                continue
            head = heads.get(server_id)
            self._replicator.offered(peer, server_id, one.epoch, one.size, head)
            if is_ahead(head, one.epoch, one.size):
                newer_here.append(server_id)
            if link is not None:
                link.behind.pop(server_id, None)
                if is_ahead(head, one.epoch, one.size):
                    link.behind[server_id] = (one.epoch, one.size)
        if digest.asks and newer_here:
            self._channel.send(peer, Digest(feeds=tuple(sizes_of(newer_here, heads)), asks=False))
        self._catch_up(self._replicator.plan(heads, now.s))

    def _on_pull(self, peer: str, pull: Pull, now: Moment) -> None:
        link = self._channel.links.get(peer)
        if link is None or not link.budget.spend(0, now.s):
            self.counters.add(Count.PULLS_REFUSED)
            return
        try:
            answers = self._answers(pull)
        except SeipdError:
            self.counters.add(Count.PULLS_REFUSED)
            return
        for answer in answers:
            self.counters.add(Count.ENTRIES_SENT, len(answer.entries))
            link.budget.spend(sum(map(len, answer.entries)) + 400, now.s)
            self._channel.send(peer, answer)

    def _answers(self, pull: Pull) -> list[Entries]:
        server_id = id_of_raw(pull.server)
        checkpoint = self._feeds.checkpoint(server_id, pull.epoch)
        if checkpoint is None:
            return []
        size = parse_checkpoint(parse_note(checkpoint).text).size
        start, stop = wanted_range(pull, size)
        entries = self._feeds.read(server_id, pull.epoch, start, stop) if start < stop else []
        if not entries and start != size:
            return []
        return pack_answer(pull, entries, size=size, checkpoint=checkpoint)

    def _on_peers(self, message: Peers, now: Moment) -> None:
        for data in message.facts:
            try:
                self._learn(data, now)
            except SeipdError:
                self.counters.add(Count.BAD_FACT)

    def _learn(self, data: bytes, now: Moment, *, stored: bool = False) -> None:
        learnt = self.directory.learn(data, now, stored=stored)
        if learnt is None:
            return
        server_id = learnt.fact.server_id
        link = self._channel.links.get(server_id)
        if learnt.moved and link is not None:
            link.moved(now.s)
        self._effects.append(AddressChanged(server_id))

    def _on_cosign(self, peer: str, message: Cosign) -> None:
        server_id = id_of_raw(message.server)
        if server_id != self.server_id:
            self.counters.add(Count.UNKNOWN_FEED)
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

    def _catch_up(self, steps: Iterable[Catching]) -> None:
        for step in steps:
            if not isinstance(step, SendPull):
                self._effects.append(step)
                continue
            self._channel.send(
                step.peer,
                Pull(
                    server=raw_id(step.server_id),
                    epoch=step.epoch,
                    start=step.start,
                    stop=step.stop,
                ),
            )

    def _welcome(self, peer: str, now: Moment) -> None:
        """Begin a session: this first BOX also proves to the other that we are there."""
        self._channel.ping(peer, now.s)
        for facts in self.directory.some(FACTS_AT_WELCOME, now):
            self._channel.send(peer, facts)
        for digest in self._cursor.next_round(self._servers, self._feeds.feeds()):
            self._channel.send(peer, digest)

    def _round(self, now: Moment) -> None:
        live = self._channel.live_peers(now.s)
        chosen = self._rng.sample(live, min(self._settings.fanout, len(live)))
        messages: list[Message] = []
        messages += self._cursor.next_round(self._servers, self._feeds.feeds())
        self._rounds += 1
        if self._rounds % FACT_ROUNDS == 0:
            messages += self.directory.some(FACTS_A_ROUND, now)
        for peer in chosen:
            self._channel.ping(peer, now.s)
            for message in messages:
                self._channel.send(peer, message)

    def _tell_news(self, now_s: float) -> None:
        if now_s < self._next_news_s or not (self._news or self.directory.has_news):
            return
        self._next_news_s = now_s + NEWS_GAP_S
        live = self._channel.live_peers(now_s)
        wanted = self._settings.fanout if self._forward_only else NEWS_PEERS
        chosen = self._rng.sample(live, min(wanted, len(live)))
        sizes = sizes_of(self._news, self._feeds.feeds())
        messages: list[Message] = [
            Digest(feeds=tuple(sizes[at : at + MAX_FEEDS]), asks=False)
            for at in range(0, len(sizes), MAX_FEEDS)
        ]
        messages += self.directory.take_news()
        for peer in chosen:
            for message in messages:
                self._channel.send(peer, message)
        self._news.clear()
        self._forward_only = True

    def _refresh_roster(self, now: Moment) -> None:
        self._servers = self._feeds.servers()
        others = {name: key for name, key in self._servers.items() if name != self.server_id}
        for gone in sorted(self._channel.links.keys() - others.keys()):
            self._replicator.forget(gone)
            self.sessions.newest_hello_ms.pop(gone, None)
        self._channel.set_peers(others, now.s)
        self.directory.book.keep_only(self._servers)
        self._cosigns.keep_only(self._servers)
        self.directory.renew(now)

    def _flush(self) -> list[Effect]:
        effects, self._effects = self._effects, []
        effects.extend(self._channel.take())
        return effects
