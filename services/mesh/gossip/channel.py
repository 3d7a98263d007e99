"""Sealed messages between this server and the others: sessions, links and their upkeep. Pure.

What comes in is a message of a peer that has proved itself, or nothing. What goes out gathers in
``outbox`` for whoever owns the socket. A session is opened when there is something to say, and a
few are kept open at all times: in a small mesh, one with each server; in a large one, with the next
servers of the circle, in which all stand by their ids, and with others that chance has chosen.
"""

from __future__ import annotations

import itertools
from bisect import bisect
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from services.kernel.budget import Budget
from services.kernel.errors import WireError
from services.mesh.gossip.codec import MAX_DATAGRAM_BYTES, Box, Hello, HelloAck, decode
from services.mesh.gossip.counters import Count, Counters, DroppedError
from services.mesh.gossip.effects import Send
from services.mesh.gossip.links import Link, Places
from services.mesh.gossip.messages import Message, decode_message, encode_message
from services.mesh.membership.messages import Ping

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from services.mesh.gossip.ports import Moment, Rng
    from services.mesh.gossip.session import Session, SessionTable
    from services.runtime.udp import Address

HELLO_CHECKS_A_SECOND: Final = 2000
COMPANY: Final = 16
# Of 1,000 servers that each tell 8 by chance, chance tells every second record to all but one; of
# two neighbours that know, one will get through.
NEIGHBOURS: Final = 2
MAX_NEIGHBOURS_TRIED: Final = 16
MAX_WAITING_MESSAGES: Final = 16
MAX_WAITING_PEERS: Final = 256
MAX_WAIT_S: Final = 3.0
EXPIRE_INTERVAL_S: Final = 1.0
LOST_AFTER_HELLOS: Final = 6


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """What a datagram brought: a message, or only the news that a session is up."""

    peer: str
    message: Message | None
    fresh: bool


