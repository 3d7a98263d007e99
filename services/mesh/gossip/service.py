"""Gossip on a real socket: hands datagrams and time to the node and carries out what it decides."""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from typing import TYPE_CHECKING, ClassVar, Final

from services.kernel.errors import (
    ConflictError,
    InputError,
    SeipdError,
    StartError,
    UnavailableError,
)
from services.kernel.service import Health, HealthState
from services.mesh.bulk.download import ForkedError
from services.mesh.bulk.ports import Place
from services.mesh.facts.kinds import kind_of
from services.mesh.gossip.clocks import clock_trouble
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
from services.mesh.gossip.listeners import Listeners
from services.mesh.gossip.node import GossipNode
from services.mesh.gossip.peers_file import PeersFile, memory_of
from services.mesh.gossip.ports import Moment
from services.runtime.tasks import TaskOwner
from services.runtime.udp import UdpSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from services.base.crypto.signatures import Signer
    from services.kernel.clock import Clock
    from services.mesh.facts.envelope import Fact
    from services.mesh.gossip.addresses import AddressFact, Advertisement
    from services.mesh.gossip.peers_file import Remembered
    from services.mesh.gossip.peerstate import PeerState
    from services.mesh.gossip.ports import FeedPort, TileFetcher
    from services.mesh.gossip.settings import GossipSettings
    from services.mesh.membership.states import State
    from services.runtime.udp import Address

logger = logging.getLogger(__name__)

TICK_S: Final = 0.1
SAVE_INTERVAL_S: Final = 10.0
FETCH_TIMEOUT_S: Final = 600.0
MAX_COSIGNS_WAITING: Final = 256


