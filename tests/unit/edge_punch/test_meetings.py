"""Two endpoints that want to meet are told of each other, whatever is lost on the way."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from seipd.agent.paths.talk import HERE_S
from services.edge.punch.book import ASKS_AT_ONCE, SILENT_S
from services.edge.punch.messages import (
    Call,
    CandidateKind,
    Carry,
    Meet,
    Nothing,
    Pass,
    Passed,
    Signal,
    SignalCode,
    What,
    Why,
    candidate,
)
from tests.fakes.rendezvous import FakeEndpoint, FakeMesh


def meets(one: FakeEndpoint) -> list[Meet]:
    return [event for event in one.told if isinstance(event, Meet)]


def nothings(one: FakeEndpoint) -> list[Why]:
    return [event.why for event in one.told if isinstance(event, Nothing)]


def endpoints_of(meet: Meet) -> list[tuple[CandidateKind, str, int]]:
    return [(one.kind, *one.endpoint) for one in meet.candidates]


@pytest.fixture
def mesh() -> FakeMesh:
    return FakeMesh()


@pytest.fixture(params=[1, 2], ids=["one server", "two servers"])
def pair(mesh: FakeMesh, request: pytest.FixtureRequest) -> tuple[FakeEndpoint, FakeEndpoint]:
    """Two endpoints that are here, at one server or at two."""
    first = mesh.server(1)
    second = first if request.param == 1 else mesh.server(2)
    pair = mesh.endpoint(10, first), mesh.endpoint(11, second)
    mesh.run(0.5)
    return pair


def test_both_are_told_of_each_other_within_a_tenth_of_a_second(
    mesh: FakeMesh, pair: tuple[FakeEndpoint, FakeEndpoint]
) -> None:
    one, other = pair
    other.talk.set_candidates(
        [candidate(CandidateKind.STUN, "203.0.113.7", 5555)], is_symmetric=True, now_s=mesh.now_s
    )
    mesh.run(0.1)
    one.talk.call(other.tunnel, (), mesh.now_s)
    mesh.run(0.1)
    (to_one,), (to_other,) = meets(one), meets(other)
    assert to_one.key == mesh.state.endpoints[other.address].key
    assert to_one.peer == other.tunnel
    assert to_one.is_symmetric
    assert endpoints_of(to_one) == [
        (CandidateKind.OBSERVED, "198.18.0.11", 40011),
        (CandidateKind.STUN, "203.0.113.7", 5555),
    ]
    assert to_other.key == mesh.state.endpoints[one.address].key
    assert endpoints_of(to_other) == [(CandidateKind.OBSERVED, "198.18.0.10", 40010)]
    assert to_one.offers == to_other.offers
    assert len(to_one.offers) == 2
    assert nothings(one) == []


def test_a_call_that_is_said_again_is_the_same_meeting(
    mesh: FakeMesh, pair: tuple[FakeEndpoint, FakeEndpoint]
) -> None:
    one, other = pair
    dropped: list[Any] = []

    def lost(source: str, target: str, message: object) -> bool:
        is_first = isinstance(message, Meet) and target == one.address and len(dropped) < 2
        dropped.extend([message] * is_first)
        return is_first

    mesh.lost = lost
    one.talk.call(other.tunnel, (), mesh.now_s)
    mesh.run(3.0)
    assert len(meets(one)) == len(meets(other)) == 1
    assert dropped[0] == dropped[1] == meets(one)[0]
    assert sum(len(server.offers.asked) for server in mesh.servers.values()) == 1


def test_who_is_called_is_told_again_until_it_says_so(
    mesh: FakeMesh, pair: tuple[FakeEndpoint, FakeEndpoint]
) -> None:
    one, other = pair
    seen: list[Any] = []

    def lost(source: str, target: str, message: object) -> bool:
        is_meet = isinstance(message, Meet) and target == other.address
        seen.extend([message] * is_meet)
        return is_meet and len(seen) < 3

    mesh.lost = lost
    one.talk.call(other.tunnel, (), mesh.now_s)
    mesh.run(4.0)
    assert len(meets(other)) == 1
    assert len(seen) == 3


def test_two_who_call_each_other_at_once_are_offered_the_same_relays(
    mesh: FakeMesh, pair: tuple[FakeEndpoint, FakeEndpoint]
) -> None:
    one, other = pair
    one.talk.call(other.tunnel, (), mesh.now_s)
    other.talk.call(one.tunnel, (), mesh.now_s)
    mesh.run(4.0)
    assert meets(one)[-1].offers == meets(other)[-1].offers
    assert len(meets(one)) == len(meets(other)) == 1
    assert nothings(one) == nothings(other) == []


def test_who_was_called_a_moment_ago_may_call_back_and_is_told_the_same(
    mesh: FakeMesh, pair: tuple[FakeEndpoint, FakeEndpoint]
) -> None:
    one, other = pair
    one.talk.call(other.tunnel, (), mesh.now_s)
    mesh.run(0.5)
    other.talk.call(one.tunnel, (), mesh.now_s)
    mesh.run(6.0)
    first, again = meets(other)
    assert first == again
    assert nothings(other) == []


def test_relays_that_did_not_work_are_named_to_who_offers(
    mesh: FakeMesh, pair: tuple[FakeEndpoint, FakeEndpoint]
) -> None:
    one, other = pair
    one.talk.call(other.tunnel, (), mesh.now_s)
    mesh.run(0.2)
    one.talk.call(other.tunnel, [b"r" * 16], mesh.now_s)
    mesh.run(0.2)
    asked = [ask for server in mesh.servers.values() for ask in server.offers.asked]
    assert asked == [("n10", "n11", ()), ("n10", "n11", (b"r" * 16,))]
    assert meets(one)[1].offers == meets(other)[1].offers != meets(one)[0].offers


def test_relays_are_chosen_by_the_versions_of_ip_that_the_two_are_seen_by(
    mesh: FakeMesh, pair: tuple[FakeEndpoint, FakeEndpoint]
) -> None:
    """An address of one's own that nobody outside has seen says nothing of what is reached."""
    one, other = pair
    said = [
        candidate(CandidateKind.LOCAL, "2001:db8::5", 41_000),
        candidate(CandidateKind.STUN, "203.0.113.9", 41_000),
    ]
    one.talk.set_candidates(said, is_symmetric=False, now_s=mesh.now_s)
    seen6 = [candidate(CandidateKind.STUN, "2001:db8::b", 41_000)]
    other.talk.set_candidates(seen6, is_symmetric=False, now_s=mesh.now_s)
    mesh.run(0.5)
    one.talk.call(other.tunnel, (), mesh.now_s)
    mesh.run(0.5)
    (versions,) = [one for server in mesh.servers.values() for one in server.offers.versions]
    # Another server's endpoint may be seen by anything.
    known = (frozenset({4}), frozenset({4, 6}))
    assert versions == known[: 2 if len(mesh.servers) == 1 else 1]


