"""Servers and endpoints that speak rendezvous over a network that a test rules; no sockets."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from ipaddress import ip_network
from itertools import count
from typing import TYPE_CHECKING, Any

from seipd.agent.paths.talk import Talk
from services.edge.punch.book import Book, Outgoing
from services.edge.punch.meetings import Meetings
from services.edge.punch.messages import (
    Call,
    Here,
    Message,
    Met,
    Pass,
    Passed,
    Refused,
    RelayOffer,
    Signal,
    Signalled,
    decode,
    encode,
    tunnel_bytes,
)
from services.edge.punch.parties import Party
from services.edge.punch.telling import Teller
from services.edge.punch.words import Words
from services.kernel.ids import ServerId

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from random import Random

GATEWAY = "10.64.0.1"
MESH_RANGES = (ip_network("10.64.0.0/10"), ip_network("172.16.0.0/22"))


@dataclass
class State:
    """What all servers know: endpoints and servers by address, and who may not meet."""

    endpoints: dict[str, Party] = field(default_factory=dict)
    servers: dict[ServerId, str] = field(default_factory=dict)
    closed: set[frozenset[str]] = field(default_factory=set)


class FakeParties:
    """Satisfies Parties."""

    def __init__(self, own_id: ServerId, state: State) -> None:
        self.own_id = own_id
        self._state = state

    def party(self, address: str) -> Party | None:
        return self._state.endpoints.get(address)

    def server_at(self, backbone: str) -> ServerId | None:
        return next((k for k, v in self._state.servers.items() if v == backbone), None)

    def backbone_of(self, server_id: ServerId) -> str | None:
        return self._state.servers.get(server_id)


class FakePolicy:
    """Satisfies Policy."""

    def __init__(self, state: State) -> None:
        self._state = state

    def may_meet(self, one: str, other: str) -> bool:
        return frozenset({one, other}) not in self._state.closed


class FakeOffers:
    """Gives out a new ticket at each call; satisfies Offers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, tuple[bytes, ...]]] = []
        self.versions: list[tuple[frozenset[int], ...]] = []

    def offers(
        self,
        one: str,
        other: str,
        excluded: Collection[bytes],
        versions: Sequence[Collection[int]],
    ) -> list[RelayOffer]:
        self.versions.append(tuple(map(frozenset, versions)))
        self.asked.append((one, other, tuple(excluded)))
        return [
            RelayOffer(
                relay_id=bytes([number]) * 16,
                host4=b"\xc6\x12\x00\x09",
                host6=b"",
                control_port=9103,
                box_key=b"b" * 32,
                ticket=len(self.asked).to_bytes(4, "big") * 70,
            )
            for number in (1, 2)
        ]


class FakeServer:
    """The pure parts of one server."""

    def __init__(self, server_id: ServerId, state: State, now_s: float = 0.0) -> None:
        self.server_id = server_id
        parties, policy = FakeParties(server_id, state), FakePolicy(state)
        self.offers = FakeOffers()
        first = int(now_s * 1000) + 1
        self.book = Book(parties=parties, first_version=first)
        self.teller = Teller(mesh_ranges=MESH_RANGES, first_serial=first)
        self.meetings = Meetings(
            book=self.book,
            parties=parties,
            policy=policy,
            offers=self.offers,
            teller=self.teller,
        )
        self.words = Words(book=self.book, parties=parties, policy=policy)

    def from_endpoint(self, address: str, message: Message, now_s: float) -> list[Outgoing]:
        if isinstance(message, Here):
            return self.book.here(address, message, now_s)
        one = self.book.get(address)
        if one is None:
            return self.book.greet(address)
        match message:
            case Call():
                return self.meetings.call(one, message, now_s)
            case Met():
                self.teller.met(one.address, message.peer, message.serial)
            case Signal():
                return self.words.signal(one, message, now_s)
            case Signalled():
                return self.words.signalled(one, message, now_s)
        return []

    def from_server(self, server_id: ServerId, message: Any, now_s: float) -> list[Outgoing]:
        match message:
            case Pass():
                return self.meetings.on_pass(server_id, message, now_s)
            case Passed():
                return self.meetings.on_passed(server_id, message)
            case Refused():
                return self.meetings.on_refused(server_id, message)
        name = "on_carry" if type(message).__name__ == "Carry" else "on_carried"
        return list(getattr(self.words, name)(server_id, message))

    def tick(self, now_s: float) -> list[Outgoing]:
        return [*self.book.tick(now_s), *self.teller.tick(now_s)]


