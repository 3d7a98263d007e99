"""What is done with what the server, other endpoints and strangers say."""

from __future__ import annotations

from ipaddress import ip_interface

import msgspec
import pytest

from seipd.agent.paths import service
from seipd.agent.paths.effects import Drop, SetPeer
from seipd.agent.paths.probes import Probe, ProbeBox, ProbeKind
from seipd.agent.paths.proved import Peer
from seipd.agent.paths.service import Paths
from services.base.crypto.agreement import generate_x25519
from services.edge.punch.messages import (
    CandidateKind,
    Known,
    Meet,
    RelayOffer,
    SignalCode,
    Why,
    candidate,
    host_bytes,
    tunnel_bytes,
)

OURS, THEIRS, STRANGER = (generate_x25519() for _ in range(3))
PEER = Peer(node_id="n2", name="e2", address="10.64.0.11", address6="fd00::b", key=THEIRS[1])
THERE = ("198.51.100.7", 40000)


class Clock:
    now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def now_ms(self) -> int:
        return int(self.now_s * 1000)


class Port:
    def __init__(self) -> None:
        self.sent: list[tuple[bytes, tuple[str, int]]] = []

    def send(self, data, address) -> None:
        self.sent.append((data, address))


class Rendezvous:
    known = Known(
        counter=1,
        observed_host=host_bytes("203.0.113.50"),
        observed_port=7,
        policy_version=0,
        peers_version=0,
    )

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[bytes]]] = []
        self.signals: list[tuple[str, SignalCode]] = []

    def call(self, peer, excluded=()) -> None:
        self.calls.append((peer, list(excluded)))

    def signal(self, peer, code) -> None:
        self.signals.append((peer, code))

    def refresh(self) -> None:
        pass


class Places:
    networks = (ip_interface("192.168.1.5/24"),)
    is_symmetric = False

    def changed(self) -> None:
        pass

    def hurry(self) -> None:
        pass


class Peers:
    """The list of a server, of which none may be proved yet."""

    def __init__(self, *proved: Peer) -> None:
        self.proved = {one.address: one for one in proved}
        self.wanted: list[str] = []

    def address_of(self, address):
        return address if address == PEER.address else None

    def find(self, address):
        return self.proved.get(address)

    def want(self, address, *, now=False) -> None:
        self.wanted.append(address)

    def changed(self) -> None:
        self.wanted.append("all")


class Relays:
    def __init__(self) -> None:
        self.begun: list[list[bytes]] = []

    def begin(self, peer_key, offers) -> None:
        self.begun.append([one.relay_id for one in offers])

    def end(self, peer_key) -> None:
        self.begun.append([])


class Stage:
    def __init__(self, *proved: Peer) -> None:
        self.clock, self.port, self.rendezvous = Clock(), Port(), Rendezvous()
        self.peers, self.relays = Peers(*proved), Relays()
        self.paths = Paths(
            private_key=OURS[0],
            port=self.port,
            device=None,
            rendezvous=self.rendezvous,
            places=Places(),
            peers=self.peers,
            relays_of=lambda paths: self.relays,
            mesh_ranges=("10.64.0.0/10", "fd00::/48"),
            prefixes_of=lambda address: (),
            clock=self.clock,
        )
        self.ordered: list = []
        self.paths._tunnels.order = lambda peer, wish: self.ordered.append((peer.name, wish))
        self.theirs = ProbeBox(THEIRS[0])
        self.theirs.know(OURS[1])

    @property
    def pinged(self) -> set[tuple[str, int]]:
        return {address for _, address in self.port.sent}

    def answer(self, source=THERE, *, is_up=False) -> None:
        """Have the peer answer each ping that went there."""
        for data, address in list(self.port.sent):
            _, probe = self.theirs.decode(data)
            if probe.kind is ProbeKind.PING and address == source:
                pong = Probe(
                    kind=ProbeKind.PONG, counter=probe.counter, is_up=is_up, observed=("1.2.3.4", 5)
                )
                self.hear(pong, source)

    def hear(self, probe, source, box=None) -> None:
        data = (box or self.theirs).encode(OURS[1], probe, bytes(23) + bytes([probe.counter % 251]))
        self.paths._probed(data, source)


def meeting(*addresses, key=THEIRS[1], offers=(), observed="203.0.113.99") -> Meet:
    found = [candidate(CandidateKind.LOCAL, *one) for one in addresses]
    found.append(candidate(CandidateKind.OBSERVED, observed, 40009))
    return Meet(
        key=key,
        peer=tunnel_bytes(PEER.address),
        candidates=tuple(found),
        is_symmetric=False,
        offers=tuple(offers),
        serial=1,
    )