def test_who_is_not_there_is_told_to_be_away(
    mesh: FakeMesh, pair: tuple[FakeEndpoint, FakeEndpoint]
) -> None:
    one, other = pair
    mesh.endpoints.pop(other.address)
    mesh.run(SILENT_S + HERE_S)
    one.talk.call(other.tunnel, (), mesh.now_s)
    mesh.run(0.2)
    assert nothings(one) == [Why.AWAY]
    assert sum(len(server.book) for server in mesh.servers.values()) == 1


def test_who_wants_to_meet_nobody_is_told_to_be_away_until_it_has_candidates(
    mesh: FakeMesh, pair: tuple[FakeEndpoint, FakeEndpoint]
) -> None:
    one, other = pair
    other.talk.set_candidates(None, is_symmetric=False, now_s=mesh.now_s)
    mesh.run(0.1)
    one.talk.call(other.tunnel, (), mesh.now_s)
    mesh.run(0.2)
    assert (nothings(one), meets(other)) == ([Why.AWAY], [])
    other.talk.set_candidates((), is_symmetric=False, now_s=mesh.now_s)
    mesh.run(0.1)
    one.talk.call(other.tunnel, (), mesh.now_s)
    mesh.run(0.2)
    assert len(meets(one)) == len(meets(other)) == 1


def test_who_may_not_reach_the_other_is_told_nothing_of_it(
    mesh: FakeMesh, pair: tuple[FakeEndpoint, FakeEndpoint]
) -> None:
    one, other = pair
    mesh.state.closed.add(frozenset({"n10", "n11"}))
    one.talk.call(other.tunnel, (), mesh.now_s)
    one.talk.signal(other.tunnel, SignalCode.FALL_BACK, mesh.now_s)
    mesh.run(1.0)
    assert nothings(one) == [Why.FORBIDDEN]
    assert meets(other) == []
    assert not any(isinstance(event, Signal) for event in other.told)


def test_nobody_meets_an_unknown_address_or_oneself(mesh: FakeMesh) -> None:
    one = mesh.endpoint(10, mesh.server(1))
    mesh.run(0.2)
    one.talk.call(b"\x0a\x40\x00\x63", (), mesh.now_s)
    one.talk.call(one.tunnel, (), mesh.now_s)
    mesh.run(0.2)
    assert nothings(one) == [Why.UNKNOWN, Why.UNKNOWN]


