"""One endpoint that says very much is not heard any more, and the others are."""

from __future__ import annotations

from collections import Counter

import pytest

from services.edge.punch import service as punch_service
from services.edge.punch.meetings import NoOffers
from services.edge.punch.messages import PORT, Carry, Echo, Here, SignalCode, encode, tunnel_bytes
from services.edge.punch.parties import Party
from services.edge.punch.service import FROM_ONE_PER_MINUTE, PunchService, PunchSettings
from services.kernel.ids import ServerId
from tests.fakes.rendezvous import FakeParties, FakePolicy, State

OWN, OTHER = ServerId("server-" + "1" * 16), ServerId("server-" + "2" * 16)


class Clock:
    now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s

    def now_ms(self) -> int:
        return int(self.now_s * 1000)


class Wire:
    """What the service sends, in the place of a socket."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()

    def send(self, data: bytes, address: tuple[str, int]) -> None:
        self.sent[address[0]] += 1


@pytest.fixture
def stage(monkeypatch):
    state, clock = State(), Clock()
    for number in (10, 11):
        party = Party(node_id=f"n{number}", key=bytes([number]) * 32, carrier=OWN)
        state.endpoints[f"10.64.0.{number}"] = party
    settings = PunchSettings(
        public_hosts=(),
        public_port=0,
        gateway="10.64.0.1",
        backbone="172.16.0.1",
        interface="seip0",
        mesh_ranges=(),
    )
    punch = PunchService(
        settings=settings,
        parties=FakeParties(OWN, state),
        policy=FakePolicy(state),
        offers=NoOffers(),
        tunnels=None,
        answer_stun=lambda *_: None,
        clock=clock,
    )
    state.servers[OTHER] = "172.16.0.2"
    monkeypatch.setattr(punch_service.socket, "if_indextoname", lambda _: "seip0")
    wire = punch._inner = Wire()
    return punch, wire, clock


def here(counter: int) -> bytes:
    return encode(
        Here(
            counter=counter,
            candidates=(),
            is_symmetric=False,
            is_fresh=True,
            policy_version=0,
            peers_version=0,
        )
    )


@pytest.mark.parametrize("datagram", [here, lambda n: encode(Echo(counter=n)), lambda n: b"\x90"])
def test_stn_11_a_flood_of_one_endpoint_costs_little_and_stops_nobody_else(stage, datagram) -> None:
    punch, wire, clock = stage
    for number in range(5 * FROM_ONE_PER_MINUTE):
        punch._on_endpoint(datagram(number), ("10.64.0.10", PORT), 1)
    assert wire.sent["10.64.0.10"] <= FROM_ONE_PER_MINUTE
    assert punch.counters()["ignored"] >= 4 * FROM_ONE_PER_MINUTE
    punch._on_endpoint(here(1), ("10.64.0.11", PORT), 1)
    assert wire.sent["10.64.0.11"] == 1
    # Later it is heard again.
    before = wire.sent["10.64.0.10"]
    clock.now_s += 10
    punch._on_endpoint(here(10**6), ("10.64.0.10", PORT), 1)
    assert wire.sent["10.64.0.10"] == before + 1


def test_stn_11_words_without_end_of_another_server_do_not_reach_endpoints(stage) -> None:
    punch, wire, _ = stage
    punch._by_server.allow(50)
    party = Party(node_id="n12", key=bytes([12]) * 32, carrier=OTHER)
    punch._parties._state.endpoints["10.64.0.12"] = party
    punch._on_endpoint(here(1), ("10.64.0.10", PORT), 1)
    before = wire.sent["10.64.0.10"]
    for number in range(1000):
        word = Carry(
            sender=tunnel_bytes("10.64.0.12"),
            receiver=tunnel_bytes("10.64.0.10"),
            counter=number,
            code=SignalCode.FALL_BACK,
        )
        punch._on_server(encode(word), ("172.16.0.2", PORT), 1)
    assert 0 < wire.sent["10.64.0.10"] - before <= 200
