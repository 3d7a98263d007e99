"""One simulated server: the real gossip node and the ledger, around them what a daemon does."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from services.kernel.errors import SeipdError
from services.mesh.gossip.counters import Count
from services.mesh.gossip.effects import (
    AddressChanged,
    DeliverCosign,
    Effect,
    FactLearnt,
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
from tests.sim.founding import GOSSIP_PORT, START_MS, advertisement_of, public_host
from tests.sim.ledger import SimLedger
from tests.sim.loading import Disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from services.base.ledger.roster import Charter
    from services.base.ledger.writer import Receipt
    from services.kernel.records import Record
    from services.mesh.membership.states import State
    from tests.sim.mesh import Mesh

TICK_S = 0.1  # these as in GossipService and LedgerService
SAVE_INTERVAL_S = 10.0
HOUSEKEEPING_S = 1.0
FETCH_TRIPS = 3  # TCP, TLS 1.3, the question
FETCH_TIMEOUT_S = 20.0
FETCH_BYTES_S = 1 << 20


@dataclass
class Clock:
    """A server's clocks: the mesh's time, and how far its own UTC is off."""

    mesh: Mesh
    skew_ms: int = 0

    def shifted(self, by_ms: int) -> Clock:
        return Clock(self.mesh, self.skew_ms + by_ms)

    def now_ms(self) -> int:
        return START_MS + int(self.mesh.queue.now_s * 1000) + self.skew_ms

    def monotonic_s(self) -> float:
        return self.mesh.queue.now_s

    def moment(self) -> Moment:
        return Moment(self.monotonic_s(), self.now_ms())


@dataclass
class Process:
    """What is gone when the server falls."""

    ledger: SimLedger
    node: GossipNode
    effects: list[Effect] = field(default_factory=list)


class SimServer:
    """See the module."""

    def __init__(self, mesh: Mesh, number: int, *, charter: Charter | None = None) -> None:
        self.mesh = mesh
        self.number = number
        self.key = mesh.founding.keys[number]
        self.name = mesh.founding.names[number]
        self.public = (public_host(number), GOSSIP_PORT)
        self.backbone = (mesh.founding.backbones[number], GOSSIP_PORT)
        self.clock = Clock(mesh)
        self.disk = Disk()
        self.process: Process | None = None
        self.fatal: list[SeipdError] = []
        self.forks: list[Forked] = []
        self.told_counts: list[int] = []
        self.members: dict[str, tuple[float, State]] = {}
        self.changes: list[State] = []
        self.honest = True
        self.joined = number < mesh.options.servers
        self.stamps_ms = 0  # how far the stamps of its records are off, beyond its clock
        self._charter = charter
        self._life = 0

    @property
    def is_up(self) -> bool:
        return self.process is not None

    @property
    def ledger(self) -> SimLedger:
        assert self.process is not None, f"{self.name} is down"
        return self.process.ledger

    @property
    def node(self) -> GossipNode:
        assert self.process is not None, f"{self.name} is down"
        return self.process.node

    def start(self) -> None:
        """Start as the daemon does: the ledger first, then gossip with what it remembered."""
        mesh = self.mesh
        self._life += 1
        rng = random.Random(f"{mesh.seed}/{self.number}/{self._life}")  # noqa: S311 (repeatable)
        ledger = SimLedger(
            founding=mesh.founding,
            key=self.key,
            disk=self.disk,
            reader=mesh.reader,
            clock=self.clock.shifted(self.stamps_ms) if self.stamps_ms else self.clock,
            later=self.later,
            rng=rng,
            retain_settled=mesh.options.retain_settled,
            fsync_s=mesh.options.fsync_s,
            on_append=self._appended,
            on_cosign=self._cosign,
            on_fatal=self._end,
            waits=self.honest,
            charter=self._charter,
        )
        if self.stamps_ms:
            ledger.writer.observe = lambda _: None  # type: ignore[method-assign]
        now = self.clock.moment()
        node = GossipNode(
            settings=GossipSettings(),
            key=self.key,
            mesh_id=bytes.fromhex(mesh.founding.mesh_id),
            feeds=ledger,
            rng=rng,
            now=now,
            backbone_of=mesh.backbone_of,
            newest_hello_ms=dict(self.disk.newest_hello_ms),
            membership=self.disk.membership,
        )
        self.process = Process(ledger, node)
        mesh.network.listen(self.public, self.name, self._on_datagram)
        mesh.network.listen(self.backbone, self.name, self._on_datagram)
        if not ledger.lazy:
            ledger.name_roster()
            self.later(0.0, ledger.mind_limits)
        for fact in self.disk.facts:
            with contextlib.suppress(SeipdError):  # of a server that is not in the roster
                self._run(node.learn(fact, now, stored=True))
        self._run(node.announce(advertisement_of(self.public[0]), GOSSIP_PORT, now))
        self.later(rng.random() * TICK_S, self._tick)
        self.later(rng.random() * HOUSEKEEPING_S, self._housekeep)
        self.later(SAVE_INTERVAL_S * (0.5 + rng.random()), self._save)

    def crash(self) -> None:
        """Fall: what was not synced is gone, and nobody was answered for it."""
        self.process = None
        self.mesh.network.hang_up(self.name)

    def _end(self, error: SeipdError) -> None:
        """End as the daemon does when a part of it can't go on."""
        self.fatal.append(error)
        self.later(0.0, self.crash)

    def later(self, delay_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """Call something unless the server falls before."""
        self.mesh.queue.later(delay_s, self._if_alive, self._life, action, arguments)

    def submit(
        self,
        records: Sequence[Record],
        answer: Callable[[list[Receipt] | SeipdError], None],
    ) -> None:
        self.ledger.submit(records, answer)

    def publish(self, kind: int, payload: bytes, lifetime_ms: int) -> None:
        """Say something about this server, as the daemon does."""
        self._run(self.node.publish(kind, payload, lifetime_ms, self.clock.moment()))

    def save_state(self) -> None:
        self.ledger.save_state()

    def _if_alive(self, life: int, action: Callable[..., None], arguments: Any) -> None:
        if life == self._life and self.process is not None:
            action(*arguments)

    def _on_datagram(self, data: bytes, source: tuple[str, int]) -> None:
        self._run(self.node.datagram(data, source, self.clock.moment()))

    def _tick(self) -> None:
        self._run(self.node.tick(self.clock.moment()))
        self.later(TICK_S, self._tick)

    def _housekeep(self) -> None:
        self.ledger.housekeep()
        self.later(HOUSEKEEPING_S, self._housekeep)

    def _save(self) -> None:
        self.disk.facts = tuple(fact.encoded for fact in self.node.directory.book.all())
        self.disk.newest_hello_ms = dict(self.node.sessions.newest_hello_ms)
        self.disk.membership = self.node.membership.to_plain()
        self.later(SAVE_INTERVAL_S, self._save)

    def _appended(self) -> None:
        self._tell(self.node.appended(self.clock.moment()))

    def _cosign(self, server_id: str, epoch: int, size: int, line: bytes) -> None:
        self._run(self.node.cosign(server_id, epoch, size, line, self.clock.moment()))

    def _tell(self, effects: list[Effect]) -> None:
        """Carry out what follows a feed's growth; note how many are told of it at once."""
        if told := {effect.address for effect in effects if isinstance(effect, Send)}:
            self.told_counts.append(len(told))
        self._run(effects)

    def _run(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    over_backbone = effect.address[0].startswith("172.16.")
                    source = self.backbone if over_backbone else self.public
                    self.mesh.network.send(self.name, effect.data, source, effect.address)
                case Ingest():
                    self._store(effect, effect.entries, effect.checkpoint, Count.INGEST_FAILED)
                case FetchTiles():
                    self._fetch(effect)
                case DeliverCosign():
                    self.ledger.cosignature(
                        effect.server_id, effect.epoch, effect.size, effect.line
                    )
                    self._run(self.node.cosign_taken(effect))
                case OwnFeedCurrent():
                    self.ledger.own_feed_current()
                case AddressChanged() | FactLearnt():
                    pass
                case Forked():
                    self.forks.append(effect)
                    self.ledger.contradict(effect.server_id, effect.epoch, effect.checkpoint)
                case MemberChanged():
                    self.members[effect.server_id] = (self.mesh.queue.now_s, effect.new)
                    self.changes.append(effect.new)
                case _:
                    raise NotImplementedError(f"{type(effect).__name__} is not simulated yet")

    def _store(
        self,
        effect: Ingest | FetchTiles,
        entries: Sequence[bytes],
        checkpoint: bytes,
        count: Count,
    ) -> None:
        def done(error: SeipdError | None) -> None:
            now = self.clock.moment()
            if error is None:
                self._tell(self.node.stored(effect.server_id, now))
            else:
                self.node.failed(effect.server_id, effect.source, count, now)

        self.ledger.ingest(effect.server_id, effect.epoch, effect.start, entries, checkpoint, done)

    def _fetch(self, effect: FetchTiles) -> None:
        """Get a long range over HTTPS: a few round trips and the bytes, or a timeout."""
        delay_s = FETCH_TRIPS * 2 * self.mesh.network.link.delay_s
        self.later(delay_s, self._fetched, effect)

    def _fetched(self, effect: FetchTiles) -> None:
        source = self.mesh.servers[effect.source]
        network = self.mesh.network
        open_way = network.reaches(self.name, source.name) and network.reaches(
            source.name, self.name
        )
        if not source.is_up or not open_way:
            self.later(FETCH_TIMEOUT_S, self._not_fetched, effect)
            return
        copy = source.ledger.held.get(effect.server_id)
        if copy is None or copy.epoch != effect.epoch or copy.size <= effect.start:
            self._not_fetched(effect)
            return
        assert copy.checkpoint is not None
        entries = copy.read(effect.start, copy.size)
        network.sent_bytes[source.name] += sum(map(len, entries))
        self.later(
            sum(map(len, entries)) / FETCH_BYTES_S,
            self._store,
            effect,
            entries,
            copy.checkpoint,
            Count.FETCHES_FAILED,
        )

    def _not_fetched(self, effect: FetchTiles) -> None:
        now = self.clock.moment()
        self.node.failed(effect.server_id, effect.source, Count.FETCHES_FAILED, now)