def test_stn_11_who_calls_too_often_is_told_to_wait(mesh: FakeMesh) -> None:
    first = mesh.server(1)
    one, other = mesh.endpoint(10, first), mesh.endpoint(11, first)
    mesh.run(0.5)
    for number in range(200):
        one.talk.call(other.tunnel, [number.to_bytes(16, "big")], mesh.now_s)
        mesh.run(0.03)
    assert Why.BUSY in nothings(one)
    assert len(meets(other)) < ASKS_AT_ONCE + 40
    mesh.run(30.0)
    one.told.clear()
    one.talk.call(other.tunnel, (), mesh.now_s)
    mesh.run(0.2)
    assert len(meets(one)) == 1


def test_stn_11_nobody_is_told_of_addresses_where_harm_is_done(
    mesh: FakeMesh, pair: tuple[FakeEndpoint, FakeEndpoint]
) -> None:
    one, other = pair
    hostile = [
        ("127.0.0.1", 5000),
        ("::1", 5000),
        ("::ffff:127.0.0.1", 5000),
        ("169.254.169.254", 8080),
        ("10.64.0.1", 51941),
        ("172.16.0.1", 51941),
        ("10.0.0.1", 5000),
        ("192.168.1.1", 5000),
        ("224.0.0.251", 5353),
        ("255.255.255.255", 9999),
        ("203.0.113.9", 22),
        ("64:ff9b::7f00:1", 5000),
    ]
    said = [candidate(CandidateKind.LOCAL, host, port) for host, port in hostile]
    one.talk.set_candidates(said, is_symmetric=False, now_s=mesh.now_s)
    mesh.run(0.1)
    one.talk.call(other.tunnel, (), mesh.now_s)
    mesh.run(0.2)
    assert endpoints_of(meets(other)[0]) == [(CandidateKind.OBSERVED, "198.18.0.10", 40010)]


def test_stn_11_one_host_is_named_by_few_ports_and_never_as_observed(mesh: FakeMesh) -> None:
    first = mesh.server(1)
    one, other = mesh.endpoint(10, first), mesh.endpoint(11, first)
    mesh.run(0.1)
    # As a client would that keeps to no rule: the victim by many ports, also in the server's name.
    talk = one.talk
    talk._here.candidates = (
        *(candidate(CandidateKind.STUN, "203.0.113.9", 2000 + port) for port in range(12)),
        candidate(CandidateKind.OBSERVED, "203.0.113.10", 2000),
    )
    talk.refresh(mesh.now_s)
    mesh.run(0.2)
    talk.call(other.tunnel, (), mesh.now_s)
    mesh.run(0.2)
    hosts = [host for _, host, _ in endpoints_of(meets(other)[0])]
    assert hosts == ["198.18.0.10", *["203.0.113.9"] * 4]


def test_neighbours_behind_one_router_are_told_of_private_addresses(mesh: FakeMesh) -> None:
    first, second = mesh.server(1), mesh.server(2)
    one = mesh.endpoint(10, first, ("203.0.113.1", 4001))
    other = mesh.endpoint(11, second, ("203.0.113.1", 4002))
    far = mesh.endpoint(12, second, ("203.0.113.2", 4002))
    home = [candidate(CandidateKind.LOCAL, "192.168.1.5", 40000)]
    one.talk.set_candidates(home, is_symmetric=False, now_s=mesh.now_s)
    mesh.run(0.5)
    one.talk.call(other.tunnel, (), mesh.now_s)
    one.talk.call(far.tunnel, (), mesh.now_s)
    mesh.run(0.5)
    assert (CandidateKind.LOCAL, "192.168.1.5", 40000) in endpoints_of(meets(other)[0])
    assert endpoints_of(meets(far)[0]) == [(CandidateKind.OBSERVED, "203.0.113.1", 4001)]


