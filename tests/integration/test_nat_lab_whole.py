"""The whole table: two endpoints in every place, and one each behind what makes a place better."""

from __future__ import annotations

import itertools

import pytest

from tests.fakes.natlab import Kind, nat_lab_of
from tests.fakes.nattalk import Talk

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(400)]

TWICE = (
    Kind.OPEN,
    Kind.FULL_CONE,
    Kind.PORT_RESTRICTED,
    Kind.SYMMETRIC,
    Kind.DOUBLE_NAT,
    Kind.IPV6_ONLY,
)
ONCE = (Kind.MAPPING, Kind.DUAL_STACK)
KINDS = (*TWICE, *TWICE, *ONCE)


def place(kind: Kind, *, second: bool = False) -> str:
    """Return the name of an endpoint that is there."""
    found = [f"e{number}" for number, one in enumerate(KINDS, start=1) if one is kind]
    return found[-1] if second else found[0]


def test_every_pair_of_places_talks_by_the_path_that_the_books_say() -> None:
    pairs = {
        (place(one), place(other, second=True)): (one, other)
        for one, other in itertools.combinations_with_replacement(TWICE, 2)
    }
    pairs |= {
        (place(one), place(other)): (one, other) for one, other in itertools.product(ONCE, TWICE)
    }
    with nat_lab_of(KINDS, servers=2) as lab:
        lab.bring_up()
        with Talk(lab) as talk:
            talk.require_table(pairs)
