"""A clock is held against the seconds since the start: a jump is remembered for an hour."""

from __future__ import annotations

import pytest

from services.authority.rootkeys.steadiness import JUMP_MS, STEADY_S, Steadiness

NOON_MS = 1_800_000_000_000


@pytest.mark.parametrize("by_ms", [JUMP_MS + 1, -JUMP_MS - 1, 86_400_000])
def test_a_jump_either_way_is_told_for_an_hour(by_ms) -> None:
    clock = Steadiness()
    clock.look(now_ms=NOON_MS, monotonic_s=5.0)
    clock.look(now_ms=NOON_MS + 1000 + by_ms, monotonic_s=6.0)
    assert f"jumped by {by_ms // 1000} s" in clock.trouble(monotonic_s=6.0)
    assert "in 60 min" in clock.trouble(monotonic_s=6.0)
    assert "in 1 min" in clock.trouble(monotonic_s=6.0 + STEADY_S - 1)
    assert clock.trouble(monotonic_s=6.0 + STEADY_S) == ""


def test_a_clock_that_is_slewed_or_looked_at_seldom_has_not_jumped() -> None:
    clock = Steadiness()
    for step in range(100):
        late_s = 3600.0 * step
        clock.look(now_ms=NOON_MS + step * (3_600_000 + JUMP_MS // 2), monotonic_s=late_s)
        assert clock.trouble(monotonic_s=late_s) == ""


def test_each_further_jump_begins_the_hour_anew() -> None:
    clock = Steadiness()
    clock.look(now_ms=NOON_MS, monotonic_s=0.0)
    clock.look(now_ms=NOON_MS + 10 * JUMP_MS, monotonic_s=1.0)
    clock.look(now_ms=NOON_MS, monotonic_s=STEADY_S)
    assert clock.trouble(monotonic_s=STEADY_S + 2)