def test_a_server_speaks_only_for_endpoints_that_it_carries(mesh: FakeMesh) -> None:
    first, second, third = mesh.server(1), mesh.server(2), mesh.server(3)
    one, other = mesh.endpoint(10, first), mesh.endpoint(11, second)
    mesh.run(0.5)
    forged = Pass(1, one.tunnel, other.tunnel, (), False, b"", ())
    assert mesh.servers[second].from_server(third, forged, mesh.now_s) == []
    carry = Carry(one.tunnel, other.tunnel, 1, SignalCode.FALL_BACK)
    assert mesh.servers[second].from_server(third, carry, mesh.now_s) == []
    assert mesh.servers[second].from_server(first, carry, mesh.now_s) != []
    # Nor does one answer for another that was asked.
    one.talk.call(other.tunnel, (), mesh.now_s)
    mesh.lost = lambda source, target, message: isinstance(message, Pass)
    mesh.run(0.1)
    (serial,) = {m.serial for _, _, m in mesh.sent if isinstance(m, Pass)}
    lie = Passed(serial, one.tunnel, other.tunnel, (), False, b"")
    assert mesh.servers[first].from_server(third, lie, mesh.now_s) == []
    assert mesh.servers[first].from_server(second, lie, mesh.now_s) != []


def test_a_server_that_dies_in_the_middle_is_reported_and_its_successor_works(
    mesh: FakeMesh,
) -> None:
    first, second = mesh.server(1), mesh.server(2)
    one, other = mesh.endpoint(10, first), mesh.endpoint(11, second)
    mesh.run(0.5)
    dead = mesh.servers.pop(second)
    one.talk.call(other.tunnel, (), mesh.now_s)
    mesh.run(5.0)
    assert nothings(one) == [Why.UNREACHABLE]
    mesh.servers[second] = dead
    mesh.restart(second)
    mesh.run(HERE_S)
    one.talk.call(other.tunnel, (), mesh.now_s)
    mesh.run(0.2)
    assert len(meets(one)) == len(meets(other)) == 1


def test_a_restarted_server_hears_at_once_that_its_caller_is_here(mesh: FakeMesh) -> None:
    first = mesh.server(1)
    one, other = mesh.endpoint(10, first), mesh.endpoint(11, first)
    mesh.run(0.5)
    mesh.restart(first)
    one.told.clear()
    for each, peer in ((one, other), (other, one)):
        each.talk.signal(peer.tunnel, SignalCode.RESTARTED, mesh.now_s)
    mesh.run(0.1)
    assert len(mesh.servers[first].book) == 2
    assert {What.POLICY, What.PEERS} <= {event for event in one.told if isinstance(event, What)}
    one.talk.call(other.tunnel, (), mesh.now_s)
    mesh.run(0.5)
    assert len(meets(one)) == len(meets(other)) == 1


def test_a_word_arrives_once_and_is_confirmed(
    mesh: FakeMesh, pair: tuple[FakeEndpoint, FakeEndpoint]
) -> None:
    one, other = pair
    one.talk.signal(other.tunnel, SignalCode.FALL_BACK, mesh.now_s)
    mesh.run(5.0)
    words = [event for event in other.told if isinstance(event, Signal)]
    assert [(word.peer, word.code) for word in words] == [(one.tunnel, SignalCode.FALL_BACK)]
    said = [m for source, _, m in mesh.sent if isinstance(m, Signal) and source == one.address]
    assert len(said) == 1


@pytest.mark.parametrize("seed", range(20))
def test_meets_in_spite_of_loss_repetition_and_disorder(seed: int) -> None:
    mesh = FakeMesh(Random(seed), loss=0.2, twice=0.2)  # noqa: S311 (a seed)
    servers = [mesh.server(1), mesh.server(2)]
    all_here = [mesh.endpoint(10 + number, servers[number % 2]) for number in range(4)]
    mesh.run(20.0)
    met = 0
    pairs = [(one, other) for one in all_here for other in all_here if one is not other]
    for one, other in pairs:
        for each in all_here:
            each.told.clear()
        one.talk.call(other.tunnel, (), mesh.now_s)
        mesh.run(6.0)
        met += bool(meets(one)) and bool(meets(other))
        assert len(meets(one)) + len(nothings(one)) == 1
        assert len(meets(other)) <= 1
    assert met >= len(pairs) - 2


def test_what_is_said_of_a_call_stays_small_without_an_answer(mesh: FakeMesh) -> None:
    first, second = mesh.server(1), mesh.server(2)
    one, other = mesh.endpoint(10, first), mesh.endpoint(11, second)
    mesh.run(0.5)
    mesh.sent.clear()
    mesh.lost = lambda source, target, message: isinstance(message, Meet)
    one.talk.call(other.tunnel, (), mesh.now_s)
    mesh.run(10.0)
    assert len([m for _, _, m in mesh.sent if isinstance(m, Call)]) == 4
    assert len([m for _, _, m in mesh.sent if isinstance(m, Pass)]) <= 4
    assert len([m for _, to, m in mesh.sent if isinstance(m, Meet) and to == other.address]) <= 4
