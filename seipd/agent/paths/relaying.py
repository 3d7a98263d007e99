"""Has relays carry for the endpoints that can't be reached directly.

All relays that a server offers for a peer are asked side by side, and both ends settle on the first
of the list that has both. What is said to a relay leaves by WireGuard's own port, so what the relay
sees is where it has to send to. The rules are ``services.edge.relay.client``'s; here is who it is
for, and the clock.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Final, Protocol

from services.edge.punch.messages import host_text
from services.edge.relay.client import Offer, Phase, RelayClient
from services.kernel.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from services.edge.punch.messages import RelayOffer
    from services.edge.relay.client import Datagram
    from services.kernel.clock import Clock
    from services.runtime.udp import Address

logger = logging.getLogger(__name__)

TICK_S: Final = 0.2
SETTLE_S: Final = 10.0
"""For so long after the two have met the other relays are kept: the other end may prefer one."""
ALONE_S: Final = 20.0
"""For so long one waits for the other at a relay."""


class Sender(Protocol):
    """WireGuard's own port."""

    def send(self, data: bytes, address: Address) -> None:
        """Send a datagram, or drop it."""


class RelayListener(Protocol):
    """Who wants to know; called on the event loop."""

    def relay_bound(self, peer_key: bytes, relay_id: bytes, address: Address) -> None:
        """A relay carries for the two, when sent to at this address."""

    def relay_lost(self, peer_key: bytes, relay_id: bytes, why: str) -> None:
        """No relay of those offered carries for the two any more."""

    def relay_usage(self, peer_key: bytes, relay_id: bytes, statement: bytes) -> None:
        """A relay signed how much it carried."""


