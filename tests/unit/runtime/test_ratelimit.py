"""So many calls a minute for each caller, whatever the others do."""

from __future__ import annotations

from services.runtime.ratelimit import RateLimiter


def test_a_minutes_worth_at_once_then_no_more():
    limiter = RateLimiter(per_minute=60)
    spent = [limiter.spend("a", now_s=1000.0) for _ in range(61)]
    assert all(one.allowed for one in spent[:60])
    assert [one.remaining for one in spent[:3]] == [59, 58, 57]
    assert not spent[60].allowed
    assert (spent[60].limit, spent[60].remaining, spent[60].reset_s) == (60, 0, 1)
    assert limiter.refused_count == 1


def test_tokens_come_back_one_a_second_and_no_more_than_the_limit():
    limiter = RateLimiter(per_minute=60)
    for _ in range(60):
        limiter.spend("a", now_s=0.0)
    assert not limiter.spend("a", now_s=0.5).allowed
    assert limiter.spend("a", now_s=1.0).allowed
    assert not limiter.spend("a", now_s=1.0).allowed
    assert limiter.spend("a", now_s=86_400.0).remaining == 59


def test_waiting_for_reset_is_enough():
    limiter = RateLimiter(per_minute=7)
    for _ in range(7):
        limiter.spend("a", now_s=0.0)
    refused = limiter.spend("a", now_s=0.0)
    assert not refused.allowed
    assert limiter.spend("a", now_s=float(refused.reset_s)).allowed


def test_callers_do_not_pay_for_each_other():
    limiter = RateLimiter(per_minute=1)
    assert limiter.spend("a", now_s=0.0).allowed
    assert limiter.spend("b", now_s=0.0).allowed
    assert not limiter.spend("a", now_s=0.0).allowed


def test_a_clock_that_steps_back_gives_nothing_and_takes_nothing():
    limiter = RateLimiter(per_minute=2)
    limiter.spend("a", now_s=100.0)
    assert limiter.spend("a", now_s=10.0).allowed
    assert not limiter.spend("a", now_s=10.0).allowed


def test_a_flood_of_callers_is_bounded_and_forgets_the_longest_unused():
    limiter = RateLimiter(per_minute=1, max_callers=3)
    limiter.spend("kept", now_s=0.0)
    for number in range(100):
        limiter.spend(f"flood {number}", now_s=0.0)
        assert not limiter.spend("kept", now_s=0.0).allowed
    assert limiter.spend("flood 0", now_s=0.0).allowed
