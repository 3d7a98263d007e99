"""Who may say who reaches whom, and how much of it."""

from __future__ import annotations

import pytest

from services.authority.policy import view
from services.authority.policy.deciding import rules_of, verdicts
from services.authority.policy.traffic import parse_traffic
from tests.fakes.world import World, key_of
from tests.unit.authority.views_kit import ACME, BETA, customer, grant, outcome

NOBODY = "00000000-0000-4000-8000-000000000999"


def world_of_two() -> World:
    world = World()
    assert outcome(world, customer(world, ACME, "acme")) is None
    assert outcome(world, customer(world, BETA, "beta")) is None
    return world


def rule(world: World, kind: str, source: str, target: str, traffic: str = "tcp/443", by=None):
    body = {"source": source, "target": target, "traffic": traffic}
    return world.signed(by or world.servers[0].key, f"acl.{kind}", body)


def removal(world: World, rule_id: str, by=None):
    return world.signed(by or world.servers[0].key, "acl.remove", {"rule": rule_id})


def operator(world: World, name: str, *nodes: str):
    key = key_of(name)
    for node in nodes:
        assert outcome(world, grant(world, key.public_key, "operate", node)) is None
    return key


def held(world: World, target: str, source: str) -> list[tuple[bool, str]]:
    found = rules_of(world.folded().state, target, source)
    return [(one.allows, one.traffic.text) for one in found]


def test_a_rule_is_said_and_taken_away() -> None:
    world = world_of_two()
    said = rule(world, "allow", ACME, BETA)
    assert outcome(world, said) is None
    assert held(world, BETA, ACME) == [(True, "tcp/443")]
    assert outcome(world, rule(world, "allow", ACME, BETA)) == "duplicate_id"
    assert outcome(world, rule(world, "deny", ACME, BETA)) is None
    assert outcome(world, removal(world, said.id)) is None
    assert held(world, BETA, ACME) == [(False, "tcp/443")]
    assert outcome(world, removal(world, said.id)) == "rejected_orphan"


def test_opening_needs_both_ends_or_what_is_above_them() -> None:
    world = world_of_two()
    root = world.root_node
    at_acme, at_beta = operator(world, "acme's", ACME), operator(world, "beta's", BETA)
    at_both, above = operator(world, "both's", ACME, BETA), operator(world, "root's", root)
    for half in (at_acme, at_beta, key_of("stranger")):
        assert outcome(world, rule(world, "allow", ACME, BETA, by=half)) == "rejected_unauthorised"
    assert outcome(world, rule(world, "allow", root, BETA, by=at_beta)) == "rejected_unauthorised"
    assert outcome(world, rule(world, "allow", BETA, BETA, by=at_beta)) is None
    assert outcome(world, rule(world, "allow", ACME, BETA, by=at_both)) is None
    assert outcome(world, rule(world, "allow", ACME, BETA, "udp", by=above)) is None
    assert outcome(world, rule(world, "allow", root, BETA, by=above)) is None


def test_closing_needs_one_end_and_its_author_opens_it_again() -> None:
    world = world_of_two()
    at_acme, at_beta = operator(world, "acme's", ACME), operator(world, "beta's", BETA)
    stranger = key_of("stranger")
    assert outcome(world, rule(world, "deny", ACME, BETA, by=stranger)) == "rejected_unauthorised"
    by_target = rule(world, "deny", ACME, BETA, by=at_beta)
    by_source = rule(world, "deny", ACME, BETA, "udp", by=at_acme)
    by_server = rule(world, "deny", ACME, BETA, "icmp")
    for one in (by_target, by_source, by_server):
        assert outcome(world, one) is None
    assert outcome(world, removal(world, by_target.id, at_acme)) == "rejected_unauthorised"
    assert outcome(world, removal(world, by_source.id, at_beta)) == "rejected_unauthorised"
    assert outcome(world, removal(world, by_server.id, at_beta)) == "rejected_unauthorised"
    assert outcome(world, removal(world, by_target.id, at_beta)) is None
    assert outcome(world, removal(world, by_source.id, at_acme)) is None
    assert outcome(world, removal(world, by_server.id)) is None