class RelayJudge(Protocol):
    """Who notes how good relays are."""

    def offered(self, peer_key: bytes, offers: Sequence[RelayOffer]) -> None:
        """These were offered for a peer."""

    def heartbeat(self, peer_key: bytes, relay_id: bytes, round_trip_ms: float | None) -> None:
        """A heartbeat was answered after so long, or not."""

    def usage(self, peer_key: bytes, relay_id: bytes, statement: bytes) -> None:
        """A relay signed how much it carried."""

    def ended(self, peer_key: bytes, relay_id: bytes, why: str = "") -> None:
        """A relay carries for a peer no more."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Peer:
    """The relays of one peer, in the order of the offer."""

    key: bytes
    begun_s: float
    clients: list[RelayClient] = field(default_factory=list)
    settled: RelayClient | None = None
    settled_s: float = 0.0
    address: Address | None = None
    """What the listener was told."""


class Relaying:
    """Keeps sessions at relays for peers, from when they are wanted until they are not."""

    def __init__(
        self,
        *,
        port: Sender,
        wireguard_private: bytes,
        listener: RelayListener,
        clock: Clock,
        judge: RelayJudge | None = None,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._port = port
        self._private = wireguard_private
        self._listener = listener
        self._clock = clock
        self.judge = judge
        self._random_bytes = random_bytes
        # Above what any earlier run has come to, since no run says a thousand things in a second.
        self._counters = count(clock.now_ms() << 10)
        self._peers: dict[bytes, _Peer] = {}
        self._news = asyncio.Event()

    def begin(self, peer_key: bytes, offers: Sequence[RelayOffer]) -> None:
        """Have one of these relays carry.

        A newer ticket for the relay that carries prolongs it, and then no other is asked. Where the
        server offers it no more, it carries until the two have met at another.
        """
        now_s = self._clock.monotonic_s()
        peer = self._peers.get(peer_key)
        if peer is None:
            peer = self._peers[peer_key] = _Peer(key=peer_key, begun_s=now_s)
        if self.judge is not None:
            self.judge.offered(peer_key, offers)
        carrying = peer.settled if peer.settled and peer.settled.phase is Phase.TOGETHER else None
        if carrying is not None:
            same = [one for one in offers if one.relay_id == carrying.offer.relay_id]
            offers = same or offers
        wanted, asked = self._ask(peer, offers, now_s)
        if carrying is not None and carrying not in wanted:
            wanted.append(carrying)
            peer.settled_s = now_s
        before, peer.clients = peer.clients, wanted
        for client in before:
            if client not in wanted:
                self._leave(peer, client)
        self._send(asked)
        self._review(peer, now_s)
        self._news.set()

    def _ask(
        self, peer: _Peer, offers: Sequence[RelayOffer], now_s: float
    ) -> tuple[list[RelayClient], list[Datagram]]:
        """Return a client for each relay that can be spoken to, and what they have to say."""
        clients: list[RelayClient] = []
        asked: list[Datagram] = []
        for offer in offers:
            client = _client_at(peer, offer.relay_id)
            if client is not None:
                asked += client.prolong(offer.ticket, now_s)
            elif (client := self._new_client(offer)) is not None:
                asked += client.begin(now_s)
            if client is not None:
                clients.append(client)
        return clients, asked

    def end(self, peer_key: bytes) -> None:
        """Need no relay for a peer any more."""
        peer = self._peers.pop(peer_key, None)
        if peer is None:
            return
        for client in peer.clients:
            self._leave(peer, client)

    def received(self, data: bytes, address: Address) -> None:
        """Take what may be a relay's word."""
        now_s = self._clock.monotonic_s()
        for peer in list(self._peers.values()):
            spoken = [client for client in peer.clients if client.is_from(address)]
            for client in spoken:
                self._send(client.receive(data, address, now_s))
            # A stranger's datagrams are to cost next to nothing.
            if spoken:
                self._review(peer, now_s)

    def latency_ms(self, peer_key: bytes) -> int | None:
        """Return how long the relay takes to answer; None while none carries."""
        peer = self._peers.get(peer_key)
        if peer is None or peer.settled is None or peer.settled.latency_s is None:
            return None
        return round(peer.settled.latency_s * 1000)

    def left_s(self, peer_key: bytes) -> float | None:
        """Return for how long the ticket still holds; None while no relay carries."""
        peer = self._peers.get(peer_key)
        if peer is None or peer.settled is None:
            return None
        return max(peer.settled.ends_s - self._clock.monotonic_s(), 0.0)

    def ask_usage(self, peer_key: bytes) -> None:
        """Have the relay that carries for a peer say what it has carried."""
        peer = self._peers.get(peer_key)
        if peer is not None and peer.settled is not None:
            self._send(peer.settled.ask_usage(self._clock.monotonic_s()))

    async def run(self) -> None:
        """Keep sessions alive until cancelled, then give them up."""
        try:
            while True:
                if not self._peers:
                    self._news.clear()
                    await self._news.wait()
                await asyncio.sleep(TICK_S)
                self.tick()
        finally:
            for peer_key in list(self._peers):
                self.end(peer_key)

    def tick(self) -> None:
        """Ask what is to be asked again, and notice what is silent."""
        now_s = self._clock.monotonic_s()
        for peer in list(self._peers.values()):
            for client in peer.clients:
                self._send(client.tick(now_s))
            self._review(peer, now_s)

    def _new_client(self, offer: RelayOffer) -> RelayClient | None:
        hosts = tuple(host_text(host) for host in (offer.host4, offer.host6) if host)
        if not hosts:
            return None
        try:
            return RelayClient(
                offer=Offer(
                    relay_id=offer.relay_id,
                    hosts=hosts,
                    port=offer.control_port,
                    box_key=offer.box_key,
                    ticket=offer.ticket,
                ),
                private_key=self._private,
                counters=self._counters,
                random_bytes=self._random_bytes,
            )
        except InputError as error:
            logger.warning("a relay that can't be spoken to: %s", error)
            return None

    def _review(self, peer: _Peer, now_s: float) -> None:
        """Settle on the best relay, let go of the others, or give up."""
        for client in peer.clients:
            self._note(peer, client)
        if peer.key not in self._peers:
            return
        together = next((one for one in peer.clients if one.phase is Phase.TOGETHER), None)
        if together is not None:
            if together is not peer.settled or together.data_address != peer.address:
                self._settle(peer, together, now_s)
            self._thin_out(peer, now_s)
        elif peer.settled is not None and peer.settled.phase is Phase.LOST:
            self._lose(peer, peer.settled, peer.settled.why)
        elif peer.settled is None:
            self._wait(peer, now_s)

    def _settle(self, peer: _Peer, client: RelayClient, now_s: float) -> None:
        address = client.data_address
        if address is None:
            return
        peer.settled, peer.settled_s, peer.address = client, now_s, address
        self._listener.relay_bound(peer.key, client.offer.relay_id, address)

    def _thin_out(self, peer: _Peer, now_s: float) -> None:
        keep = [one for one in peer.clients if one.phase is not Phase.LOST]
        if now_s - peer.settled_s > SETTLE_S:
            keep = [one for one in keep if one is peer.settled]
        for client in peer.clients:
            if client not in keep:
                self._leave(peer, client)
        peer.clients = keep

    def _wait(self, peer: _Peer, now_s: float) -> None:
        alive = [one for one in peer.clients if one.phase is not Phase.LOST]
        if not alive:
            first = peer.clients[0] if peer.clients else None
            self._lose(peer, first, first.why if first is not None else "refused")
        elif now_s - peer.begun_s > ALONE_S:
            self._lose(peer, alive[0], "alone")

    def _lose(self, peer: _Peer, client: RelayClient | None, why: str) -> None:
        self.end(peer.key)
        relay_id = client.offer.relay_id if client is not None else b""
        self._listener.relay_lost(peer.key, relay_id, why)

    def _leave(self, peer: _Peer, client: RelayClient) -> None:
        why = client.why if client.phase is Phase.LOST else ""
        self._send(client.end())
        if self.judge is not None:
            self.judge.ended(peer.key, client.offer.relay_id, why)

    def _note(self, peer: _Peer, client: RelayClient) -> None:
        relay_id = client.offer.relay_id
        while client.samples_s:
            sample_s = client.samples_s.popleft()
            if self.judge is not None:
                round_trip_ms = None if sample_s is None else sample_s * 1000
                self.judge.heartbeat(peer.key, relay_id, round_trip_ms)
        if client.statement:
            statement, client.statement = client.statement, b""
            if self.judge is not None:
                self.judge.usage(peer.key, relay_id, statement)
            self._listener.relay_usage(peer.key, relay_id, statement)

    def _send(self, datagrams: Sequence[Datagram]) -> None:
        for data, address in datagrams:
            self._port.send(data, address)


def _client_at(peer: _Peer, relay_id: bytes) -> RelayClient | None:
    for client in peer.clients:
        if client.offer.relay_id == relay_id and client.phase is not Phase.LOST:
            return client
    return None
