"""Sealed messages between this server and the others: sessions, links and their upkeep. Pure.

What comes in is a message of a peer that has proved itself, or nothing. What goes out gathers in
``outbox`` for whoever owns the socket.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from services.kernel.errors import WireError
from services.mesh.gossip.budget import Budget
from services.mesh.gossip.codec import MAX_DATAGRAM_BYTES, Box, Hello, HelloAck, decode
from services.mesh.gossip.counters import Count, Counters, DroppedError
from services.mesh.gossip.effects import Send
from services.mesh.gossip.links import Link, Places
from services.mesh.gossip.messages import Message, Ping, decode_message, encode_message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from services.mesh.gossip.ports import Moment, Rng
    from services.mesh.gossip.session import Session, SessionTable
    from services.runtime.udp import Address

HELLO_CHECKS_A_SECOND: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What a datagram brought: a message, or only the news that a session is up."""

    peer: str
    message: Message | None
    fresh: bool


class Channel:
    """Greets the servers of the roster and keeps a session with each that answers."""

    def __init__(
        self,
        *,
        sessions: SessionTable,
        counters: Counters,
        rng: Rng,
        places_of: Callable[[str], Places],
        now_s: float,
    ) -> None:
        self._sessions = sessions
        self._counters = counters
        self._rng = rng
        self._places_of = places_of
        self._checks = Budget(
            rate_per_s=HELLO_CHECKS_A_SECOND, burst=HELLO_CHECKS_A_SECOND, now_s=now_s
        )
        self.links: dict[str, Link] = {}
        self.outbox: list[Send] = []

    def set_peers(self, peers: Mapping[str, bytes], now_s: float) -> None:
        """Have exactly these servers as peers."""
        for peer in sorted(peers.keys() - self.links.keys()):
            self.links[peer] = Link.new(peer, now_s)
        for peer in sorted(self.links.keys() - peers.keys()):
            del self.links[peer]
            self._sessions.forget(peer)

    def session(self, peer: str) -> Session | None:
        """Return the session in use with a peer."""
        return self._sessions.current(peer)

    def is_live(self, peer: str, now_s: float) -> bool:
        """Say whether a peer is likely to answer now."""
        link = self.links.get(peer)
        return (
            link is not None
            and self._sessions.current(peer) is not None
            and not link.is_doubtful(now_s)
        )

    def live_peers(self, now_s: float) -> list[str]:
        """Return who is likely to answer now."""
        return [peer for peer in sorted(self.links) if self.is_live(peer, now_s)]

    def receive(self, data: bytes, address: Address, now: Moment) -> Received | None:
        """Take a datagram; drop and count it unless it is in order."""
        self._counters.add(Count.RECEIVED)
        self._counters.add(Count.RECEIVED_BYTES, len(data))
        try:
            if len(data) > MAX_DATAGRAM_BYTES:
                raise DroppedError(Count.DROPPED_TOO_LARGE)
            match decode(data):
                case Hello() as hello:
                    self._on_hello(hello, data, address, now)
                case HelloAck() as ack:
                    return self._on_ack(ack, data, address, now)
                case Box() as box:
                    return self._on_box(box, address, now)
        except DroppedError as dropped:
            self._counters.add(dropped.count)
        except WireError:
            self._counters.add(Count.DROPPED_MALFORMED)
        return None

    def send(self, peer: str, message: Message) -> bool:
        """Seal a message for a peer; False without a session."""
        session = self._sessions.current(peer)
        if session is None:
            return False
        self._put(session.seal(encode_message(message)), session.address)
        return True

    def ping(self, peer: str, now_s: float) -> None:
        """Ask a peer for a sign of life."""
        link = self.links.get(peer)
        nonce = self._rng.getrandbits(63)
        if link is not None and self.send(peer, Ping(nonce=nonce)):
            link.pinged(nonce, now_s)

    def upkeep(self, now: Moment) -> None:
        """Greet whoever should be greeted, ask whoever has been silent."""
        self._sessions.expire(now.s)
        for peer, link in self.links.items():
            session = self._sessions.current(peer)
            address = link.hello_to(session, self._places_of(peer), self._rng, now.s)
            if address is not None:
                hello = self._sessions.begin(peer, address, now)
                if hello is not None:
                    self._put(hello, address)
            if session is not None and link.wants_ping(session, now.s):
                self.ping(peer, now.s)

    def take(self) -> list[Send]:
        """Return what is to be sent, once."""
        outbox, self.outbox = self.outbox, []
        return outbox

    def _put(self, data: bytes, address: Address) -> None:
        self._counters.add(Count.SENT)
        self._counters.add(Count.SENT_BYTES, len(data))
        self.outbox.append(Send(data, address))

    def _on_hello(self, hello: Hello, data: bytes, address: Address, now: Moment) -> None:
        self._sessions.check_hello(hello, now)
        # Signatures cost: all HELLOs together may take a tenth of a core. No source has a share of
        # its own, since whoever forges a source could use up a server's share.
        if not self._checks.spend(1, now.s):
            raise DroppedError(Count.DROPPED_RATE_LIMITED)
        self._put(self._sessions.accept_hello(hello, data, address, now), address)

    def _on_ack(self, ack: HelloAck, data: bytes, address: Address, now: Moment) -> Received:
        session = self._sessions.accept_ack(ack, data, address, now)
        self._connected(session, now)
        return Received(peer=session.peer, message=None, fresh=True)

    def _on_box(self, box: Box, address: Address, now: Moment) -> Received | None:
        opened = self._sessions.open_box(box, address)
        peer = opened.session.peer
        if opened.fresh:
            self._connected(opened.session, now)
        elif link := self.links.get(peer):
            link.heard(now.s)
        try:
            message = decode_message(opened.plaintext)
        except WireError:
            self._counters.add(Count.DROPPED_BAD_MESSAGE)
            return Received(peer=peer, message=None, fresh=True) if opened.fresh else None
        return Received(peer=peer, message=message, fresh=opened.fresh)

    def _connected(self, session: Session, now: Moment) -> None:
        self._counters.add(Count.HANDSHAKES)
        link = self.links.setdefault(session.peer, Link.new(session.peer, now.s))
        backbone = self._places_of(session.peer).backbone
        link.connected(now.s, over_backbone=session.address == backbone)
