"""Two agents and two relays, without a network: who settles where, and what is told."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest

from seipd.agent.paths.relaying import Relaying
from services.base.crypto.agreement import generate_x25519
from services.edge.punch.messages import RelayOffer
from tests.fakes.relay import Relay
from tests.fakes.relay_book import CONTROL_PORT, FIRST_PORT, NOW_MS

NEAR, FAR = "198.18.0.1", "198.18.0.2"
A, B = generate_x25519(), generate_x25519()


class Clock:
    def __init__(self, world) -> None:
        self.world = world

    def now_ms(self) -> int:
        return NOW_MS + int((self.world.now_s - 1000) * 1000)

    def monotonic_s(self) -> float:
        return self.world.now_s


@dataclass
class Agent:
    """An agent whose port is at one address; what it is told stands in ``told``."""

    world: World
    private: bytes
    address: tuple
    told: list = field(default_factory=list)
    judged: list = field(default_factory=list)

    def __post_init__(self) -> None:
        self.relaying = Relaying(
            port=self,
            wireguard_private=self.private,
            listener=self,
            clock=Clock(self.world),
            judge=self,
        )

    # A port.
    def send(self, data, address) -> None:
        relay = self.world.relays.get(address[0])
        if relay is not None:
            relay.carry([(data, address)], self.address)

    # What a relay's fake delivers to.
    def receive(self, data, source, now_s):
        self.relaying.received(data, source)
        return []

    def tick(self, now_s):
        return []

    # A listener and a judge.
    def relay_bound(self, peer_key, relay_id, address) -> None:
        self.told.append(("bound", relay_id, address))

    def relay_lost(self, peer_key, relay_id, why) -> None:
        self.told.append(("lost", relay_id, why))

    def relay_usage(self, peer_key, relay_id, statement) -> None:
        self.told.append(("usage", relay_id, statement))

    def offered(self, peer_key, offers) -> None:
        pass

    def heartbeat(self, peer_key, relay_id, round_trip_ms) -> None:
        self.judged.append((relay_id, round_trip_ms))

    def usage(self, peer_key, relay_id, statement) -> None:
        pass

    def ended(self, peer_key, relay_id, why="") -> None:
        self.judged.append((relay_id, "ended", why))


class World:
    def __init__(self) -> None:
        self.relays = {
            NEAR: Relay(host=NEAR, relay_id=bytes([1]) * 16, seed=bytes([1]) * 32),
            FAR: Relay(host=FAR, relay_id=bytes([2]) * 16, seed=bytes([2]) * 32),
        }
        self.now_s = 1000.0
        self.a = Agent(self, A[0], ("198.18.1.1", 5000))
        self.b = Agent(self, B[0], ("198.18.2.2", 6000))
        for relay in self.relays.values():
            relay.clients = {one.address: one for one in (self.a, self.b)}

    def offers(self, *hosts) -> list[RelayOffer]:
        return [
            RelayOffer(
                relay_id=relay.relay_id,
                host4=ip_address(relay.host).packed,
                host6=b"",
                control_port=CONTROL_PORT,
                box_key=relay.box_key,
                ticket=relay.ticket((A[1], B[1]), nonce=secrets.token_bytes(16)),
            )
            for relay in (self.relays[host] for host in hosts)
        ]

    def meet(self, *hosts) -> None:
        offers = self.offers(*hosts)
        self.a.relaying.begin(B[1], offers)
        self.b.relaying.begin(A[1], offers)

    def run(self, seconds: float) -> None:
        until = self.now_s + seconds
        while self.now_s < until:
            self.now_s += 0.2
            for relay in self.relays.values():
                relay.now_s = self.now_s
                relay.run(relay.book.sweep(now_ms=relay.now_ms, now_s=relay.now_s))
            self.a.relaying.tick()
            self.b.relaying.tick()


@pytest.fixture
def world() -> World:
    return World()


def bound(host: str, port: int = FIRST_PORT):
    relay_id = bytes([1 if host == NEAR else 2]) * 16
    return ("bound", relay_id, (host, port))


def test_both_settle_on_the_first_relay_and_let_the_other_go(world):
    world.meet(NEAR, FAR)
    world.run(15)
    assert world.a.told[-1] == world.b.told[-1] == bound(NEAR)
    assert [len(relay.book) for relay in world.relays.values()] == [1, 0]
    assert world.a.relaying.latency_ms(B[1]) == 0
    assert world.a.relaying.left_s(B[1]) == pytest.approx(3585, abs=1)


def test_the_second_relay_carries_where_the_first_is_dead(world):
    world.relays[NEAR].is_up = False
    world.meet(NEAR, FAR)
    world.run(2)
    assert world.a.told == world.b.told == [bound(FAR)]


def test_rly_09_a_dead_relay_is_told_to_both_within_ten_seconds(world):
    world.meet(NEAR)
    world.run(62)
    world.relays[NEAR].is_up = False
    world.run(9.6)
    lost = ("lost", bytes([1]) * 16, "silent")
    assert world.a.told == world.b.told == [bound(NEAR), lost]
    assert world.a.judged[-2:] == [(bytes([1]) * 16, None), (bytes([1]) * 16, "ended", "silent")]


def test_a_newer_ticket_changes_no_port(world):
    world.meet(NEAR)
    world.run(3000)
    world.meet(NEAR)
    world.run(1200)
    assert world.a.told == [bound(NEAR)]
    assert world.a.relaying.left_s(B[1]) > 2000


def test_while_a_relay_carries_no_other_is_asked(world):
    world.relays[NEAR].is_up = False
    world.meet(NEAR, FAR)
    world.run(30)
    world.relays[NEAR].is_up = True
    world.meet(NEAR, FAR)
    world.run(20)
    assert world.a.told == world.b.told == [bound(FAR)]
    assert len(world.relays[NEAR].book) == 0


def test_a_relay_that_is_offered_no_more_carries_until_another_does(world):
    world.meet(NEAR)
    world.run(5)
    world.relays[FAR].is_up = False
    world.meet(FAR)
    world.run(2)
    assert world.a.told == [bound(NEAR)]
    world.relays[FAR].is_up = True
    world.meet(FAR)
    world.run(20)
    assert world.a.told == world.b.told == [bound(NEAR), bound(FAR)]
    assert [len(relay.book) for relay in world.relays.values()] == [0, 1]


def test_rly_05_what_strangers_say_has_nobody_looked_over(world, monkeypatch):
    """Else each datagram of a flood would cost as much as there are peers."""
    world.meet(NEAR)
    looked = []
    monkeypatch.setattr(world.a.relaying, "_review", lambda *_: looked.append(1))
    for number in range(100):
        world.a.relaying.received(b"seiR" + bytes(100), ("203.0.113.66", 1024 + number))
    assert looked == []
    world.a.relaying.received(b"seiR" + bytes(100), (NEAR, CONTROL_PORT))
    assert looked == [1]


def test_who_stays_alone_at_a_relay_is_told(world):
    world.a.relaying.begin(B[1], world.offers(NEAR))
    world.run(30)
    assert world.a.told == [("lost", bytes([1]) * 16, "alone")]
    assert len(world.relays[NEAR].book) == 0


def test_one_ends_and_the_other_hears_it(world):
    world.meet(NEAR)
    world.a.relaying.end(B[1])
    assert world.b.told == [bound(NEAR), ("lost", bytes([1]) * 16, "ended")]
    assert world.a.told == [bound(NEAR)]


def test_no_relay_that_can_be_spoken_to(world):
    (offer,) = world.offers(NEAR)
    nowhere = RelayOffer(
        relay_id=offer.relay_id,
        host4=b"",
        host6=b"",
        control_port=offer.control_port,
        box_key=offer.box_key,
        ticket=offer.ticket,
    )
    world.a.relaying.begin(B[1], [nowhere])
    assert world.a.told == [("lost", b"", "refused")]


def test_many_peers_at_one_relay_are_told_apart(world):
    """All answers come under one key from one address until each has its data port."""
    keys = [generate_x25519() for _ in range(20)]
    relay = world.relays[NEAR]
    for at, (private, public) in enumerate(keys):
        agent = Agent(world, private, ("198.18.3.3", 7000 + at))
        relay.clients[agent.address] = agent
        offer = RelayOffer(
            relay_id=relay.relay_id,
            host4=ip_address(NEAR).packed,
            host6=b"",
            control_port=CONTROL_PORT,
            box_key=relay.box_key,
            ticket=relay.ticket((A[1], public)),
        )
        world.a.relaying.begin(public, [offer])
        agent.relaying.begin(A[1], [offer])
        assert agent.told == [bound(NEAR, FIRST_PORT + at)]
    assert [told[2][1] for told in world.a.told] == list(range(FIRST_PORT, FIRST_PORT + 20))
