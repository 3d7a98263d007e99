"""A server whose clock is off learns it from the others' greetings, and from nobody alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mesh.gossip.clocks import (
    HELD_S,
    MAX_OFF_MS,
    MAX_SKEW_MS,
    PeerClocks,
    clock_trouble,
)
from services.mesh.gossip.links import REKEY_S
from services.mesh.gossip.ports import Moment
from tests.unit.mesh_gossip.gossip_kit import START_MS, World


def at(s: float, *, off_ms: int = 0) -> Moment:
    return Moment(s=s, ms=START_MS + round(s * 1000) + off_ms)


def heard(*offsets_ms: int) -> PeerClocks:
    """Return what one hears at second 100 from peers whose clocks differ so from the true time."""
    clocks = PeerClocks()
    for number, off_ms in enumerate(offsets_ms):
        clocks.answered(f"peer {number}", START_MS + 100_000 + off_ms, at(100))
    return clocks


@pytest.mark.parametrize(
    ("peers", "ahead_ms"),
    [
        ((), None),
        ((-60_000,), None),
        ((0, 0), 0),
        ((-60_000, 0), 0),
        ((-60_000, 60_000), 0),
        ((-60_000, -20_000), 20_000),
        ((60_000, 20_000), -20_000),
        ((-60_000, 0, 0), 0),
        ((-60_000, -61_000, 0), 60_000),
        ((-60_000, -61_000, 0, 0), 0),
    ],
)
def test_the_median_of_two_peers_or_more_says_how_far_this_clock_is_ahead(peers, ahead_ms) -> None:
    assert heard(*peers).ahead_ms(at(100)) == ahead_ms


@given(st.lists(st.integers(-10_000, 10_000), min_size=2, max_size=9), st.data())
def test_fewer_than_half_that_lie_can_stop_nobody(good, data) -> None:
    count = data.draw(st.integers(0, (len(good) - 1) // 2))
    lies = data.draw(st.lists(st.integers(-(10**9), 10**9), min_size=count, max_size=count))
    assert not clock_trouble(heard(*good, *lies).ahead_ms(at(100)))


@given(st.lists(st.integers(-1000, 1000), min_size=3, max_size=9), st.integers(12_000, 10**9))
def test_a_clock_that_is_off_is_found_out_whoever_of_a_minority_lies_for_it(good, off_ms) -> None:
    lies = [off_ms] * ((len(good) - 1) // 2)
    clocks = heard(*good, *lies)
    assert "ahead of the median" in clock_trouble(clocks.ahead_ms(at(100, off_ms=off_ms)))
    clocks = heard(*good, *(-one for one in lies))
    assert "behind the median" in clock_trouble(clocks.ahead_ms(at(100, off_ms=-off_ms)))


def test_setting_the_clock_shows_at_once_without_a_word_from_anybody() -> None:
    clocks = heard(0, 0, 0)
    assert clocks.ahead_ms(at(160)) == 0
    assert clocks.ahead_ms(at(160, off_ms=14_000)) == 14_000
    assert clocks.ahead_ms(at(161, off_ms=-14_000)) == -14_000
    assert clocks.ahead_ms(at(162)) == 0


def test_ten_seconds_are_borne() -> None:
    assert not clock_trouble(MAX_OFF_MS)
    assert not clock_trouble(-MAX_OFF_MS)
    assert "10 s ahead" in clock_trouble(MAX_OFF_MS + 1)
    assert "timedatectl" in clock_trouble(-MAX_OFF_MS - 1)


def test_what_was_told_long_ago_and_by_who_left_counts_no_more() -> None:
    clocks = heard(-60_000, -60_000)
    assert clocks.ahead_ms(at(99 + HELD_S)) == 60_000
    assert clocks.ahead_ms(at(100 + HELD_S)) is None
    clocks = heard(-60_000, -60_000, 0)
    clocks.forget("peer 2")
    assert clocks.ahead_ms(at(100)) == 60_000
    clocks.forget("peer 1")
    assert clocks.ahead_ms(at(100)) is None


def test_a_greeting_that_is_played_again_later_does_not_set_a_peer_back() -> None:
    clocks = PeerClocks()
    for peer in ("ann", "bob"):
        clocks.greeted(peer, START_MS + 100_000, at(100))
    for peer in ("ann", "bob"):
        clocks.greeted(peer, START_MS + 100_000, at(400))
    assert clocks.ahead_ms(at(400)) == 0


@pytest.mark.parametrize("off_ms", [-20_000, 20_000, 200_000, -200_000, 400_000, -400_000])
def test_one_of_three_with_a_wrong_clock_finds_out_and_the_others_do_not_care(off_ms) -> None:
    world = World("ann", "bob", "eve")
    world.introduce()
    world["eve"].clock_skew_ms = off_ms
    world.run(20)
    ahead = {
        name: world[name].node.sessions.clocks.ahead_ms(world[name].now())
        for name in ("ann", "bob", "eve")
    }
    assert abs(ahead["eve"] - off_ms) < 1000
    assert not clock_trouble(ahead["ann"])
    assert not clock_trouble(ahead["bob"])
    world["eve"].clock_skew_ms = 0
    assert not clock_trouble(world["eve"].node.sessions.clocks.ahead_ms(world["eve"].now()))


def test_cli_18_a_clock_of_1970_finds_out_and_nothing_is_stamped_before_it_is_set() -> None:
    world = World("ann", "bob", "eve")
    world.introduce()
    eve = world["eve"]
    eve.clock_skew_ms = -START_MS
    world.run(20)
    assert "behind the median" in clock_trouble(eve.node.sessions.clocks.ahead_ms(eve.now()))
    for other in ("ann", "bob"):
        assert not clock_trouble(world[other].node.sessions.clocks.ahead_ms(world[other].now()))
    eve.clock_skew_ms = 0
    assert not clock_trouble(eve.node.sessions.clocks.ahead_ms(eve.now()))


def lines(one) -> list[str]:
    return one.node.sessions.clocks.apart_lines(one.now())


@pytest.mark.parametrize("off_ms", [120_000, -120_000, 600_000, -600_000, 86_400_000, -86_400_000])
def test_of_two_servers_both_say_that_their_clocks_are_apart_until_one_is_set(off_ms) -> None:
    world = World("ann", "eve")
    world.introduce()
    ann, eve = world["ann"], world["eve"]
    eve.clock_skew_ms = off_ms
    world.run(20)
    talk = abs(off_ms) <= MAX_SKEW_MS
    ahead, behind = (eve, ann) if off_ms > 0 else (ann, eve)
    (one,), (other,) = lines(ahead), lines(behind)
    assert "s ahead of that of server-" in one
    assert "s behind that of server-" in other
    for line in (one, other):
        assert ("they do not talk" in line) is not talk
        assert "timedatectl" in line
    eve.clock_skew_ms = 0
    assert lines(eve) == []
    # Who was talked to all the while tells the time again with the next session.
    world.run(REKEY_S + 10 if talk else 20)
    for here, there in ((ann, eve), (eve, ann)):
        assert lines(here) == []
        assert here.node.sessions.current(there.node.server_id) is not None


def test_where_others_can_tell_whose_clock_is_wrong_nobody_guesses() -> None:
    assert heard(-60_000, 0).apart_lines(at(100)) == []
    assert heard(-MAX_OFF_MS).apart_lines(at(100)) == []
    assert len(heard(-MAX_OFF_MS - 1).apart_lines(at(100))) == 1
    assert heard(-60_000).apart_lines(at(100 + HELD_S)) == []
