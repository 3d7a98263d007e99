"""Paths over long ways on which much is lost: what works is kept, what doesn't is left."""

from __future__ import annotations

import pytest

from seipd.agent.paths.effects import Send, SetPeer
from services.edge.wireguard.model import PeerStatus
from tests.fakes.twopaths import Stage

TEN_MINUTES_S = 600.0
ROUNDS = range(2)
WAYS = [
    pytest.param(0.04, 0.01, 0.01, id="40 ms"),
    pytest.param(0.08, 0.03, 0.04, id="80 ms"),
    pytest.param(0.15, 0.05, 0.05, id="150 ms"),
    pytest.param(0.25, 0.05, 0.10, id="250 ms"),
]


def talking(
    seed: int, way_s: float, lost: float, jitter_s: float, *, kinds=("cone", "restricted")
) -> Stage:
    """Return two that talk, with a relay at hand."""
    stage = Stage(
        *kinds,
        offers=True,
        way_s=way_s,
        lost=lost,
        jitter_s=jitter_s,
        left_leads=seed % 2 == 0,
        seed=seed,
    )
    stage.talk(1.0)
    return stage


def moves(stage: Stage) -> list[list[str]]:
    return [[to for _, to in side.history] for side in stage.sides]


@pytest.mark.parametrize(("way_s", "lost", "jitter_s"), WAYS)
def test_a_direct_way_on_which_some_packets_get_lost_is_kept(way_s, lost, jitter_s):
    for seed in ROUNDS:
        stage = talking(seed, way_s, lost, jitter_s)
        stage.play(TEN_MINUTES_S)
        assert stage.paths == ("direct", "direct")
        assert all(one[0] == "server" and one[-1] == "direct" for one in moves(stage))
        assert all(len(one) <= 3 for one in moves(stage)), moves(stage)


def test_even_where_one_in_five_is_lost_the_direct_way_is_hardly_ever_left():
    found = 0
    for seed in ROUNDS:
        stage = talking(seed, 0.15, 0.2, 0.05)
        stage.play(TEN_MINUTES_S)
        assert stage.paths == ("direct", "direct")
        found += sum(len(one) - 2 for one in moves(stage))
    assert found <= 10, "within twenty minutes, both sides together"


def test_a_relayed_path_that_only_keepalives_go_by_is_kept_where_some_get_lost():
    """One in twenty, from one end to the relay and from there to the other, each way."""
    for seed in ROUNDS:
        stage = Stage("symmetric", "symmetric", offers=True, way_s=0.15, lost=0.05, seed=seed)
        stage.want(0)
        stage.want(1)
        stage.play(30.0)
        assert stage.paths == ("relay", "relay")
        known = moves(stage)
        for _ in range(10):
            stage.play(60.0)
            stage.want(0)
            stage.want(1)
        assert moves(stage) == known


def test_a_direct_way_lives_on_while_there_is_no_server():
    stage = Stage("cone", "restricted")
    stage.talk(1.0)
    stage.play(5.0)
    assert stage.paths == ("direct", "direct")
    stage.server_is_alive = False
    stage.play(2 * TEN_MINUTES_S)
    assert moves(stage) == [["server", "direct"]] * 2
    assert all(len(stage.other(side).heard) >= side.said - 2 for side in stage.sides)


def test_a_way_that_is_cut_is_left_for_the_relay_within_five_seconds():
    for seed in ROUNDS:
        stage = talking(seed, 0.15, 0.0, 0.0)
        stage.play(10.0)
        assert stage.paths == ("direct", "direct")
        stage.cut = lambda now_s: True
        stage.play(5.0)
        assert stage.paths == ("relay", "relay")


@pytest.mark.parametrize(("way6_s", "is_by_ipv6"), [(0.08, True), (0.081, True), (0.1, False)])
def test_ipv6_is_taken_also_where_ipv4_answered_first(way6_s, is_by_ipv6):
    stage = Stage("cone", "restricted", way_s=0.08, way6_s=way6_s)
    stage.talk(1.0)
    stage.play(3.0)
    assert stage.paths == ("direct", "direct")
    assert [":" in side.endpoint[0] for side in stage.sides] == [is_by_ipv6] * 2


@pytest.mark.parametrize("leads", [True, False])
def test_of_two_ways_that_work_both_ends_take_that_of_the_one_who_leads(leads):
    """Else each may hold another, and WireGuard, which sends to where it heard the other from last,
    is led astray each second.
    """
    stage = Stage("cone", "restricted", way_s=0.05, way6_s=0.06, left_leads=leads)
    stage.talk(0.2)
    stage.play(45.0)
    left, right = stage.sides
    own = left.path.endpoint
    assert right.address6 != own
    heard = PeerStatus(
        public_key=bytes(32),
        endpoint=right.address6,
        allowed_ips=(),
        keepalive_seconds=20,
        last_handshake_s=100,
        rx_bytes=99,
    )
    told = left.path.device(heard, stage.now_s)
    pointed = [one.endpoint for one in told if isinstance(one, SetPeer)]
    assert pointed == ([own] if leads else [])
    assert left.path.endpoint == (own if leads else right.address6)
    pinged = [one.address for one in told if isinstance(one, Send)]
    assert leads or right.address6 in pinged


def test_a_direct_way_that_was_cut_for_some_seconds_is_soon_taken_again():
    """Each meeting counts once, though both ends ask for it: pauses grow with each."""
    for seed in range(4):
        stage = talking(seed, 0.08, 0.02, 0.02)
        stage.play(90.0)
        stage.cut = lambda now_s: True
        stage.play(10.0)
        assert stage.paths == ("relay", "relay")
        stage.cut = lambda now_s: False
        stage.play(4.0)
        assert stage.paths == ("direct", "direct")


def test_a_way_that_answers_pings_and_takes_no_packet_of_the_tunnel_is_left():
    """As with a firewall that found out what it is, or where one end lost its keys."""
    stage = Stage("cone", "restricted")
    stage.talk(1.0)
    stage.play(10.0)
    assert stage.paths == ("direct", "direct")
    stage.loses_wireguard = True
    stage.play(100.0)
    assert stage.paths == ("server", "server")
    stage.loses_wireguard = False
    stage.play(90.0)
    assert stage.paths == ("direct", "direct")
