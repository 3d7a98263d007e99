"""Which servers the root names as witnesses."""

from __future__ import annotations

import pytest

from services.authority.rootkeys.witnesses import choose_witnesses
from services.kernel.ids import ServerId

SERVERS = [ServerId(f"server-{number:016x}") for number in range(12)]


@pytest.mark.parametrize(
    ("servers", "witnesses"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (9, 9), (10, 9), (12, 9)]
)
def test_an_odd_number_up_to_nine_the_longest_standing_first(servers, witnesses):
    assert choose_witnesses([], SERVERS[:servers]) == SERVERS[:witnesses]


def test_witnesses_stay_while_they_are_servers():
    named = [SERVERS[4], SERVERS[2], SERVERS[0]]
    assert choose_witnesses(named, SERVERS[:5]) == [*named, SERVERS[1], SERVERS[3]]
    left = [one for one in SERVERS[:5] if one != SERVERS[2]]
    assert choose_witnesses(named, left) == [SERVERS[4], SERVERS[0], SERVERS[1]]