def offer(number: int, host: str, port: int = 9103) -> RelayOffer:
    return RelayOffer(
        relay_id=bytes([number]) * 16,
        host4=host_bytes(host),
        host6=b"",
        control_port=port,
        box_key=bytes(32),
        ticket=b"",
    )


def test_a_peer_that_packets_go_to_is_called_once_it_is_proved():
    stage = Stage()
    stage.paths.want(PEER.address)
    stage.paths.want("10.64.0.200")
    assert (stage.peers.wanted, stage.rendezvous.calls) == ([PEER.address], [])
    stage.peers.proved[PEER.address] = PEER
    stage.paths.want(PEER.address)
    assert stage.rendezvous.calls == [(PEER.address, [])]


def test_a_meeting_with_one_who_is_not_proved_waits_for_the_proof():
    stage = Stage()
    stage.paths.meet(meeting(THERE))
    assert stage.port.sent == []
    assert stage.peers.wanted == [PEER.address]
    stage.peers.proved[PEER.address] = PEER
    stage.paths.peer_proved(PEER)
    assert THERE in stage.pinged


def test_a_key_that_is_not_the_proved_one_gets_nothing():
    stage = Stage(PEER)
    stage.paths.meet(meeting(THERE, key=STRANGER[1]))
    assert stage.port.sent == []
    assert stage.peers.wanted == ["all"]


@pytest.mark.parametrize(
    "address",
    [
        ("127.0.0.1", 22222),
        ("::1", 22222),
        ("224.0.0.1", 22222),
        ("169.254.169.254", 8080),
        ("198.51.100.7", 22),
        ("10.64.0.1", 51941),
        ("fd00::1", 51941),
        ("10.0.0.7", 51820),
        ("::ffff:127.0.0.1", 22222),
    ],
)
def test_stn_11_candidates_of_others_networks_are_not_sent_to(address):
    stage = Stage(PEER)
    stage.paths.meet(meeting(address, THERE))
    assert stage.pinged == {THERE, ("203.0.113.99", 40009)}


def test_a_neighbour_behind_the_same_router_is_reached_at_its_private_address():
    stage = Stage(PEER)
    stage.paths.meet(meeting(("10.0.0.7", 51820), observed="203.0.113.50"))
    assert ("10.0.0.7", 51820) in stage.pinged
    other = Stage(PEER)
    other.paths.meet(meeting(("192.168.1.77", 51820)))
    assert ("192.168.1.77", 51820) in other.pinged, "it is on the link"


def test_a_way_that_answers_becomes_a_peer_without_traffic_first():
    stage = Stage(PEER)
    stage.paths.meet(meeting(THERE))
    stage.answer()
    (name, wish), *_ = stage.ordered
    assert (name, wish.endpoint, wish.carries, wish.is_fresh) == ("e2", THERE, False, True)


def test_strangers_and_answers_that_nobody_asked_for_are_not_heard():
    stage = Stage(PEER)
    stage.paths.meet(meeting(THERE))
    sent = len(stage.port.sent)
    stranger = ProbeBox(STRANGER[0])
    stranger.know(OURS[1])
    stage.hear(Probe(kind=ProbeKind.PING, counter=5), THERE, box=stranger)
    stage.hear(Probe(kind=ProbeKind.PONG, counter=5, observed=THERE), THERE)
    stage.paths._probed(b"seiP" + bytes(101), THERE)
    stage.hear(Probe(kind=ProbeKind.PING, counter=6), ("127.0.0.1", 4000))
    assert (len(stage.port.sent), stage.ordered) == (sent, [])


def test_a_peer_that_is_another_now_loses_its_tunnel():
    stage = Stage(PEER)
    stage.paths.meet(meeting(THERE))
    stage.answer()
    stage.paths.peer_gone(PEER)
    assert isinstance(stage.ordered[-1][1], Drop)
    assert (PEER.address, SignalCode.FALL_BACK) in stage.rendezvous.signals
    assert stage.paths.held == []
    count = len(stage.port.sent)
    stage.hear(Probe(kind=ProbeKind.PING, counter=7), THERE)
    assert len(stage.port.sent) == count