class GossipService:
    """Talks to every other server of the roster over one UDP port."""

    name: ClassVar[str] = "gossip"

    def __init__(
        self,
        *,
        settings: GossipSettings,
        key: Signer,
        mesh_id: str,
        ledger: FeedPort,
        fetch: TileFetcher,
        clock: Clock,
        peers_file: Path,
        backbone_of: Callable[[str], str | None] = lambda _: None,
        is_inner: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._settings = settings
        self._key = key
        self._mesh_id = bytes.fromhex(mesh_id)
        self._ledger = ledger
        self._fetch = fetch
        self._clock = clock
        self._peers_file = PeersFile(peers_file)
        self._backbone_of = backbone_of
        self._is_inner = is_inner
        self._socket = UdpSocket(self._on_datagram)
        self._tasks = TaskOwner("gossip", on_crash=self._on_crash)
        self._listeners = Listeners()
        self._advertisement: Advertisement | None = None
        self._node: GossipNode | None = None
        self._state = HealthState.STOPPED
        self._trouble = ""
        self._cosigns_waiting = 0
        self.port = 0

    async def start(self) -> None:
        """Open the port, remember the peers of the last run, begin to talk.

        Raises:
            StartError: the port can't be opened, or what was announced is no address.
        """
        self._state, self._trouble = HealthState.STARTING, ""
        remembered = await asyncio.to_thread(self._peers_file.load)
        now = self._now()
        node = self._new_node(remembered, now)
        for fact in remembered.facts:
            try:
                self._run(node.learn(fact, now, stored=True))
            except SeipdError:
                node.counters.add(Count.BAD_FACT)
        try:
            self.port = self._socket.open(self._settings.bind_address, self._settings.port)
            if self._advertisement is not None:
                self._run(node.announce(self._advertisement, self.port, now))
        except (ConflictError, InputError) as error:
            self._socket.close()
            self._state = HealthState.FAILED
            raise StartError(
                str(error), service=self.name, code=error.code, mend=error.mend
            ) from error
        self._node = node
        self._ledger.subscribe_appends(self._on_appended)
        self._tasks.spawn(self._tick_forever(node), name="gossip-tick")
        self._tasks.spawn(self._save_forever(), name="gossip-save")
        self._state = HealthState.OK

    async def stop(self) -> None:
        """Fall silent and remember the peers; may be called twice."""
        if self._state is HealthState.STOPPED:
            return
        self._state = HealthState.STOPPED
        self._socket.close()
        await self._tasks.close()
        await self._save()
        self._node = None

    def health(self) -> Health:
        """Report how many of the other servers have been heard of late."""
        if self._trouble:
            return Health(state=HealthState.FAILED, detail=self._trouble)
        if self._node is None:
            return Health(state=self._state)
        peers = self.peers()
        live_count = sum(peer.session_age_s is not None for peer in peers)
        said = self._node.sessions.clocks.apart_lines(self._now())
        if self._node.is_behind_itself:
            said.append("another server claims more of our own feed than we hold: catching up")
        detail = "; ".join([f"{live_count} of {len(peers)} servers in session", *said])
        return Health(state=HealthState.DEGRADED if said else self._state, detail=detail)

    def clock_trouble(self) -> str:
        """Say why this server's clock must not stamp anything; empty where it may."""
        if self._node is None:
            return ""
        return clock_trouble(self._node.sessions.clocks.ahead_ms(self._now()))

    def announce(self, advertisement: Advertisement) -> None:
        """Say from now on, and after each start, that this server is reached there.

        Raises:
            InputError: a host that is no address, or a region that is no label.
        """
        self._advertisement = advertisement
        if self._node is not None:
            self._run(self._node.announce(advertisement, self.port, self._now()))

    def learn(self, fact: bytes) -> None:
        """Take a server's signed fact that came by another way, as in joining.

        Raises:
            WireError: malformed, or of a server that is not in the roster.
            BadSignatureError: not signed by the server that it is about.
            UnavailableError: gossip is not running.
        """
        self._run(self._running().learn(fact, self._now()))

    def publish_fact(self, kind: int, payload: bytes, *, lifetime_ms: int | None = None) -> None:
        """Say something about this server from now on, as long as its kind allows by default.

        Raises:
            InputError: it is nothing that a fact of this kind may say.
            UnavailableError: gossip is not running, or this server is not in the roster.
        """
        node = self._running()
        hold_ms = kind_of(kind).max_lifetime_ms if lifetime_ms is None else lifetime_ms
        self._run(node.publish(kind, payload, hold_ms, self._now()))

    def facts(self, kind: int) -> Mapping[str, Fact]:
        """Return the facts of one kind that hold now, by server, our own among them."""
        if self._node is None:
            return {}
        return self._node.directory.book.valid(kind, self._clock.now_ms())

    def subscribe_facts(self, callback: Callable[[Fact], None]) -> None:
        """Call ``callback`` with each fact of another server that is news, of whatever kind."""
        self._listeners.facts.append(callback)

    def own_fact(self) -> bytes | None:
        """Return this server's own signed address fact."""
        node = self._running()
        address = node.directory.address(node.server_id)
        return address.encoded if address is not None else None

    def addresses(self) -> Mapping[str, AddressFact]:
        """Return the address facts that hold now, by server, our own among them."""
        if self._node is None:
            return {}
        return self._node.directory.addresses(self._clock.now_ms())

    def address_facts(self) -> list[bytes]:
        """Return the signed bytes of the address facts that hold now."""
        return [fact.encoded for fact in self.addresses().values()]

    def subscribe_addresses(self, callback: Callable[[str], None]) -> None:
        """Call ``callback`` with the id of a server that has told a new address."""
        self._listeners.addresses.append(callback)

    def subscribe_members(self, callback: Callable[[str, State], None]) -> None:
        """Call ``callback`` with a server's id and the state that it is held to be in from now."""
        self._listeners.members.append(callback)

    def send_cosign(self, server_id: str, epoch: int, size: int, line: bytes) -> None:
        """Send a witness's signature line to the author of a feed, until it has arrived.

        Raises:
            WireError: the line does not fit in a datagram.
        """
        if self._node is not None:
            self._run(self._node.cosign(server_id, epoch, size, line, self._now()))

    def peers(self) -> list[PeerState]:
        """Return what is known of every other server of the roster."""
        return self._node.peers(self._now()) if self._node is not None else []

    def counters(self) -> Mapping[str, int]:
        """Return every number by its name; the names are fixed."""
        if self._node is None:
            return {}
        return {
            **self._node.counters.snapshot(),
            **{f"refused_{name}": count for name, count in self._node.membership.refused.items()},
            "send_dropped": self._socket.dropped_count,
            "send_failed": self._socket.failed_count,
        }

    def _new_node(self, remembered: Remembered, now: Moment) -> GossipNode:
        make = functools.partial(
            GossipNode,
            settings=self._settings,
            key=self._key,
            mesh_id=self._mesh_id,
            feeds=self._ledger,
            rng=secrets.SystemRandom(),
            now=now,
            backbone_of=self._backbone_of,
            is_inner=self._is_inner,
            newest_hello_ms=remembered.newest_hello_ms,
        )
        try:
            return make(membership=remembered.membership)
        except InputError as error:
            logger.warning("what was remembered of the members is left aside: %s", error)
            return make()

    def _running(self) -> GossipNode:
        if self._node is None:
            raise UnavailableError("gossip is not running")
        return self._node

    def _now(self) -> Moment:
        return Moment(self._clock.monotonic_s(), self._clock.now_ms())

    def _on_datagram(self, data: bytes, address: Address) -> None:
        if self._node is not None:
            self._run(self._node.datagram(data, address, self._now()))

    def _on_appended(self) -> None:
        if self._node is not None:
            self._run(self._node.appended(self._now()))

    def _on_crash(self, task: str, error: BaseException) -> None:
        self._trouble = f"{task} ended: {error!r}"

    async def _tick_forever(self, node: GossipNode) -> None:
        while True:
            self._run(node.tick(self._now()))
            await asyncio.sleep(TICK_S)

    async def _save_forever(self) -> None:
        while True:
            await asyncio.sleep(SAVE_INTERVAL_S)
            await self._save()

    async def _save(self) -> None:
        if self._node is not None:
            await asyncio.to_thread(self._peers_file.save, memory_of(self._node))

    def _run(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send():
                    self._socket.send(effect.data, effect.address)
                case Ingest():
                    self._tasks.spawn(self._ingest(effect), name="gossip-ingest")
                case FetchTiles():
                    self._tasks.spawn(self._fetch_tiles(effect), name="gossip-fetch")
                case DeliverCosign():
                    self._deliver(effect)
                case AddressChanged() | FactLearnt() | MemberChanged():
                    self._listeners.tell(effect)
                case OwnFeedCurrent():
                    self._ledger.own_feed_current()
                case Forked():
                    self._tasks.spawn(self._contradict(effect), name="gossip-fork")

    async def _ingest(self, effect: Ingest) -> None:
        try:
            await self._ledger.ingest(
                effect.server_id,
                effect.epoch,
                effect.start,
                list(effect.entries),
                effect.checkpoint,
            )
        except SeipdError as error:
            self._give_up(effect, error, Count.INGEST_FAILED)
        else:
            self._stored(effect.server_id)

    async def _fetch_tiles(self, effect: FetchTiles) -> None:
        known = self.addresses()
        places = [
            Place(server_id=name, host=known[name].host, port=known[name].http_port)
            for name in (effect.source, *effect.others)
            if name in known
        ]
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                outcome = await self._fetch.catch_up(places, effect.server_id, effect.epoch)
        except ForkedError as error:
            self._give_up(effect, error, Count.FETCHES_FAILED)
            forked = Forked(
                server_id=effect.server_id,
                epoch=effect.epoch,
                checkpoint=error.checkpoint,
                source=effect.source,
            )
            await self._contradict(forked)
            return
        except (SeipdError, TimeoutError) as error:
            self._give_up(effect, error, Count.FETCHES_FAILED)
            return
        for name, what in outcome.blamed.items():
            logger.warning("%s sent something false: %s", name, what)
        if outcome.size > effect.start:
            self._stored(effect.server_id)
        else:
            why = "; ".join({**outcome.failed, **outcome.blamed}.values()) or "nothing newer"
            self._give_up(effect, UnavailableError(why), Count.FETCHES_FAILED)

    def _give_up(self, effect: Ingest | FetchTiles, error: Exception, count: Count) -> None:
        logger.info("feed of %s from %s: %s", effect.server_id, effect.source, error)
        if self._node is not None:
            self._node.failed(effect.server_id, effect.source, count, self._now())

    def _stored(self, server_id: str) -> None:
        if self._node is not None:
            self._run(self._node.stored(server_id, self._now()))

    async def _contradict(self, effect: Forked) -> None:
        try:
            lied = await self._ledger.contradict(effect.server_id, effect.epoch, effect.checkpoint)
        except SeipdError as error:
            logger.info("%s shows no good checkpoint: %s", effect.source, error)
            return
        if lied:
            logger.warning("%s showed another story of %s", effect.source, effect.server_id)

    def _deliver(self, effect: DeliverCosign) -> None:
        if self._cosigns_waiting >= MAX_COSIGNS_WAITING:
            return  # it was not confirmed, so it comes again
        self._cosigns_waiting += 1
        self._tasks.spawn(self._cosignature(effect), name="gossip-cosign")

    async def _cosignature(self, effect: DeliverCosign) -> None:
        try:
            await self._ledger.cosignature(effect.server_id, effect.epoch, effect.size, effect.line)
        except SeipdError as error:
            logger.info("a cosignature was refused: %s", error)
        finally:
            self._cosigns_waiting -= 1
        if self._node is not None:
            self._run(self._node.cosign_taken(effect))
