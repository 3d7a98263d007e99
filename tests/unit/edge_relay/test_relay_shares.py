"""Fair shares of what a relay can carry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.edge.relay.fairness import Fairness
from services.edge.relay.shares import LEAST_KBITS, Want, fair_level, fair_rates
from tests.fakes.relay_book import Played, book_of, key_of, ticket_for

ACME, OTHER = bytes([1]) * 16, bytes([2]) * 16
TICKET = 20_000


def want(number: int, used: float, customer: bytes = ACME, rate: int = TICKET) -> Want:
    return Want(
        number=number,
        customer=customer,
        used_kbits=used,
        rate_kbits=rate,
        ticket_kbits=TICKET,
    )


def test_while_there_is_enough_everybody_has_what_the_ticket_says():
    assert fair_rates(100_000, [want(0, 20_000), want(1, 10)]) == {0: TICKET, 1: TICKET}


def test_rly_05_a_customer_with_many_sessions_does_not_crowd_out_one_with_one():
    wants = [want(at, 20_000) for at in range(99)] + [want(99, 20_000, OTHER)]
    rates = fair_rates(40_000, wants)
    assert rates[99] == TICKET
    assert sum(rates[at] for at in range(99)) <= 20_000
    assert len({rates[at] for at in range(99)}) == 1


def test_what_one_leaves_the_others_may_use():
    rates = fair_rates(30_000, [want(0, 100), want(1, 19_900, OTHER), want(2, 19_900, OTHER)])
    assert rates[1] == rates[2]
    assert 14_000 < rates[1] < 15_000
    assert rates[0] >= 100


def test_who_was_held_back_gets_more_when_others_leave():
    assert want(0, 5_000, rate=5_000).kbits == TICKET
    assert fair_rates(30_000, [want(0, 5_000, rate=5_000)]) == {0: TICKET}


@given(
    st.integers(1, 10**7),
    st.lists(
        st.tuples(st.floats(0, 10**5), st.sampled_from([ACME, OTHER]), st.integers(1, 10**5)),
        max_size=30,
    ),
)
def test_nobody_gets_more_than_the_ticket_nor_nothing(capacity, told):
    wants = [want(at, used, customer, rate) for at, (used, customer, rate) in enumerate(told)]
    rates = fair_rates(capacity, wants)
    assert rates.keys() == set(range(len(wants)))
    assert all(min(LEAST_KBITS, TICKET) <= rate <= TICKET for rate in rates.values())


@given(st.floats(1, 10**6), st.lists(st.floats(0, 10**6), max_size=30))
def test_a_level_shares_out_what_there_is(capacity, wants):
    level = fair_level(capacity, wants)
    given_out = sum(min(one, level) for one in wants)
    assert given_out <= capacity * 1.0001
    if sum(wants) > capacity:
        assert given_out == pytest.approx(capacity)


def test_rates_follow_from_two_looks_at_the_book():
    played = Played(book_of())
    a = played.bind(ticket_for(key_of(1), key_of(2)), key_of(1), ("198.18.1.1", 5000))
    b = played.bind(
        ticket_for(key_of(3), key_of(4), customer=OTHER), key_of(3), ("198.18.1.1", 5001)
    )
    fairness = Fairness(10_000)

    def look(now_s: float) -> dict[int, int]:
        return fairness.rates(played.book, rate_kbits=lambda number: 0, now_s=now_s)

    look(0.0)
    played.book.carried(a.direction, 25_000_000, 10.0)  # 20 Mbit/s
    assert look(10.0) == {0: 9936, 1: 9936}
    played.book.carried(a.direction, 25_000_000, 20.0)
    played.book.carried(b.direction, 25_000_000, 20.0)
    assert look(20.0) == {0: 5000, 1: 5000}
