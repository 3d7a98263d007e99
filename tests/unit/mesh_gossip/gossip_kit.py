"""A mesh in memory: real nodes, virtual time, a network that loses, doubles and delays."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.base.crypto.signatures import SigningKey
from services.base.ledger.checkpoint import Checkpoint, parse_checkpoint, sign_checkpoint
from services.base.ledger.note import NoteVerifier, open_note
from services.kernel.errors import ConflictError, NotFoundError, SeipdError, WireError
from services.kernel.ids import server_id_of
from services.mesh.gossip.addresses import Advertisement
from services.mesh.gossip.counters import Count
from services.mesh.gossip.effects import (
    AddressChanged,
    DeliverCosign,
    FetchTiles,
    Forked,
    Ingest,
    MemberChanged,
    OwnFeedCurrent,
    Send,
)
from services.mesh.gossip.node import GossipNode
from services.mesh.gossip.ports import Moment
from services.mesh.gossip.settings import GossipSettings

if TYPE_CHECKING:
    from services.mesh.membership.states import State

MESH_ID = hashlib.sha256(b"a mesh").digest()
START_MS = 1_700_000_000_000
PORT = 9102


def key_of(name: str) -> SigningKey:
    return SigningKey(hashlib.sha256(name.encode()).digest())


def id_of(name: str) -> str:
    return server_id_of(key_of(name).public_key)


def origin_of(server_id: str, epoch: int) -> str:
    return f"seipd/{MESH_ID.hex()}/{server_id}/{epoch}"


def root_of(entries: list[bytes]) -> bytes:
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(hashlib.sha256(entry).digest())
    return digest.digest()


def note_of(key: SigningKey, epoch: int, entries: list[bytes]) -> bytes:
    origin = origin_of(server_id_of(key.public_key), epoch)
    checkpoint = Checkpoint(origin=origin, size=len(entries), root=root_of(entries))
    return sign_checkpoint(checkpoint, signer=key)


@dataclass
class Head:
    epoch: int
    size: int
    root: bytes = bytes(32)


@dataclass
class Feed:
    epoch: int
    entries: list[bytes] = field(default_factory=list)
    note: bytes | None = None


class FakeLedger:
    """Feeds whose checkpoints are real notes; only the tree behind the root is simpler."""

    def __init__(self, key: SigningKey, roster: dict[str, bytes]) -> None:
        self.key = key
        self.own_id = server_id_of(key.public_key)
        self.roster = roster
        self.held: dict[str, Feed] = {self.own_id: Feed(epoch=1)}
        self.cosignatures: list[tuple[str, int, int, bytes]] = []
        self.callbacks = []
        self.reads = 0
        self.may_append = False

    def append(self, *entries: bytes) -> None:
        feed = self.held[self.own_id]
        feed.entries.extend(entries)
        feed.note = note_of(self.key, feed.epoch, feed.entries)
        for callback in self.callbacks:
            callback()

    def feeds(self):
        return {
            name: Head(feed.epoch, len(feed.entries), root_of(feed.entries))
            for name, feed in self.held.items()
        }

    def read(self, server_id, epoch, start, stop):
        self.reads += 1
        feed = self.held.get(server_id)
        return feed.entries[start:stop] if feed and feed.epoch == epoch else []

    def checkpoint(self, server_id, epoch):
        feed = self.held.get(server_id)
        return feed.note if feed and feed.epoch == epoch else None

    def root_at(self, server_id, epoch, size):
        feed = self.held.get(server_id)
        known = feed and feed.epoch == epoch and 0 < size <= len(feed.entries)
        return root_of(feed.entries[:size]) if known else None

    def authors(self):
        return self.roster.keys()

    def is_author(self, server_id):
        return server_id in self.roster

    def server_key(self, server_id):
        return self.roster.get(server_id)

    def servers(self):
        return dict(self.roster)

    def witnesses(self):
        return self.roster.keys()

    def own_feed_current(self) -> None:
        self.may_append = True

    @property
    def standing(self):
        return hash(frozenset(self.roster.items()))

    def ingest_now(self, server_id, epoch, start, entries, checkpoint) -> int:
        key = self.roster.get(server_id)
        if key is None or epoch != 1:
            raise NotFoundError("no such feed")
        feed = self.held.setdefault(server_id, Feed(epoch=epoch))
        if start > len(feed.entries):
            raise ConflictError("a gap")
        whole = feed.entries[:start] + list(entries)
        if len(whole) <= len(feed.entries):
            return len(feed.entries)
        verifier = NoteVerifier(name=origin_of(server_id, epoch), public_key=key)
        signed = parse_checkpoint(open_note(checkpoint, (verifier,)).text)
        if (signed.size, signed.root) != (len(whole), root_of(whole)):
            raise WireError("the checkpoint does not sign these entries")
        feed.entries, feed.note = whole, checkpoint
        return len(whole)

    async def ingest(self, server_id, epoch, start, entries, checkpoint) -> int:
        return self.ingest_now(server_id, epoch, start, entries, checkpoint)

    async def cosignature(self, server_id, epoch, size, line) -> None:
        self.cosignatures.append((server_id, epoch, size, line))

    def subscribe_appends(self, callback) -> None:
        self.callbacks.append(callback)

    def contents(self) -> dict[str, list[bytes]]:
        return {name: feed.entries for name, feed in self.held.items() if feed.entries}


class Host:
    """One server of the mesh in memory."""

    def __init__(self, world: World, name: str, number: int) -> None:
        self.world = world
        self.name = name
        self.public = (f"203.0.113.{number}", PORT)
        self.backbone = (f"172.16.0.{number}", PORT)
        self.key = key_of(name)
        self.id = id_of(name)
        self.ledger = FakeLedger(self.key, world.roster)
        self.changed: list[str] = []
        self.forks: list[Forked] = []
        self.states: dict[str, State] = {}
        self.fetched: list[FetchTiles] = []
        self.clock_skew_ms = 0
        self.node = self.new_node()
        self.announce()

    def new_node(self) -> GossipNode:
        return GossipNode(
            settings=GossipSettings(),
            key=self.key,
            mesh_id=MESH_ID,
            feeds=self.ledger,
            rng=random.Random(f"{self.world.seed}/{self.name}"),  # noqa: S311 (failures repeat)
            now=self.now(),
            backbone_of=self.world.backbone_of,
            is_inner=lambda host: host.startswith("172.16."),
        )

    def restart(self) -> None:
        facts = [fact.encoded for fact in self.node.directory.book.all()]
        self.node = self.new_node()
        for fact in facts:
            self.node.learn(fact, self.now(), stored=True)
        self.announce()

    def announce(self) -> None:
        place = Advertisement(
            host=self.public[0], http_port=9100, wireguard_port=51940, region="eu-west"
        )
        self.run(self.node.announce(place, PORT, self.now()))

    def now(self) -> Moment:
        world = self.world
        return Moment(world.now_s, START_MS + int(world.now_s * 1000) + self.clock_skew_ms)

    def fact(self) -> bytes:
        return self.node.directory.address(self.id).encoded

    def append(self, *entries: bytes) -> None:
        self.ledger.append(*entries)
        self.run(self.node.appended(self.now()))

    def run(self, effects) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self.world.send(self, effect.data, effect.address)
                case Ingest():
                    self.store(effect, list(effect.entries), effect.checkpoint)
                case FetchTiles():
                    self.fetched.append(effect)
                    self.world.later(0.05, lambda it=effect: self.fetch(it))
                case DeliverCosign():
                    line = (effect.server_id, effect.epoch, effect.size, effect.line)
                    self.ledger.cosignatures.append(line)
                    self.run(self.node.cosign_taken(effect))
                case AddressChanged():
                    self.changed.append(effect.server_id)
                case Forked():
                    self.forks.append(effect)
                case OwnFeedCurrent():
                    self.ledger.own_feed_current()
                case MemberChanged():
                    self.states[effect.server_id] = effect.new

    def fetch(self, effect: FetchTiles) -> None:
        source = self.world.host_of(effect.source)
        feed = source.ledger.held.get(effect.server_id) if source.serves_https else None
        if feed is None or self.world.is_cut(self, source):
            self.node.failed(effect.server_id, effect.source, Count.FETCHES_FAILED, self.now())
            return
        self.store(effect, feed.entries[effect.start :], feed.note)

    serves_https = True

    def store(self, effect, entries, checkpoint) -> None:
        try:
            self.ledger.ingest_now(
                effect.server_id, effect.epoch, effect.start, entries, checkpoint
            )
        except SeipdError:
            self.node.failed(effect.server_id, effect.source, Count.INGEST_FAILED, self.now())
        else:
            self.run(self.node.stored(effect.server_id, self.now()))


class World:
    """The network and the clock."""

    def __init__(
        self,
        *names: str,
        seed: int = 1,
        loss: float = 0.0,
        double: float = 0.0,
        jitter_s: float = 0.0,
        backbone: bool = False,
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)  # noqa: S311 (failures repeat)
        self.loss, self.double, self.jitter_s = loss, double, jitter_s
        self.now_s = 0.0
        self.backbone_known = backbone
        self.backbone_up = False
        self.cut: set[frozenset[str]] = set()
        self.slow: dict[str, float] = {}  # how much longer a server's datagrams take, either way
        self.sent: list[tuple[str, bytes, tuple[str, int]]] = []
        self.roster = {id_of(name): key_of(name).public_key for name in names}
        self._queue: list[tuple[float, int, object]] = []
        self._order = itertools.count()
        self.hosts = {name: Host(self, name, n) for n, name in enumerate(names, 1)}
        for host in self.hosts.values():
            self.later(0.01 * len(self._queue), lambda it=host: self.tick(it))

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def introduce(self, *names: str) -> None:
        """Give everyone the addresses of these servers, as joining does."""
        for host in self.hosts.values():
            for name in names or self.hosts:
                if name != host.name:
                    host.node.learn(self[name].fact(), host.now(), stored=True)

    def host_of(self, server_id: str) -> Host:
        return next(host for host in self.hosts.values() if host.id == server_id)

    def backbone_of(self, server_id: str) -> str | None:
        return self.host_of(server_id).backbone[0] if self.backbone_known else None

    def is_cut(self, one: Host, other: Host) -> bool:
        return frozenset({one.name, other.name}) in self.cut

    def partition(self, *names: str) -> None:
        inside = set(names)
        outside = set(self.hosts) - inside
        self.cut = {frozenset({a, b}) for a in inside for b in outside}

    def later(self, delay_s: float, action) -> None:
        heapq.heappush(self._queue, (self.now_s + delay_s, next(self._order), action))

    def tick(self, host: Host) -> None:
        host.run(host.node.tick(host.now()))
        self.later(0.1, lambda: self.tick(host))

    def send(self, sender: Host, data: bytes, address: tuple[str, int]) -> None:
        self.sent.append((sender.name, data, address))
        over_backbone = address[0].startswith("172.16.")
        receiver = next(
            (one for one in self.hosts.values() if address in {one.public, one.backbone}), None
        )
        if receiver is None or (over_backbone and not self.backbone_up):
            return
        if self.is_cut(sender, receiver):
            return
        source = sender.backbone if over_backbone else sender.public
        for _ in range(2 if self.rng.random() < self.double else 1):
            if self.rng.random() >= self.loss:
                delay_s = 0.005 + self.rng.random() * self.jitter_s
                delay_s += sum(self.slow.get(one.name, 0.0) for one in (sender, receiver))
                self.later(delay_s, lambda: self.deliver(receiver, data, source))

    def deliver(self, receiver: Host, data: bytes, source: tuple[str, int]) -> None:
        receiver.run(receiver.node.datagram(data, source, receiver.now()))

    def run(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self._queue and self._queue[0][0] <= until_s:
            self.now_s, _, action = heapq.heappop(self._queue)
            action()
        self.now_s = until_s

    def run_until(self, condition, *, at_most_s: float) -> float:
        """Run until something holds; return how long it took."""
        begun_s = self.now_s
        while not condition():
            assert self.now_s - begun_s < at_most_s, "it did not happen in time"
            self.run(0.1)
        return self.now_s - begun_s

    def agree(self) -> bool:
        contents = [host.ledger.contents() for host in self.hosts.values()]
        return all(one == contents[0] for one in contents)
