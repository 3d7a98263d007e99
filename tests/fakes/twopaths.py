"""Two endpoints' paths to each other, with routers, WireGuard and a server played around them."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from seipd.agent.paths.effects import Ask, Drop, LeaveRelay, SeekRelay, Send, SetPeer, Tell
from seipd.agent.paths.pathing import PeerPath
from seipd.agent.paths.peers import keepalive_seconds
from seipd.agent.paths.phase import Phase
from seipd.agent.paths.probes import ProbeKind
from seipd.agent.paths.service import TICK_FAST_S, TICK_S
from services.edge.wireguard.model import PeerStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WAY_S = 0.02
READ_S = 1.0
AGAIN_S = 0.3
"""What goes over the servers is said again after so long, until it is confirmed."""
RELAY = ("203.0.113.9", 9104)
KEEPALIVE_BYTES = 32
DATA_BYTES = 1000
KEY = bytes(32)


@dataclass
class Router:
    """What stands between an endpoint and the world; ``kind`` by the books' names."""

    kind: str
    public: str
    ports: dict[Any, int] = field(default_factory=dict)
    free: Iterator[int] = field(default_factory=lambda: itertools.count(40000))
    opened: set[tuple[int, Any]] = field(default_factory=set)

    def out(self, to: tuple[str, int]) -> tuple[str, int]:
        """Return where a datagram seems to come from."""
        key = to if self.kind == "symmetric" else None
        if self.kind != "open" and key not in self.ports:
            self.ports[key] = next(self.free)
        port = 51820 if self.kind == "open" else self.ports[key]
        self.opened.add((port, to))
        return self.public, port

    def lets_in(self, port: int, source: tuple[str, int]) -> bool:
        """Say whether a datagram from somewhere to a port of ours comes through."""
        if self.kind == "open":
            return True
        if self.kind == "cone":
            return port in self.ports.values()
        return (port, source) in self.opened


@dataclass
class Side:
    """One endpoint."""

    name: str
    router: Router
    path: PeerPath
    address6: tuple[str, int]
    peer: SetPeer | None = None
    endpoint: tuple[str, int] | None = None
    """Where WireGuard sends to: it goes where it last heard the other from."""
    initiation: int | None = None
    sessions: set[int] = field(default_factory=set)
    has_session: bool = False
    kept_s: float = 0.0
    read_s: float = 0.0
    handshake_s: int = 0
    received: int = 0
    relay: bool = False
    said: int = 0
    heard: Counter = field(default_factory=Counter)
    pings: Counter = field(default_factory=Counter)
    history: list[tuple[float, str]] = field(default_factory=list)