@dataclass
class FakeEndpoint:
    """An agent's talk, and all that it was told."""

    address: str
    talk: Talk
    observed: tuple[str, int] | None
    told: list[Any] = field(default_factory=list)

    @property
    def tunnel(self) -> bytes:
        return tunnel_bytes(self.address)


class FakeMesh:
    """A network with a clock: every datagram takes 10 ms, or whatever a test makes of it."""

    def __init__(self, rng: Random | None = None, loss: float = 0.0, twice: float = 0.0) -> None:
        self.state = State()
        self.servers: dict[ServerId, FakeServer] = {}
        self.endpoints: dict[str, FakeEndpoint] = {}
        self.now_s = 1000.0
        self.sent: list[tuple[str, str, Message]] = []
        self.lost: Callable[[str, str, Message], bool] = lambda source, target, message: False
        self._rng, self._loss, self._twice = rng, loss, twice
        self._flying: list[tuple[float, int, str, str, bytes]] = []
        self._order = count()

    def server(self, number: int) -> ServerId:
        server_id = ServerId(f"server-{number:016x}")
        self.state.servers[server_id] = f"172.16.0.{number}"
        self.servers[server_id] = FakeServer(server_id, self.state, self.now_s)
        return server_id

    def restart(self, server_id: ServerId) -> None:
        self.servers[server_id] = FakeServer(server_id, self.state, self.now_s)

    def endpoint(
        self, number: int, carrier: ServerId, observed: tuple[str, int] | None = None
    ) -> FakeEndpoint:
        address = f"10.64.0.{number}"
        party = Party(node_id=f"n{number}", key=bytes([number]) * 32, carrier=carrier)
        self.state.endpoints[address] = party
        observed = observed or (f"198.18.0.{number}", 40000 + number)
        talk = Talk(counter=number * 1000, now_s=self.now_s)
        one = self.endpoints[address] = FakeEndpoint(address, talk, observed)
        return one

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            while self._flying and self._flying[0][0] <= self.now_s:
                _, _, source, target, data = heapq.heappop(self._flying)
                self._arrive(source, target, data)
            for one in self.endpoints.values():
                self._follow(one, one.talk.due(self.now_s))
            for server in self.servers.values():
                self._look(server)
                self._send(server, server.tick(self.now_s))
            self.now_s = round(self.now_s + 0.01, 6)

    def _look(self, server: FakeServer) -> None:
        if not server.book.wants_look:
            return
        server.book.wants_look = False
        for address, party in self.state.endpoints.items():
            observed = self.endpoints[address].observed
            if party.carrier == server.server_id and observed is not None:
                seen = server.book.observe(party.key, *observed, self.now_s)
                self._send(server, seen)

    def _follow(self, one: FakeEndpoint, heard: Any) -> None:
        for message in heard.replies:
            self._fly(one.address, GATEWAY, encode(message))
        one.told += heard.events

    def _send(self, server: FakeServer, outgoing: list[Outgoing]) -> None:
        for out in outgoing:
            inner = out.host in self.endpoints
            self._fly(
                GATEWAY if inner else self.state.servers[server.server_id], out.host, out.data
            )

    def _fly(self, source: str, target: str, data: bytes) -> None:
        message = decode(data)
        self.sent.append((source, target, message))
        if self.lost(source, target, message):
            return
        times = 1
        delay_s = 0.01
        if self._rng is not None:
            if self._rng.random() < self._loss:
                return
            times += self._rng.random() < self._twice
        for _ in range(times):
            if self._rng is not None:
                delay_s = self._rng.choice((0.01, 0.02, 0.05, 0.2))
            due_s = self.now_s + delay_s
            heapq.heappush(self._flying, (due_s, next(self._order), source, target, data))

    def _arrive(self, source: str, target: str, data: bytes) -> None:
        message = decode(data)
        if target in self.endpoints:
            one = self.endpoints[target]
            self._follow(one, one.talk.take(message, self.now_s))
        elif target == GATEWAY:
            carrier = self.state.endpoints[source].carrier
            if carrier in self.servers:
                server = self.servers[carrier]
                self._send(server, server.from_endpoint(source, message, self.now_s))
        else:
            parties = FakeParties(ServerId(""), self.state)
            server_id, sender = parties.server_at(target), parties.server_at(source)
            if server_id in self.servers and sender is not None:
                server = self.servers[server_id]
                self._send(server, server.from_server(sender, message, self.now_s))
