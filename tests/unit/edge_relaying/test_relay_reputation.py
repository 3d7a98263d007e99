"""A relay's reputation: in its bounds, better for what is better, and moved by nobody alone."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from services.edge.relaying.finding import SUSPENDED_BELOW
from services.edge.relaying.reputation import (
    FORGOTTEN_S,
    KEPT_REPORTERS,
    NEUTRAL,
    Opinions,
    Quality,
    Session,
    joined,
    quality_of,
    score,
)

GOOD = Session(
    sent_count=100,
    answered_count=100,
    silent_s=0.0,
    duration_s=500.0,
    latency_ms=30.0,
    jitter_ms=1.0,
    rating=1.0,
)
DEAD = Session(
    sent_count=100,
    answered_count=0,
    silent_s=500.0,
    duration_s=500.0,
    latency_ms=0.0,
    jitter_ms=0.0,
    rating=0.0,
)
BEST = Quality(uptime=1.0, delivery=1.0, evenness=1.0, rating=1.0)
WORST = Quality(uptime=0.0, delivery=0.0, evenness=0.0, rating=0.0)

parts = st.floats(min_value=0.0, max_value=1.0)
qualities = st.builds(
    Quality, uptime=parts, delivery=parts, evenness=parts, rating=st.none() | parts
)
numbers = st.floats(min_value=-1e6, max_value=1e6)
sessions = st.builds(
    Session,
    sent_count=st.integers(-5, 500),
    answered_count=st.integers(-5, 500),
    silent_s=numbers,
    duration_s=numbers,
    latency_ms=numbers,
    jitter_ms=numbers,
    rating=st.none() | numbers,
)


def told(opinions: Opinions, customer: str, number: int, session: Session, *, at_s: float = 0.0):
    opinions.add(
        relay_id="relay",
        customer=customer,
        reporter=bytes([number]) * 32,
        session_id=bytes([number]) * 16,
        session=session,
        now_s=at_s,
    )


def reputation(opinions: Opinions, now_s: float = 0.0) -> float:
    return score(list(opinions.voices(now_s).get("relay", {}).values()))


@given(sessions)
def test_every_part_stays_within_its_bounds_whatever_is_told(session: Session) -> None:
    quality = quality_of(session)
    named = (quality.uptime, quality.delivery, quality.evenness)
    assert all(0.0 <= part <= 1.0 for part in named)


@given(st.lists(qualities, max_size=12))
def test_a_score_stays_within_its_bounds(voices: list[Quality]) -> None:
    assert 0.0 <= score(voices) <= 1.0


@given(
    st.lists(qualities, min_size=1, max_size=8),
    st.integers(0, 7),
    st.sampled_from(["uptime", "delivery", "evenness", "rating"]),
    parts,
)
def test_what_gets_better_lowers_no_score(
    voices: list[Quality], index: int, part: str, better: float
) -> None:
    index %= len(voices)
    before = getattr(voices[index], part)
    if before is None:
        return
    changed = list(voices)
    changed[index] = dataclasses.replace(voices[index], **{part: max(before, better)})
    assert score(changed) >= score(voices) - 1e-12


@given(st.lists(qualities, max_size=9), qualities)
def test_rly_10_one_voice_moves_a_score_no_further_than_its_neighbours(
    others: list[Quality], loud: Quality
) -> None:
    """Whatever one voice says lies between the worst and the best that the others leave open."""
    lowest, highest = score([*others, WORST]), score([*others, BEST])
    if loud.rating is not None:
        assert lowest - 1e-12 <= score([*others, loud]) <= highest + 1e-12
    assert score([loud]) == score([])


def test_rly_10_one_loud_reporter_moves_nothing() -> None:
    opinions = Opinions()
    for number in range(9):
        told(opinions, "acme", number, GOOD)
    for number in range(10, 13):
        told(opinions, f"customer {number}", number, GOOD)
    before = reputation(opinions)
    for _ in range(1000):
        told(opinions, "acme", 99, DEAD)
    assert reputation(opinions) == before


def test_rly_10_one_customer_suspends_nobody_with_all_of_its_endpoints() -> None:
    opinions = Opinions()
    for number in range(200):
        told(opinions, "acme", number, DEAD)
    assert reputation(opinions) == score([])
    assert abs(score([]) - NEUTRAL) < 1e-9
    told(opinions, "beta", 201, GOOD)
    assert reputation(opinions) > SUSPENDED_BELOW


def test_three_customers_that_agree_suspend_a_relay_and_it_recovers() -> None:
    opinions = Opinions()
    for number, customer in enumerate(("acme", "beta")):
        told(opinions, customer, number, DEAD)
    assert reputation(opinions) > SUSPENDED_BELOW
    told(opinions, "gamma", 2, DEAD)
    assert reputation(opinions) < SUSPENDED_BELOW
    for number, customer in enumerate(("acme", "beta", "gamma")):
        told(opinions, customer, number, GOOD)
    assert reputation(opinions) > 0.9


def test_rly_10_a_session_counts_once() -> None:
    opinions = Opinions()
    for number in range(3):
        told(opinions, f"customer {number}", number, GOOD)
    before = reputation(opinions)
    bad = dataclasses.replace(GOOD, answered_count=50)
    for _ in range(5):
        told(opinions, "customer 0", 0, bad)
    told(opinions, "customer 0", 0, GOOD)
    assert reputation(opinions) == before


def test_the_newest_reporters_of_a_customer_are_heard() -> None:
    opinions = Opinions()
    for number in range(KEPT_REPORTERS + 40):
        opinions.add(
            relay_id="relay",
            customer="acme",
            reporter=number.to_bytes(32, "big"),
            session_id=bytes(16),
            session=DEAD if number < 40 else GOOD,
            now_s=0.0,
        )
    assert opinions.voices(0.0)["relay"]["acme"].uptime == 1.0


def test_what_was_told_long_ago_is_forgotten() -> None:
    opinions = Opinions()
    for number in range(3):
        told(opinions, f"customer {number}", number, DEAD)
    assert reputation(opinions, FORGOTTEN_S - 1) < SUSPENDED_BELOW
    assert opinions.voices(FORGOTTEN_S + 1) == {}


def test_a_customer_that_several_servers_tell_of_has_one_voice() -> None:
    voices = joined([{"acme": WORST}, {"acme": WORST}, {"acme": WORST, "beta": BEST}])
    assert len(voices) == 2
    assert score(voices) == score([WORST, BEST])


def test_lost_heartbeats_and_an_uneven_latency_cost_something() -> None:
    lossy = dataclasses.replace(GOOD, answered_count=90)
    uneven = dataclasses.replace(GOOD, jitter_ms=20.0)
    assert abs(quality_of(lossy).delivery - 0.5) < 1e-9
    assert quality_of(uneven).evenness < 0.5
    assert quality_of(GOOD).evenness > 0.9
    for worse in (lossy, uneven):
        assert score([quality_of(worse)] * 5) < score([quality_of(GOOD)] * 5)