class Stage:
    """Plays until a time; ``cut`` says which datagrams get lost on the direct way."""

    def __init__(
        self,
        left: str,
        right: str,
        *,
        offers: bool = False,
        addresses: int = 1,
        way_s: float = WAY_S,
        left_leads: bool = True,
        lost: float = 0.0,
        jitter_s: float = 0.0,
        way6_s: float | None = None,
        seed: int = 1,
    ) -> None:
        self.now_s = 100.0
        self.way_s = way_s
        self.lost = lost
        self.jitter_s = jitter_s
        self.way6_s = way6_s
        self.chance = random.Random(seed)  # noqa: S311 (which datagram is lost)
        self.sides = [
            Side(name, Router(kind, host), PeerPath(start_ms=0, leads=leads), (host6, 51820))
            for name, kind, host, host6, leads in (
                ("left", left, "192.0.2.1", "2001:db8:1::1", left_leads),
                ("right", right, "198.51.100.1", "2001:db8:2::1", not left_leads),
            )
        ]
        self.offers: tuple = ("offer",) if offers else ()
        self.cut: Callable[[float], bool] = lambda now_s: False
        self.relay_is_alive = self.server_is_alive = True
        self.loses_confirmation = self.loses_wireguard = False
        self.meetings = 0
        self.extra = addresses - 1
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        for side in self.sides:
            self._at(self.now_s, lambda side=side: self._tick(side))

    def other(self, side: Side) -> Side:
        """Return whom a side talks to."""
        return self.sides[side is self.sides[0]]

    def want(self, number: int = 0) -> None:
        """Have packets go to the other."""
        side = self.sides[number]
        self._follow(side, side.path.want(self.now_s))

    def play(self, for_s: float) -> None:
        """Go on for some seconds."""
        until_s = self.now_s + for_s
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, do = heapq.heappop(self._events)
            do()
        self.now_s = until_s

    @property
    def paths(self) -> tuple[str, str]:
        """By which path packets go now."""
        left, right = (side.path.path for side in self.sides)
        return left, right

    def loses(self) -> bool:
        """Say whether a packet would be lost now since the two differ in who carries."""
        left, right = (bool(side.peer and side.peer.carries) for side in self.sides)
        return left != right

    def _at(self, time_s: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (time_s, next(self._numbers), do))

    def _after(self, do: Callable[[], None], *, ways: int = 1, way_s: float | None = None) -> None:
        """Have a datagram arrive, or not; over a relay or the server it goes two ways."""
        for _ in range(ways):
            if self.lost and self.chance.random() < self.lost:
                return
        self._at(self.now_s + self._way_s(way_s), do)

    def _surely(self, do: Callable[[], None]) -> None:
        """Have something arrive over the servers, where it is said until it is confirmed."""
        again_s, late_s = AGAIN_S, 0.0
        while self.lost and self.chance.random() < self.lost:
            late_s, again_s = late_s + again_s, again_s * 2
        if self.server_is_alive:
            self._at(self.now_s + late_s + self._way_s(), do)

    def _way_s(self, way_s: float | None = None) -> float:
        way_s = self.way_s if way_s is None else way_s
        return way_s + (self.chance.uniform(0, self.jitter_s) if self.jitter_s else 0.0)

    def _tick(self, side: Side) -> None:
        if side.path.phase is Phase.SHAKING or self.now_s - side.read_s >= READ_S:
            side.read_s = self.now_s
            self._read(side)
        self._follow(side, side.path.tick(self.now_s))
        self._keep_alive(side)
        pause_s = TICK_FAST_S if side.path.is_busy else TICK_S
        self._at(self.now_s + pause_s, lambda: self._tick(side))

    def _read(self, side: Side) -> None:
        if side.peer is None:
            return
        status = PeerStatus(
            public_key=KEY,
            endpoint=side.endpoint,
            allowed_ips=(),
            keepalive_seconds=0,
            last_handshake_s=side.handshake_s,
            rx_bytes=side.received,
        )
        self._follow(side, side.path.device(status, self.now_s))

    def _keep_alive(self, side: Side) -> None:
        each_s = keepalive_seconds(side.peer) if side.peer is not None else 0
        if each_s and side.has_session and self.now_s - side.kept_s >= each_s:
            self._transport(side, KEEPALIVE_BYTES)

    def _follow(self, side: Side, effects: list) -> None:
        for effect in effects:
            self._do(side, effect)
        state = side.path.path
        if not side.history or side.history[-1][1] != state:
            side.history.append((self.now_s, state))

    def _do(self, side: Side, effect: Any) -> None:
        other = self.other(side)
        match effect:
            case Send(address, probe):
                if probe.kind is ProbeKind.PING:
                    side.pings[address, self.meetings] += 1
                self._carry(
                    side,
                    address,
                    lambda source: self._follow(other, other.path.heard(probe, source, self.now_s)),
                )
            case SetPeer():
                side.peer, side.endpoint = effect, effect.endpoint
                self._begin_anew(side, effect)
            case Drop():
                assert side.peer is not None
                side.peer = None
                self._forget(side)
            case Ask():
                self._surely(self._meet_both)
            case Tell(code):
                self._surely(lambda: self._follow(other, other.path.signalled(code, self.now_s)))
            case SeekRelay():
                side.relay = True
                self._at(self.now_s + 0.1, lambda: self._bind(side))
            case LeaveRelay():
                side.relay = False

    def _bind(self, side: Side) -> None:
        if self.relay_is_alive and side.relay:
            bound = side.path.relay_bound(RELAY, self.now_s)
            self._follow(side, bound)

    def _meet_both(self) -> None:
        self.meetings += 1
        for side in self.sides:
            self._surely(partial(self._meet, side)) if self.lost else self._meet(side)

    def _meet(self, side: Side) -> None:
        other = self.other(side)
        seen = other.router.out(("203.0.113.1", 3478))
        second = [other.address6] if self.way6_s is not None else []
        told = [seen, *second, *((f"203.0.113.{100 + n}", 5000) for n in range(self.extra))]
        hopeless = {side.router.kind, other.router.kind} == {"symmetric"}
        met = side.path.meet(told, self.offers, self.now_s, hopeless=hopeless)
        self._follow(side, met)

    def _carry(self, side: Side, to: tuple[str, int], arrive: Callable[[Any], None]) -> None:
        """Take a datagram to where it is addressed, if the routers and the cut let it."""
        if self.cut(self.now_s):
            return
        other = self.other(side)
        if self.way6_s is not None and to == other.address6:
            self._after(lambda: arrive(side.address6), way_s=self.way6_s)
            return
        source = side.router.out(to)

        def land() -> None:
            if to[0] == other.router.public and other.router.lets_in(to[1], source):
                arrive(source)

        self._after(land)

    def _begin_anew(self, side: Side, wish: SetPeer) -> None:
        if not wish.is_fresh:
            return
        side.handshake_s = side.received = 0
        self._forget(side)
        if wish.initiates:
            self._initiate(side)

    def _forget(self, side: Side) -> None:
        side.initiation, side.has_session = None, False
        side.sessions.clear()

    def _initiate(self, side: Side) -> None:
        """Send a handshake initiation: it is lost where the other has no such peer yet."""
        side.initiation = next(self._numbers)
        self._tunnelled(side, partial(self._initiated, self.other(side), side.initiation))

    def _initiated(self, side: Side, number: int, source: tuple[str, int]) -> None:
        """Answer; as WireGuard has one handshake a peer, what was begun from here is forgotten."""
        if side.peer is not None:
            side.initiation, side.endpoint = None, source
            side.sessions.add(number)
            self._tunnelled(side, partial(self._answered, self.other(side), number))

    def _answered(self, side: Side, number: int, source: tuple[str, int]) -> None:
        if side.peer is not None and side.initiation == number:
            side.initiation, side.endpoint = None, source
            side.sessions.add(number)
            self._comes_up(side, 92)
            side.kept_s = self.now_s
            if not self.loses_confirmation:
                self._transport(side, KEEPALIVE_BYTES)

    def _comes_up(self, side: Side, size: int) -> None:
        side.handshake_s, side.has_session = int(self.now_s), True
        side.received += size
        self._read(side)

    def _transport(self, side: Side, size: int, number: int = 0) -> None:
        """Send a packet of a session; the first that arrives confirms the handshake."""
        side.kept_s = self.now_s
        sessions = frozenset(side.sessions)
        self._tunnelled(side, partial(self._received, self.other(side), size, number, sessions))

    def _received(
        self,
        side: Side,
        size: int,
        number: int,
        sessions: frozenset[int],
        source: tuple[str, int],
    ) -> None:
        if side.peer is None or not sessions & side.sessions:
            return
        side.endpoint = source
        if side.has_session:
            side.received += size
        else:
            self._comes_up(side, size)
        if number and side.peer.carries:
            side.heard[number] += 1

    def say(self, side: Side) -> None:
        """Send one packet to the other, by the path that there is."""
        side.said += 1
        if side.peer is not None and side.peer.carries:
            if side.has_session:
                self._transport(side, DATA_BYTES, side.said)
            return
        other = self.other(side)

        def arrive(number: int = side.said) -> None:
            if other.peer is None or not other.peer.carries:
                other.heard[number] += 1

        if self.server_is_alive:
            self._after(arrive, ways=2)

    def talk(self, each_s: float) -> None:
        """Have both say something again and again, from now on."""
        for number, side in enumerate(self.sides):
            self.want(number)
            self.say(side)
        self._at(self.now_s + each_s, lambda: self.talk(each_s))

    def _tunnelled(self, side: Side, arrive: Callable[[tuple[str, int]], None]) -> None:
        """Take one of WireGuard's packets to where it believes the peer to be."""
        assert side.endpoint is not None
        if side.endpoint != RELAY and self.loses_wireguard:
            return
        if side.endpoint != RELAY:
            self._carry(side, side.endpoint, arrive)
        elif self.relay_is_alive:
            self._after(lambda: arrive(RELAY), ways=2)


def phases(stage: Stage) -> tuple[Phase, Phase]:
    """Return how far both are."""
    left, right = (side.path.phase for side in stage.sides)
    return left, right
