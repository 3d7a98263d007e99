"""What an agent is told keeps out and lets in what the ACL says; and who is told of a change."""

from __future__ import annotations

import base64
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.authority.policy.deciding import VIEW
from services.edge.policy.concerned import concerned
from services.edge.policy.endpoint_table import InboundBook, Place
from services.edge.policy.inbound import inbound_from, inbound_of
from services.kernel.addr import default_ranges
from services.kernel.errors import WireError
from tests.fakes.nftmodel import Model, Packet
from tests.fakes.policies import StillState
from tests.fakes.thoroughness import examples
from tests.unit.edge_policy.policy_kit import (
    CHANGES,
    ENDPOINTS,
    MESH,
    PROBES,
    RULES,
    TREE,
    address,
    book_of,
    changed,
    expected,
)

PLACE = Place(interface="seip1", tunnel_range=default_ranges().tunnel, mesh_id=MESH)


def lets_in(table: Model, state: StillState, source: str, probe, *, six: bool = False) -> bool:
    packet = Packet(
        saddr=address(state, source, six=six),
        daddr="::1" if six else "10.64.0.1",
        l4proto=probe[0],
        dport=probe[1],
        iifname="seip1",
    )
    return table.passes(packet, "input_hook")


@examples(150)
@given(RULES, RULES, st.sampled_from(ENDPOINTS), PROBES, st.booleans())
def test_an_agent_lets_in_what_the_acl_says(rules, later, target, probe, six) -> None:
    state = StillState(TREE, rules)
    agent = InboundBook(PLACE)
    agent.put(inbound_from(inbound_of(book_of(state), target).value()))
    table = Model(agent.whole())
    others = [one for one in ENDPOINTS if one != target]
    for source in others:
        got = lets_in(table, state, source, probe, six=six)
        assert got is expected(state, source, target, probe)
    # And after a change, of which only the difference is said to the kernel.
    state = StillState(TREE, later)
    agent.put(inbound_of(book_of(state), target))
    table.run(agent.take_changes())
    for source in others:
        assert lets_in(table, state, source, probe) is expected(state, source, target, probe)


@examples(150)
@given(RULES, CHANGES)
def test_whoever_may_be_reached_by_others_is_told(rules, changes) -> None:
    state = StillState(TREE, rules)
    book = book_of(state)
    for change in changes:
        before = {one: inbound_of(book, one).value() for one in ENDPOINTS if one in state.tree}
        objects = {("tree", key): node for key, node in state.tree.items()}
        for view, key in changed(state, change):
            old, new = objects.get((view, key)), state.get(view, key)
            told = [concerned(book, view, key, old, new)]
            (book.put_node if view == "tree" else book.put_pair)(key, new)
            told.append(concerned(book, view, key, old, new))
            after = {one: inbound_of(book, one).value() for one in before if one in state.tree}
            others = {one for one in after if after[one] != before[one]}
            assert None in told or others <= set().union(*told)


def test_servers_and_what_is_behind_subnets_are_let_in() -> None:
    agent = InboundBook(PLACE)
    agent.put(inbound_of(book_of(StillState(TREE)), "a1"))
    table = Model(agent.whole())
    for source in ("10.64.0.1", "10.64.16.2", "172.16.0.12", "192.168.7.7"):
        packet = Packet(saddr=source, daddr="10.64.0.10", l4proto=6, dport=22, iifname="seip1")
        assert table.passes(packet, "input_hook")
    stranger = Packet(saddr="10.64.99.99", daddr="10.64.0.10", l4proto=6, iifname="seip1")
    assert not table.passes(stranger, "input_hook")
    stranger.iifname = "eth0"
    assert table.passes(stranger, "input_hook")


@examples(100)
@given(RULES, st.sampled_from(ENDPOINTS), PROBES.filter(lambda one: one[0] in (6, 17)))
def test_a_port_that_leads_into_a_container_is_held_to_the_rules_by_its_own_number(
    rules, target, probe
) -> None:
    state = StillState(TREE, rules)
    agent = InboundBook(PLACE)
    agent.put(inbound_of(book_of(state), target))
    table = Model(agent.whole())
    for source in (one for one in ENDPOINTS if one != target):
        packet = Packet(
            saddr=address(state, source),
            daddr="172.17.0.2",
            l4proto=probe[0],
            dport=8000,
            asked_port=probe[1],
            iifname="seip1",
            oifname="docker0",
        )
        for hook in ("forward_hook", "input_hook"):
            assert table.passes(packet, hook) is expected(state, source, target, probe)
        # What a router hands on is guarded elsewhere, and what containers begin is answered.
        packet.asked_port = None
        assert table.passes(packet, "forward_hook")
    answer = Packet(
        saddr="10.64.99.99",
        daddr="172.17.0.2",
        l4proto=6,
        asked_port=1,
        state="established",
        direction="reply",
        iifname="seip1",
    )
    assert table.passes(answer, "forward_hook")


def test_members_of_one_customer_are_told_alike_in_four_bytes_each() -> None:
    value = inbound_of(book_of(StillState(TREE)), "a1").value()
    (own,) = value["classes"]
    assert own["open"] == [[0, 0xFF_FFFF]]
    nodes = StillState(TREE).tree
    members = [IPv4Address(nodes[one]["address"]).packed for one in ("a1", "a2")]
    assert base64.urlsafe_b64decode(own["addresses"] + "==") == b"".join(members)
    assert inbound_of(book_of(StillState(TREE)), "a2").value() == value
    assert value["strangers"] == []


GOOD = {"version": "1", "classes": [{"open": [[1, 2]], "addresses": "CkAACg"}], "strangers": []}


@pytest.mark.parametrize(
    "bad",
    [
        None,
        [],
        {},
        {**GOOD, "version": 1},
        {**GOOD, "strangers": [[2, 1]]},
        {**GOOD, "strangers": [[0, 1 << 24]]},
        {**GOOD, "strangers": [[-1, 2]]},
        {**GOOD, "strangers": [[1, 4], [4, 5]]},
        {**GOOD, "strangers": [[1, 2, 3]]},
        {**GOOD, "classes": [{"open": [], "addresses": "CkAA"}]},
        {**GOOD, "classes": [{"open": [], "addresses": "CkAACkAA"}]},
        {**GOOD, "classes": [{"open": [], "addresses": "=; flush ruleset"}]},
        {**GOOD, "classes": [*GOOD["classes"], *GOOD["classes"]]},
        {**GOOD, "classes": [{**GOOD["classes"][0], "more": 1}]},
    ],
)
def test_what_makes_no_sense_is_refused_by_the_agent(bad) -> None:
    assert inbound_from(GOOD).classes[0][1] == (IPv4Address("10.64.0.10"),)
    with pytest.raises(WireError):
        inbound_from(bad)


def test_what_does_not_concern_endpoints_tells_nobody() -> None:
    state = StillState(TREE)
    book = book_of(state)
    node = state.tree["a1"]
    assert concerned(book, "tree", "a1", node, {**node, "at": "server-1", "moves": 2}) == set()
    assert concerned(book, "tree", "gamma", None, {"kind": "customer", "parent": "root"}) == set()
    assert concerned(book, VIEW, "root/acme", None, {}) is None
