"""Where an endpoint goes: to the best at first, away from the silent and the slow, not often."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seipd.agent.choosing import Chooser, score

MINUTE_MS = 60_000


def chooser(now_ms: int = 0, **latencies_ms: float) -> Chooser:
    made = Chooser()
    made.know(dict.fromkeys(latencies_ms, 0.0))
    for name, latency_ms in latencies_ms.items():
        made.measured(name, latency_ms, now_ms=now_ms)
    return made


def test_the_score_weighs_load_like_distance() -> None:
    assert score(20.0, 0.0) == 20.0
    assert score(20.0, 5.0) == 70.0
    assert score(20.0, 1e9) == score(20.0, 10.0) == 120.0


def test_the_nearest_is_best_unless_it_is_busy() -> None:
    made = chooser(near=10.0, far=60.0)
    assert made.best(now_ms=0) == "near"
    made.know({"near": 9.0, "far": 0.0})
    assert made.best(now_ms=0) == "far"


def test_who_did_not_answer_is_not_chosen() -> None:
    made = chooser(near=10.0, far=60.0)
    made.measured("near", None, now_ms=1)
    assert made.best(now_ms=1) == "far"
    assert made.best(now_ms=MINUTE_MS) is None


def test_the_average_moves_by_three_tenths() -> None:
    made = chooser(a=100.0)
    made.measured("a", 200.0, now_ms=1)
    assert made.latency_ms("a") == pytest.approx(130.0)


@pytest.mark.parametrize(
    ("own_ms", "other_ms", "goes"),
    [(201.0, 140.0, True), (200.0, 10.0, False), (300.0, 211.0, False), (300.0, 210.0, True)],
)
def test_it_moves_from_a_slow_server_to_one_that_is_a_third_better(own_ms, other_ms, goes) -> None:
    made = chooser(own=own_ms, other=other_ms)
    move = made.decide("own", silent_ms=0, now_ms=0)
    assert (move is not None and move.server_id == "other") is goes


def test_it_moves_once_a_minute_at_most_unless_its_server_is_silent() -> None:
    made = chooser(own=400.0, other=20.0)
    made.moved(now_ms=0)
    assert made.decide("own", silent_ms=0, now_ms=MINUTE_MS - 1) is None
    silent = made.decide("own", silent_ms=10_000, now_ms=MINUTE_MS - 1)
    assert silent is not None
    assert silent.why == "own was silent for 10 s"
    for name, ms in (("own", 400.0), ("other", 20.0)):
        made.measured(name, ms, now_ms=MINUTE_MS)
    slow = made.decide("own", silent_ms=0, now_ms=MINUTE_MS)
    assert slow is not None
    assert slow.why == "own takes 400 ms, other 20 ms"


def test_a_silent_server_is_left_only_for_one_that_answers() -> None:
    made = chooser(own=10.0)
    assert made.decide("own", silent_ms=60_000, now_ms=0) is None
    assert chooser(own=10.0, other=10.0).decide("own", silent_ms=9_999, now_ms=0) is None


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(1, 1000)), min_size=1, max_size=200),
    st.integers(100, 5000),
)
def test_it_never_moves_twice_within_a_minute_for_latency(measured, step_ms) -> None:
    made, at, now_ms, last_ms = Chooser(), "a", 0, None
    made.know({"a": 0.0, "b": 0.0})
    for name, latency_ms in measured:
        now_ms += step_ms
        made.measured(name, latency_ms, now_ms=now_ms)
        move = made.decide(at, silent_ms=0, now_ms=now_ms)
        if move is None:
            continue
        assert move.server_id != at
        assert last_ms is None or now_ms - last_ms >= MINUTE_MS
        at, last_ms = move.server_id, now_ms
        made.moved(now_ms=now_ms)


def moves_of_one_whose_servers_all_fall_silent(minutes: int) -> list[int]:
    """Return the seconds at which it moves, ten seconds after each move at the earliest."""
    made, at, since_s, moves = chooser(one=10.0, two=20.0), "one", 0, []
    for now_s in range(minutes * 60):
        now_ms = now_s * 1000
        for name, latency_ms in (("one", 10.0), ("two", 20.0)):
            made.measured(name, latency_ms, now_ms=now_ms)
        move = made.decide(at, silent_ms=now_ms - since_s * 1000, now_ms=now_ms)
        if move is not None:
            made.moved(now_ms=now_ms)
            at, since_s = move.server_id, now_s
            moves.append(now_s)
    return moves


def test_one_that_moves_over_and_over_does_so_once_a_minute() -> None:
    """Two machines with the same keys take the tunnel from each other, wherever they go."""
    moves = moves_of_one_whose_servers_all_fall_silent(30)
    assert moves[:5] == [10, 20, 30, 40, 50]
    assert all(later - one >= 60 for one, later in itertools.pairwise(moves[4:]))
    assert len(moves) <= 5 + 30


def test_who_hears_nothing_anywhere_moves_less_and_less() -> None:
    """A hotel that lets TCP out and no UDP: each server answers, and none brings a tunnel."""
    made, at, since_ms, moves = chooser(one=10.0, two=20.0), "one", 0, []
    for now_ms in range(0, 3_600_000, 1000):
        for name, latency_ms in (("one", 10.0), ("two", 20.0)):
            made.measured(name, latency_ms, now_ms=now_ms)
        silent_ms = now_ms - since_ms
        move = made.decide(at, silent_ms=silent_ms, now_ms=now_ms)
        if move is not None:
            made.moved(now_ms=now_ms, silent_ms=silent_ms)
            # As one sees what came only a moment after a move.
            at, since_ms = move.server_id, now_ms + 1000
            moves.append(now_ms // 1000)
    pauses = [later - one for one, later in itertools.pairwise(moves)]
    assert moves[0] == 10
    assert pauses[:4] == [11, 60, 120, 240]
    assert set(pauses[4:]) == {480}


def test_another_network_is_tried_at_once() -> None:
    made = chooser(one=10.0, two=20.0)
    made.moved(now_ms=0)
    for now_ms in (11_000, 22_000, 82_000):
        made.moved(now_ms=now_ms, silent_ms=11_000 if now_ms < 80_000 else 60_000)
    for name in ("one", "two"):
        made.measured(name, 10.0, now_ms=100_000)
    assert made.decide("one", silent_ms=18_000, now_ms=100_000) is None
    made.network_changed()
    assert made.decide("one", silent_ms=18_000, now_ms=100_000) is not None


def test_servers_that_do_not_take_it_are_no_sign_of_its_network() -> None:
    made = chooser(one=10.0, two=20.0, three=30.0, four=40.0)
    now_ms = 10_000
    for expected in ("two", "three", "four"):
        for name, latency_ms in (("two", 20.0), ("three", 30.0), ("four", 40.0)):
            made.measured(name, latency_ms, now_ms=now_ms)
        move = made.decide("one", silent_ms=now_ms, now_ms=now_ms)
        assert move is not None
        assert move.server_id == expected
        made.moved(now_ms=now_ms, silent_ms=now_ms)
        made.failed(expected, now_ms=now_ms)
        now_ms += 1000
