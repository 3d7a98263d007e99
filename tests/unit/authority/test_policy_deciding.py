"""Rules laid over each other: the most specific one that speaks of the traffic decides."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.authority.policy.deciding import (
    Rule,
    open_spans,
    painted,
    verdicts,
)
from services.authority.policy.traffic import LAST, parse_traffic, spell
from services.kernel.errors import InputError
from tests.fakes.policies import TRAFFIC, StillState

TREE = {
    "root": None,
    "acme": "root",
    "berlin": "acme",
    "beta": "root",
    "a1": "acme",
    "a2": "acme",
    "c1": "berlin",
    "b1": "beta",
    "b2": "beta",
}


def state_with(*rules: tuple[str, str, str, str]) -> StillState:
    """Return a state with rules (allow or deny, source, target, traffic)."""
    return StillState(TREE, rules)


def is_open(state: StillState, source: str, target: str, traffic: str) -> bool:
    found = verdicts(state, source, target, parse_traffic(traffic).spans)
    assert len({one.allows for one in found}) == 1
    return found[0].allows


def test_it_is_open_within_a_customer_and_closed_between() -> None:
    state = state_with()
    assert is_open(state, "a1", "a2", "any")
    assert not is_open(state, "a1", "b1", "any")
    # A customer below another is one of its own.
    assert not is_open(state, "a1", "c1", "any")
    assert not is_open(state, "c1", "a1", "any")


def test_a_rule_opens_one_port_in_one_direction() -> None:
    state = state_with(("allow", "acme", "b1", "tcp/443"))
    assert is_open(state, "a1", "b1", "tcp/443")
    assert is_open(state, "c1", "b1", "tcp/443")
    assert not is_open(state, "a1", "b1", "tcp/22")
    assert not is_open(state, "a1", "b1", "udp/443")
    assert not is_open(state, "a1", "b2", "tcp/443")
    assert not is_open(state, "b1", "a1", "tcp/443")


def test_the_nearest_to_the_target_decides_then_the_nearest_to_the_source() -> None:
    state = state_with(
        ("allow", "root", "root", "tcp/22"),
        ("deny", "root", "acme", "tcp"),
        ("allow", "beta", "acme", "tcp/22"),
        ("deny", "b2", "acme", "tcp/22"),
        ("allow", "b2", "a2", "tcp/22"),
    )
    assert is_open(state, "a1", "b1", "tcp/22")
    assert not is_open(state, "c1", "a1", "tcp/22")
    assert is_open(state, "b1", "a1", "tcp/22")
    assert not is_open(state, "b2", "a1", "tcp/22")
    assert is_open(state, "b2", "a2", "tcp/22")
    assert is_open(state, "c1", "a1", "udp/22") is False


def test_of_one_pair_less_traffic_decides_and_deny_beats_allow() -> None:
    state = state_with(
        ("deny", "acme", "acme", "any"),
        ("allow", "acme", "acme", "tcp"),
        ("deny", "acme", "acme", "tcp/8000-8999"),
        ("allow", "acme", "acme", "tcp/8080"),
        ("deny", "acme", "acme", "tcp/9000"),
        ("allow", "acme", "acme", "tcp/9000"),
    )
    assert is_open(state, "a1", "a2", "tcp/22")
    assert not is_open(state, "a1", "a2", "tcp/8001")
    assert is_open(state, "a1", "a2", "tcp/8080")
    assert not is_open(state, "a1", "a2", "tcp/9000")
    assert not is_open(state, "a1", "a2", "icmp")
    open_to = open_spans(verdicts(state, "a1", "a2"))
    assert spell(open_to) == "tcp/1-7999, tcp/8080, tcp/9001-65535"


def test_what_was_said_of_a_node_is_not_said_of_its_successor() -> None:
    state = state_with(("allow", "beta", "a1", "tcp/443"))
    state.tree["a1"] = {**state.tree["a1"], "record": "another"}
    assert not is_open(state, "b1", "a1", "tcp/443")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tcp/",
        "tcp/0",
        "tcp/65536",
        "tcp/022",
        "tcp/22-22",
        "tcp/23-22",
        "tcp/-22",
        "tcp/22-",
        "tcp/22,23",
        "icmp/8",
        "any/22",
        "sctp/1",
        "TCP/22",
        "tcp/22\n",
        "tcp/٢٢",
        "tcp; flush ruleset",
    ],
)
def test_traffic_has_one_spelling(text: str) -> None:
    with pytest.raises(InputError):
        parse_traffic(text)


@given(TRAFFIC)
def test_traffic_is_spelt_as_it_was_written(text: str) -> None:
    assert spell(list(parse_traffic(text).spans)) == text


RULES = st.lists(st.tuples(TRAFFIC, st.booleans()), max_size=8)


@given(RULES, st.data())
def test_painting_answers_each_point_as_asking_every_rule_does(rules, data) -> None:
    given_rules = [
        Rule(id=str(number), allows=allows, traffic=parse_traffic(text))
        for number, (text, allows) in enumerate(rules)
    ]
    drawn = painted(given_rules)
    assert all(one[0][1] < other[0][0] for one, other in itertools.pairwise(drawn))
    edges = [point for rule in given_rules for span in rule.traffic.spans for point in span]
    nearby = [p for edge in edges for p in (edge - 1, edge, edge + 1) if 0 <= p <= LAST]
    point = data.draw(st.sampled_from(nearby) if nearby else st.integers(0, LAST))
    speaking = [
        rule
        for rule in given_rules
        if any(first <= point <= last for first, last in rule.traffic.spans)
    ]
    painted_here = [rule for (first, last), rule in drawn if first <= point <= last]
    if not speaking:
        assert painted_here == []
        return
    smallest = min(rule.traffic.size for rule in speaking)
    allows = all(rule.allows for rule in speaking if rule.traffic.size == smallest)
    assert [rule.allows for rule in painted_here] == [allows]
