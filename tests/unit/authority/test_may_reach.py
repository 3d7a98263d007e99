"""The answer of the ACL between endpoints, as people read it."""

from __future__ import annotations

from services.authority.policy.traffic import parse_traffic
from services.edge.acl.rules import may_meet, may_reach
from tests.fakes.policies import StillState

TREE = {"root": None, "acme": "root", "beta": "root", "a1": "acme", "a2": "acme", "b1": "beta"}


def asked(state: StillState, source: str, target: str, text: str = ""):
    return may_reach(state, source, target, parse_traffic(text) if text else None)


def test_a_rule_is_named_in_the_answer() -> None:
    state = StillState(TREE, [("allow", "acme", "b1", "tcp/443"), ("deny", "root", "b1", "tcp")])
    answer = asked(state, "a1", "b1", "tcp/443")
    assert answer.allowed
    assert answer.reason == "yes: rule rule0 allows acme to b1.beta tcp/443"
    assert answer.rules == ("rule0",)
    answer = asked(state, "a1", "b1", "tcp/22")
    assert not answer.allowed
    assert answer.reason == "no: rule rule1 denies everybody to b1.beta tcp"


def test_without_a_rule_the_customers_decide() -> None:
    state = StillState(TREE)
    assert asked(state, "a1", "a2", "icmp").reason == "yes: both are of one customer"
    assert asked(state, "a1", "b1", "icmp").reason == "no: nothing opens it between them"
    assert asked(state, "a1", "a1", "icmp").allowed
    assert asked(state, "a1", "nobody").reason == "no: there is no endpoint nobody"
    assert not asked(state, "a1", "beta").allowed


def test_without_traffic_it_tells_what_is_open() -> None:
    state = StillState(TREE, [("allow", "acme", "b1", "tcp/443"), ("allow", "a1", "beta", "icmp")])
    answer = asked(state, "a1", "b1")
    assert answer.allowed
    assert answer.open == "icmp, tcp/443"
    assert answer.reason.startswith("yes: open is icmp, tcp/443, by rule")
    assert not asked(state, "b1", "a1").allowed
    assert asked(state, "a1", "a2").open == "any"


def test_where_a_part_is_open_the_answer_is_no_and_says_which() -> None:
    state = StillState(TREE, [("allow", "acme", "b1", "tcp/443")])
    answer = asked(state, "a1", "b1", "tcp/400-500")
    assert not answer.allowed
    assert answer.reason.startswith("no: of tcp/400-500 only tcp/443 is open, by rule rule0")


def test_two_endpoints_meet_where_either_has_something_to_say() -> None:
    state = StillState(TREE, [("allow", "b1", "a1", "udp/53")])
    assert may_meet(state, "a1", "b1")
    assert may_meet(state, "b1", "a1")
    assert may_meet(state, "a1", "a2")
    assert not may_meet(state, "a2", "b1")