def test_rly_06_relays_at_addresses_that_nobody_should_be_sent_to_are_not_used():
    stage = Stage(PEER)
    offers = (offer(1, "127.0.0.1"), offer(2, "203.0.113.5"))
    stage.paths.meet(meeting(offers=offers))
    for _ in range(30):
        stage.clock.now_s += 0.1
        for held in stage.paths.held:
            stage.paths._follow(held, held.path.tick(stage.clock.now_s))
    assert stage.relays.begun == [[bytes([2]) * 16]]
    stage.paths.relay_bound(PEER.key, bytes([2]) * 16, ("203.0.113.5", 9104))
    assert isinstance(stage.ordered[-1][1], SetPeer)
    assert stage.ordered[-1][1].is_relayed
    stage.paths.relay_lost(PEER.key, bytes([2]) * 16, "silent")
    assert stage.rendezvous.calls[-1] == (PEER.address, [bytes([2]) * 16])


def lose_relay(stage: Stage, number: int) -> None:
    stage.paths.relay_lost(PEER.key, bytes([number]) * 16 if number else b"", "silent")
    for _ in range(30):
        stage.clock.now_s += 0.1
        for held in stage.paths.held:
            stage.paths._follow(held, held.path.tick(stage.clock.now_s))


def excluded(stage: Stage) -> list[int]:
    return [one[0] for one in stage.rendezvous.calls[-1][1]]


def test_a_relay_that_failed_is_left_out_for_a_minute_and_not_for_ever():
    """All were out of reach while the router at home began anew, and none is bad for that."""
    stage = Stage(PEER)
    stage.paths.want(PEER.address)
    for number in (1, 2, 3, 4, 5, 1):
        lose_relay(stage, number)
    assert excluded(stage) == [3, 4, 5, 1]
    stage.clock.now_s += 61
    for held in stage.paths.held:
        stage.paths._follow(held, held.path.tick(stage.clock.now_s))
    assert excluded(stage) == []


def test_a_relay_whose_session_the_other_end_gave_up_is_no_bad_one():
    """It went there before it heard that the two go back to the server, and left again."""
    stage = Stage(PEER)
    stage.paths.want(PEER.address)
    stage.paths.relay_lost(PEER.key, bytes([1]) * 16, "ended")
    lose_relay(stage, 2)
    assert excluded(stage) == [2]


def test_in_another_network_all_relays_are_worth_a_try():
    stage = Stage(PEER)
    stage.paths.want(PEER.address)
    lose_relay(stage, 1)
    assert excluded(stage) == [1]
    stage.paths.network_changed(is_lost=False)
    assert excluded(stage) == [1]
    stage.paths.network_changed()
    assert excluded(stage) == []


def test_a_relay_that_there_never_was_is_not_left_out():
    """A call that names it would be dropped as malformed."""
    stage = Stage(PEER)
    stage.paths.want(PEER.address)
    lose_relay(stage, 0)
    assert excluded(stage) == []


def test_a_meeting_of_long_ago_is_asked_for_anew_once_the_other_is_proved():
    stage = Stage()
    stage.paths.meet(meeting(THERE))
    stage.clock.now_s += 30
    stage.peers.proved[PEER.address] = PEER
    stage.paths.peer_proved(PEER)
    assert stage.port.sent == []
    assert stage.rendezvous.calls == [(PEER.address, [])]


def test_calls_that_came_to_nothing_take_nobody_s_place(monkeypatch):
    """However many endpoints call: who is talked to then gets a path."""
    monkeypatch.setattr(service, "MAX_PATHS", 4)
    callers = [
        Peer(
            node_id=f"c{number}",
            name=f"c{number}",
            address=f"10.64.1.{number + 10}",
            address6=f"fd00::{number + 10:x}",
            key=generate_x25519()[1],
        )
        for number in range(6)
    ]
    stage = Stage(PEER, *callers)
    for one in callers:
        told = meeting(("198.51.100.9", 40_000), key=one.key)
        stage.paths.meet(msgspec.structs.replace(told, peer=tunnel_bytes(one.address)))
    assert len(stage.paths.held) == 4
    stage.paths.want(PEER.address)
    assert stage.rendezvous.calls == [], "all are being looked for just now"
    for _ in range(40):
        stage.clock.now_s += 0.1
        for held in stage.paths.held:
            stage.paths._follow(held, held.path.tick(stage.clock.now_s))
    stage.paths.want(PEER.address)
    assert stage.rendezvous.calls[-1] == (PEER.address, [])
    assert len(stage.paths.held) == 4


def test_why_there_is_no_path_is_told():
    stage = Stage(PEER)
    stage.paths.want(PEER.address)
    stage.paths.nothing(PEER.address, Why.AWAY)
    assert "stock WireGuard" in stage.paths.held[0].path.why