class Channel:
    """Greets the servers of the roster that it has a reason to, and seals what is said to them."""

    def __init__(
        self,
        *,
        own_id: str,
        sessions: SessionTable,
        counters: Counters,
        rng: Rng,
        places_of: Callable[[str], Places],
        is_believed: Callable[[str], bool],
        now_s: float,
    ) -> None:
        self._own_id = own_id
        self._sessions = sessions
        self._counters = counters
        self._rng = rng
        self._places_of = places_of
        self._is_believed = is_believed
        self._checks = Budget(
            rate_per_s=HELLO_CHECKS_A_SECOND, burst=HELLO_CHECKS_A_SECOND, now_s=now_s
        )
        self._peers: tuple[str, ...] = ()
        self._ahead: tuple[str, ...] = ()
        self._company: dict[str, None] = {}
        self._neighbours: tuple[str, ...] = ()
        self._expected: tuple[str, ...] = ()
        self._watched: dict[str, None] = {}
        self._waiting: dict[str, deque[tuple[float, bytes]]] = {}
        self._next_expire_s = now_s
        self.links: dict[str, Link] = {}
        self.outbox: list[Send] = []

    def set_peers(self, peers: Mapping[str, bytes], now_s: float) -> None:
        """Have exactly these servers as peers."""
        self._peers = tuple(sorted(peers))
        at = bisect(self._peers, self._own_id)
        self._ahead = (self._peers[at:] + self._peers[:at])[:MAX_NEIGHBOURS_TRIED]
        for peer in self._peers:
            if peer not in self.links:
                self.links[peer] = Link.new(peer, now_s)
        for peer in [peer for peer in self.links if peer not in peers]:
            del self.links[peer]
            self._sessions.forget(peer)
            for table in (self._company, self._watched, self._waiting):
                table.pop(peer, None)
        self._find_company()
        self._find_neighbours()
        self._watched.update(dict.fromkeys(self._neighbours))

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

    def some_live(self, count: int, now_s: float, *, without: Collection[str] = ()) -> list[str]:
        """Return up to ``count`` peers that are likely to answer now, by chance."""
        live = [
            peer
            for peer in self._sessions.peers()
            if self._is_good(peer, now_s) and peer not in without
        ]
        return self._rng.sample(live, min(count, len(live)))

    def audience(self, count: int, now_s: float, *, without: Collection[str] = ()) -> list[str]:
        """Return whom to tell news: the next in the circle, the others by chance."""
        good = [peer for peer in self._ahead if self._is_good(peer, now_s)]
        near = good[: min(NEIGHBOURS, count // 2)]
        others = self.some_live(count - len(near), now_s, without={*near, *without})
        return [*(peer for peer in near if peer not in without), *others]

    def receive(self, data: bytes, address: Address, now: Moment) -> Received | None:
        """Take a datagram; drop and count it unless it is in order."""
        self._counters.add(Count.RECEIVED)
        self._counters.add(Count.RECEIVED_BYTES, len(data))
        try:
            if len(data) > MAX_DATAGRAM_BYTES:
                raise DroppedError(Count.DROPPED_TOO_LARGE)
            match decode(data):
                case Box() as box:
                    return self._on_box(box, address, now)
                case Hello() as hello:
                    self._on_hello(hello, data, address, now)
                case HelloAck() as ack:
                    return self._on_ack(ack, data, address, now)
        except DroppedError as dropped:
            self._counters.add(dropped.count)
        except WireError:
            self._counters.add(Count.DROPPED_MALFORMED)
        return None

    def send(self, peer: str, message: Message, now: Moment) -> None:
        """Seal a message for a peer; without a session, greet it and let the message wait."""
        link = self.links.get(peer)
        if link is None:
            return
        data = encode_message(message)
        session = self._sessions.current(peer)
        if isinstance(message, Ping):
            link.asked(now.s)
            self._watched[peer] = None
        if session is not None:
            self._put(session.seal(data), session.address)
            if link.wants_hello(session, self._places_of(peer), now.s):
                self._watched[peer] = None
        elif peer in self._waiting or len(self._waiting) < MAX_WAITING_PEERS:
            waiting = self._waiting.setdefault(peer, deque(maxlen=MAX_WAITING_MESSAGES))
            waiting.append((now.s + MAX_WAIT_S, data))
            self._watched[peer] = None
            self._tend(peer, now)

    def expect(self, peers: tuple[str, ...]) -> None:
        """Greet in good time those to whom something will be said soon."""
        if peers != self._expected:
            self._expected = peers
            self._watched.update((peer, None) for peer in peers if peer in self.links)

    def moved(self, peer: str, now_s: float) -> None:
        """Note that a peer is said to be somewhere else."""
        link = self.links.get(peer)
        if link is not None:
            link.moved(now_s)
            self._watched[peer] = None

    def upkeep(self, now: Moment) -> None:
        """Greet whoever should be greeted; what has waited too long is dropped."""
        if now.s >= self._next_expire_s:
            self._next_expire_s = now.s + EXPIRE_INTERVAL_S
            self._sessions.expire(now.s)
            self._replace_lost()
            self._find_neighbours()
            self._watched.update(
                (peer, None)
                for peer in (*self._company, *self._neighbours)
                if self._sessions.current(peer) is None
            )
        for peer in tuple(self._watched):
            if not self._tend(peer, now):
                del self._watched[peer]

    def take(self) -> list[Send]:
        """Return what is to be sent, once."""
        outbox, self.outbox = self.outbox, []
        return outbox

    def _tend(self, peer: str, now: Moment) -> bool:
        """Greet a peer if it is time to; say whether it needs to be looked at again."""
        link = self.links[peer]
        waiting = self._waiting.get(peer)
        while waiting and waiting[0][0] <= now.s:
            waiting.popleft()
        if waiting is not None and not waiting:
            del self._waiting[peer]
        session = self._sessions.current(peer)
        if session is None and not (waiting or self._is_wanted(peer)):
            return False
        places = self._places_of(peer)
        address = link.hello_to(session, places, self._rng, now.s)
        if address is not None:
            hello = self._sessions.begin(peer, address, now)
            if hello is not None:
                self._put(hello, address)
        return session is None or link.wants_hello(session, places, now.s) or link.is_asked

    def _is_wanted(self, peer: str) -> bool:
        return peer in self._company or peer in self._neighbours or peer in self._expected

    def _is_good(self, peer: str, now_s: float) -> bool:
        return self.is_live(peer, now_s) and self._is_believed(peer)

    def _find_neighbours(self) -> None:
        """Know the next servers of the circle that are not held dead."""
        believed = (peer for peer in self._ahead if self._is_believed(peer))
        self._neighbours = tuple(itertools.islice(believed, NEIGHBOURS))

    def _find_company(self) -> None:
        """Choose whom to stay in session with, so that news always has somewhere to go."""
        lacking = COMPANY - len(self._company)
        others = [peer for peer in self._peers if peer not in self._company]
        for peer in self._rng.sample(others, min(max(lacking, 0), len(others))):
            self._company[peer] = None
            self._watched[peer] = None

    def _replace_lost(self) -> None:
        if len(self._peers) <= COMPANY:
            return
        for peer in tuple(self._company):
            if (
                self._sessions.current(peer) is None
                and self.links[peer].hello_count >= LOST_AFTER_HELLOS
            ):
                del self._company[peer]
        self._find_company()

    def _put(self, data: bytes, address: Address) -> None:
        self._counters.add(Count.SENT)
        self._counters.add(Count.SENT_BYTES, len(data))
        self.outbox.append(Send(data, address))

    def _on_hello(self, hello: Hello, data: bytes, address: Address, now: Moment) -> None:
        self._sessions.check_hello(hello)
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
        else:
            self.links[peer].heard(now.s)
        try:
            message = decode_message(opened.plaintext)
        except WireError:
            self._counters.add(Count.DROPPED_BAD_MESSAGE)
            return Received(peer=peer, message=None, fresh=True) if opened.fresh else None
        return Received(peer=peer, message=message, fresh=opened.fresh)

    def _connected(self, session: Session, now: Moment) -> None:
        self._counters.add(Count.HANDSHAKES)
        peer = session.peer
        link = self.links.get(peer) or Link.new(peer, now.s)
        self.links[peer] = link
        backbone = self._places_of(peer).backbone
        link.connected(now.s, over_backbone=session.address == backbone)
        for _, data in self._waiting.pop(peer, ()):
            self._put(session.seal(data), session.address)