def test_either_end_takes_back_what_was_opened() -> None:
    world = world_of_two()
    at_acme, at_beta = operator(world, "acme's", ACME), operator(world, "beta's", BETA)
    for key in (at_acme, at_beta):
        said = rule(world, "allow", ACME, BETA)
        assert outcome(world, said) is None
        assert outcome(world, removal(world, said.id, key_of("x"))) == "rejected_unauthorised"
        assert outcome(world, removal(world, said.id, key)) is None


def test_a_rule_dies_with_its_customer_and_makes_room_for_new_ones() -> None:
    world = world_of_two()
    said = rule(world, "allow", ACME, BETA)
    assert outcome(world, said) is None
    gone = world.signed(world.servers[0].key, "tree.remove", {"node": ACME})
    assert outcome(world, gone) is None
    assert outcome(world, customer(world, ACME, "acme-again")) is None
    state = world.folded().state
    (verdict,) = verdicts(state, ACME, BETA, parse_traffic("tcp/443").spans)
    assert verdict.rule is None
    assert outcome(world, rule(world, "allow", ACME, BETA, "udp")) is None
    assert held(world, BETA, ACME) == [(True, "udp")]
    assert world.folded().state.get(view.RULE_VIEW, said.id) is None
    assert world.folded().state.get(view.COUNT_VIEW, BETA) == 1


def test_a_rule_of_a_node_that_is_gone_can_be_taken_away() -> None:
    world = world_of_two()
    said = rule(world, "deny", ACME, BETA)
    assert outcome(world, said) is None
    assert outcome(world, world.signed(world.servers[0].key, "tree.remove", {"node": ACME})) is None
    at_beta = operator(world, "beta's", BETA)
    assert outcome(world, removal(world, said.id, at_beta)) is None
    assert world.folded().state.get(view.COUNT_VIEW, view.ALL) is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"traffic": "tcp/0"}, "bad_traffic"),
        ({"traffic": "tcp/22; drop"}, "bad_traffic"),
        ({"traffic": 22}, "bad_field"),
        ({"source": NOBODY}, "rejected_orphan"),
        ({"target": NOBODY}, "rejected_orphan"),
        ({"target": "x" * 37}, "bad_field"),
        ({"note": "more"}, "bad_field"),
    ],
)
def test_a_malformed_rule_has_no_effect(change: dict, code: str) -> None:
    world = world_of_two()
    body = {"source": ACME, "target": BETA, "traffic": "tcp/443", **change}
    assert outcome(world, world.signed(world.servers[0].key, "acl.allow", body)) == code
    assert world.folded().state.get(view.COUNT_VIEW, view.ALL) is None


def test_rules_are_bounded_where_their_author_may_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "MAX_RULES_A_CUSTOMER", 2)
    monkeypatch.setattr(view, "MAX_RULES_A_PAIR", 2)
    world = world_of_two()
    at_acme = operator(world, "acme's", ACME)
    # Who operates the source alone uses up the room of the source.
    for port in (1, 2):
        said = rule(world, "deny", ACME, BETA, f"tcp/{port}", by=at_acme)
        assert outcome(world, said) is None
    assert outcome(world, rule(world, "deny", ACME, BETA, "tcp/3")) == "too_many"
    root = world.root_node
    assert outcome(world, rule(world, "deny", ACME, root, "tcp/3", by=at_acme)) == "too_many"
    assert outcome(world, rule(world, "deny", BETA, BETA, "tcp/3")) is None
    monkeypatch.setattr(view, "MAX_RULES", 3)
    assert outcome(world, rule(world, "deny", BETA, BETA, "tcp/4")) == "too_many"
