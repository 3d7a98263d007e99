"""Paths as their users see them: which way packets go, how soon, and what a cut way costs."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seipd.agent.paths.effects import Ask, Drop, Send, SetPeer
from seipd.agent.paths.pathing import PeerPath
from seipd.agent.paths.phase import Phase
from seipd.agent.paths.probes import Probe, ProbeKind
from services.edge.punch.messages import SignalCode
from services.edge.wireguard.model import PeerStatus
from tests.fakes.thoroughness import examples
from tests.fakes.twopaths import Stage, phases

KINDS = ("open", "cone", "restricted", "symmetric")
CLOSED = {("symmetric", "symmetric"), ("restricted", "symmetric"), ("symmetric", "restricted")}
OPEN_PAIRS = sorted(set(itertools.product(KINDS, KINDS)) - CLOSED)


@pytest.mark.parametrize("kinds", OPEN_PAIRS)
def test_a_pair_of_routers_that_permits_a_direct_tunnel_has_one_within_three_seconds(kinds):
    stage = Stage(*kinds)
    stage.want()
    stage.play(3.0)
    assert stage.paths == ("direct", "direct")
    assert all(len(side.history) == 2 for side in stage.sides), "once there it stays"


@pytest.mark.parametrize("left_leads", [True, False])
@pytest.mark.parametrize("way_ms", [1, 5, 30, 80, 150, 250])
def test_however_long_the_way_is_the_two_handshakes_never_cross(way_ms, left_leads):
    """WireGuard has one handshake a peer: two begun at once both come to nothing."""
    for kinds, offers in ((("cone", "restricted"), False), (("symmetric", "symmetric"), True)):
        stage = Stage(*kinds, offers=offers, way_s=way_ms / 1000, left_leads=left_leads)
        stage.want()
        stage.play(3.0)
        expected = "relay" if offers else "direct"
        assert stage.paths == (expected, expected)


def test_the_packet_that_confirms_a_handshake_is_repeated_where_it_was_lost():
    """Until it is there the other end has no tunnel, and it is the next keepalive at the latest."""
    stage = Stage("cone", "restricted", way_s=0.1)
    stage.loses_confirmation = True
    stage.want()
    stage.play(3.0)
    assert stage.paths == ("direct", "direct")
    assert all([to for _, to in side.history] == ["server", "direct"] for side in stage.sides)


def test_a_handshake_with_one_that_forgot_it_meanwhile_is_made_anew():
    """As where both are started anew at once, and hear of each other's start in the midst of it."""
    stage = Stage("cone", "restricted", way_s=0.1)
    stage.want()
    left, right = stage.sides
    while not left.has_session:
        stage.play(0.01)
    right.path, right.peer = PeerPath(start_ms=0, leads=False), None
    stage._forget(right)
    stage.want(1)
    stage.play(4.0)
    assert stage.paths == ("direct", "direct")
    assert [to for _, to in left.history] == ["server", "direct"]


@pytest.mark.parametrize("kinds", sorted(CLOSED))
def test_others_go_over_a_relay_within_three_seconds(kinds):
    stage = Stage(*kinds, offers=True)
    stage.want()
    stage.play(3.0)
    assert stage.paths == ("relay", "relay")


@pytest.mark.parametrize("kinds", sorted(CLOSED))
def test_without_a_relay_they_stay_at_the_server_and_say_why(kinds):
    stage = Stage(*kinds)
    stage.want()
    stage.play(30.0)
    assert stage.paths == ("server", "server")
    assert all("no relay" in side.path.why for side in stage.sides)
    assert 3 <= stage.meetings <= 12, "asked again, less and less often"


def test_stn_11_a_target_gets_five_small_packets_a_round():
    stage = Stage("symmetric", "symmetric", addresses=9)
    stage.want()
    stage.play(60.0)
    assert max(max(side.pings.values()) for side in stage.sides) <= 5
    assert stage.meetings >= 4


def test_stn_11_a_ping_from_a_spoofed_address_draws_five_small_packets_there():
    """Who only answers handshakes is ready for one from where a ping came, and says no more."""
    path, now_s = PeerPath(start_ms=0, leads=False), 1000.0
    path.meet([("198.51.100.7", 40_000)], (), now_s, hopeless=False)
    victim = ("203.0.113.200", 9000)
    told = path.heard(Probe(kind=ProbeKind.PING, counter=1), victim, now_s)
    while path.phase is not Phase.IDLE:
        now_s += 0.05
        told += path.tick(now_s)
    sent = [one.probe.kind for one in told if isinstance(one, Send) and one.address == victim]
    assert sent.count(ProbeKind.PING) == 5
    assert sent.count(ProbeKind.PONG) == 1


@pytest.mark.parametrize("leads", [True, False])
def test_who_answers_the_handshake_is_there_for_it_before_its_own_pings_are_answered(leads):
    """Those may be lost; the other begins with the first pong that it gets."""
    path, now_s = PeerPath(start_ms=0, leads=leads), 1000.0
    path.meet([("198.51.100.7", 40_000)], (), now_s, hopeless=False)
    told = path.heard(Probe(kind=ProbeKind.PING, counter=1), ("198.51.100.7", 40_000), now_s)
    peers = [one for one in told if isinstance(one, SetPeer)]
    assert [(one.carries, one.initiates) for one in peers] == ([] if leads else [(False, False)])


def test_both_ends_move_to_the_direct_way_in_one_moment():
    stage = Stage("cone", "restricted")
    stage.want()
    moved = [side.history for side in stage.sides]
    stage.play(5.0)
    (_, (left_s, _)), (_, (right_s, _)) = moved
    assert abs(left_s - right_s) <= 0.05


def test_a_direct_way_that_falls_silent_is_left_by_both_within_six_seconds_and_found_again():
    stage = Stage("cone", "restricted")
    stage.want()
    stage.play(10.0)
    stage.cut = lambda now_s: True
    stage.play(6.0)
    assert stage.paths == ("server", "server")
    assert not stage.loses()
    stage.cut = lambda now_s: False
    stage.play(11.0)
    assert stage.paths == ("direct", "direct")


def test_with_a_relay_a_silent_way_is_left_for_it_and_the_tunnel_lives_on():
    stage = Stage("cone", "restricted", offers=True)
    stage.want()
    stage.play(10.0)
    stage.cut = lambda now_s: True
    stage.play(6.0)
    assert stage.paths == ("relay", "relay")
    assert all(
        [to for _, to in side.history] == ["server", "direct", "relay"] for side in stage.sides
    )
    stage.cut = lambda now_s: False
    stage.play(60.0)
    assert stage.paths == ("direct", "direct")
    assert all(side.history[-1][1] == "direct" and len(side.history) == 4 for side in stage.sides)
    stage.play(15.0)
    assert not any(side.relay for side in stage.sides), "the relay is let go"


def test_a_relay_is_kept_to_where_the_other_sends_by_another_one():
    stage = Stage("symmetric", "symmetric", offers=True)
    stage.want()
    stage.play(5.0)
    left = stage.sides[0]
    other_relay = PeerStatus(
        public_key=bytes(32),
        endpoint=("203.0.113.8", 9110),
        allowed_ips=(),
        keepalive_seconds=5,
        last_handshake_s=100,
        rx_bytes=99,
    )
    told = left.path.device(other_relay, stage.now_s)
    assert (
        SetPeer(
            endpoint=("203.0.113.9", 9104),
            carries=True,
            is_fresh=False,
            is_relayed=True,
            initiates=True,
        )
        in told
    )


def test_a_handshake_that_takes_two_seconds_is_waited_for():
    """Over two satellites, say; each initiation from the beginning throws an answer away."""
    path, now_s = PeerPath(start_ms=0, leads=True), 1000.0
    path.meet([("198.51.100.7", 40_000)], (), now_s, hopeless=False)
    path.relay_bound(("203.0.113.9", 9104), now_s)
    begun = []
    while path.phase is Phase.SHAKING:
        now_s += 0.05
        told = path.tick(now_s)
        begun += [now_s - 1000.0 for one in told if isinstance(one, SetPeer) and one.is_fresh]
    assert begun == pytest.approx([1.0, 3.5], abs=0.2)


def test_a_late_word_of_the_other_that_it_went_back_ends_no_search_for_a_new_way():
    path, now_s = PeerPath(start_ms=0, leads=True), 1000.0
    path.meet([("198.51.100.7", 40_000)], (), now_s, hopeless=False)
    assert path.signalled(SignalCode.FALL_BACK, now_s) == []
    assert path.phase is Phase.SEARCHING


def test_who_does_not_lead_lets_what_it_answered_stand():
    path, now_s = PeerPath(start_ms=0, leads=False), 1000.0
    path.meet([("198.51.100.7", 40_000)], (), now_s, hopeless=False)
    told = path.relay_bound(("203.0.113.9", 9104), now_s)
    while path.phase is Phase.SHAKING:
        now_s += 0.05
        told += path.tick(now_s)
    wishes = [one for one in told if isinstance(one, SetPeer)]
    assert [(one.is_fresh, one.initiates) for one in wishes] == [(True, False)]


def test_more_addresses_than_before_interrupt_no_relay_and_are_tried_at_once():
    """Of a bridge for containers, say; others may open a direct way."""
    stage = Stage("symmetric", "symmetric", offers=True)
    stage.want()
    stage.play(5.0)
    assert stage.paths == ("relay", "relay")
    left = stage.sides[0]
    effects = left.path.network_changed(stage.now_s, is_lost=False)
    assert [type(one) for one in effects] == [Ask]
    assert left.path.path == "relay"
    stage._follow(left, effects)
    effects = left.path.network_changed(stage.now_s)
    assert Drop() in effects
    assert left.path.path == "server"


def test_a_relay_that_dies_is_left_for_the_server():
    stage = Stage("symmetric", "symmetric", offers=True)
    stage.want()
    stage.play(5.0)
    assert stage.paths == ("relay", "relay")
    stage.relay_is_alive = False
    stage.play(18.0)
    assert stage.paths == ("server", "server")


def test_a_path_that_nothing_goes_by_is_closed_after_five_minutes_by_both():
    stage = Stage("open", "open")
    stage.want()
    stage.play(299.0)
    assert stage.paths == ("direct", "direct")
    stage.play(10.0)
    assert phases(stage) == (Phase.IDLE, Phase.IDLE)
    sent = [side.pings.total() for side in stage.sides]
    stage.play(300.0)
    assert [side.pings.total() for side in stage.sides] == sent
    assert all(side.path.is_over(stage.now_s) for side in stage.sides)


def test_a_path_by_which_the_other_sends_alone_stays_open():
    stage = Stage("open", "open")
    stage.want()
    stage.play(5.0)
    for _ in range(80):
        stage.want()
        stage.sides[1].received += 5000
        stage.play(5.0)
    assert all([to for _, to in side.history] == ["server", "direct"] for side in stage.sides)


def test_one_that_forgot_everything_is_found_again():
    stage = Stage("open", "open")
    stage.want()
    stage.play(5.0)
    right = stage.sides[1]
    right.path, right.peer, right.history = PeerPath(start_ms=0, leads=False), None, []
    stage.play(7.0)
    assert not stage.loses()
    stage.play(10.0)
    assert stage.paths == ("direct", "direct")


def test_a_replayed_ping_is_not_answered():
    stage = Stage("open", "open")
    stage.want()
    stage.play(5.0)
    left, right = stage.sides
    source = ("192.0.2.1", 51820)
    ping = Probe(kind=ProbeKind.PING, counter=10**9)
    assert right.path.heard(ping, source, stage.now_s)
    assert right.path.heard(ping, ("203.0.113.200", 9), stage.now_s) == []
    assert left.path.path == "direct"


@examples(60)
@given(
    kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)),
    offers=st.booleans(),
    weather=st.sampled_from([(0.02, 0.0, 0.0), (0.1, 0.02, 0.03), (0.25, 0.02, 0.05)]),
    steps=st.lists(
        st.tuples(
            st.sampled_from(
                ["want0", "want1", "cut", "mend", "relay dies", "relay lives", "moved"]
            ),
            st.floats(0.1, 20),
        ),
        max_size=8,
    ),
)
def test_whatever_happens_the_two_agree_in_the_end(kinds, offers, weather, steps):
    way_s, lost, jitter_s = weather
    stage = Stage(*kinds, offers=offers, way_s=way_s, lost=lost, jitter_s=jitter_s)
    for what, for_s in steps:
        match what:
            case "want0" | "want1":
                stage.want(int(what[-1]))
            case "cut" | "mend":
                stage.cut = lambda now_s, is_cut=what == "cut": is_cut
            case "relay dies" | "relay lives":
                stage.relay_is_alive = what == "relay lives"
            case "moved":
                side = stage.sides[0]
                side.router.public = "192.0.2.77"
                side.router.ports.clear()
                side.router.opened.clear()
                stage._follow(side, side.path.network_changed(stage.now_s))
        stage.play(for_s)
    stage.cut, stage.relay_is_alive = (lambda now_s: False), True
    for number in (0, 1):
        stage.want(number)
    stage.play(150.0)
    expected = "direct" if kinds not in CLOSED else "relay" if offers else "server"
    assert stage.paths == (expected, expected)
    assert not stage.loses()
