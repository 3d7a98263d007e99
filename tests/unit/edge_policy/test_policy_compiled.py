"""The compiled table, judged by a small model of nftables, answers as the ACL does."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from services.authority.policy.deciding import VIEW
from services.edge.policy.compiling import deeper, table_name, whole_table
from services.kernel.addr import default_ranges
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

if TYPE_CHECKING:
    from services.edge.policy.book import PolicyBook


def table_of(book: PolicyBook) -> Model:
    return Model(whole_table(book, interface="seip0", ranges=default_ranges(), mesh_id=MESH))


@examples(150)
@given(RULES, st.data())
def test_a_packet_gets_through_where_the_acl_says_so(rules, data) -> None:
    state = StillState(TREE, rules)
    shuffled = data.draw(st.randoms(use_true_random=False))
    table = table_of(book_of(state, lambda things: shuffled.sample(things, len(things))))
    for source, target in itertools.permutations(ENDPOINTS, 2):
        probe, six = data.draw(PROBES), data.draw(st.booleans())
        packet = Packet(
            saddr=address(state, source, six=six),
            daddr=address(state, target, six=six),
            l4proto=probe[0],
            dport=probe[1],
        )
        assert table.passes(packet) is expected(state, source, target, probe)
        if table.passes(packet):
            assert packet.registers == {"mark": 0, "priority": 0}


@examples(150)
@given(RULES, st.data())
def test_tcp_in_the_middle_passes_where_either_direction_is_open(rules, data) -> None:
    state = StillState(TREE, rules)
    table = table_of(book_of(state))
    source, target = data.draw(st.permutations(ENDPOINTS))[:2]
    ports = data.draw(st.tuples(*[st.sampled_from([22, 443, 8000, 50_000])] * 2))
    packet = Packet(
        saddr=address(state, source),
        daddr=address(state, target),
        l4proto=6,
        sport=ports[0],
        dport=ports[1],
        is_middle=True,
    )
    one = expected(state, source, target, (6, ports[1]))
    other = expected(state, target, source, (6, ports[0]))
    assert table.passes(packet) is (one or other)


@examples(200)
@given(RULES, CHANGES)
def test_changes_lead_where_a_table_made_anew_is(rules, changes) -> None:
    state = StillState(TREE, rules)
    book = book_of(state)
    table = table_of(book)
    name, levels = f"inet {table_name('seip0')}", book.levels
    for change in changes:
        for view, key in changed(state, change):
            value = state.get(view, key)
            (book.put_node if view == "tree" else book.put_pair)(key, value)
        table.run(book.elements.take_changes(name)[0])
        if book.levels != levels:
            levels = book.levels
            table.run(deeper(book, interface="seip0"))
    for source, target in itertools.permutations(
        [one for one in ENDPOINTS if one in state.tree], 2
    ):
        packet = Packet(
            saddr=address(state, source), daddr=address(state, target), l4proto=6, dport=443
        )
        assert table.passes(packet) is expected(state, source, target, (6, 443))
    # Nothing of what is gone stays behind.
    anew = book_of(state).elements.held()
    assert {name: len(held) for name, held in book.elements.held().items()} == {
        name: len(held) for name, held in anew.items()
    }


def test_a_rule_costs_one_element_and_an_endpoint_four() -> None:
    state = StillState(TREE, [("allow", "acme", "beta", "tcp/443")])
    book = book_of(state)
    table_of(book)
    state.add("more", "allow", "acme", "beta", "tcp/80")
    book.put_pair("beta/acme", state.get(VIEW, "beta/acme"))
    commands, count = book.elements.take_changes("inet t")
    assert count == 1
    assert commands == "add element inet t ported { 0:2 . 5 . 6-6 . 80-80 : goto pass }\n"
    book.put_node("b3", {**state.tree["b2"], "address": "10.64.1.1", "record": "b3"})
    assert book.elements.take_changes("inet t")[1] == 4
    # What changes at a node without a meaning here costs nothing.
    book.put_node("b2", {**state.tree["b2"], "at": "server-1", "moves": 4})
    assert book.elements.take_changes("inet t") == ("", 0)


def test_strangers_servers_and_subnets_are_told_apart() -> None:
    state = StillState(TREE)
    table = table_of(book_of(state))
    b1 = address(state, "b1")
    assert not table.passes(Packet(saddr="10.64.200.10", daddr=b1, l4proto=6, dport=443))
    assert not table.passes(Packet(saddr=b1, daddr="10.64.200.10", l4proto=6, dport=443))
    for server in ("10.64.0.2", "10.64.16.2", "172.16.0.12"):
        assert table.passes(Packet(saddr=b1, daddr=server, l4proto=17, dport=53))
        assert table.passes(Packet(saddr=server, daddr=b1, l4proto=17, dport=53))
    assert table.passes(Packet(saddr=b1, daddr="192.168.7.7", l4proto=6, dport=22))
    other = Packet(saddr=b1, daddr=address(state, "a1"), l4proto=6, dport=22, oifname="eth0")
    assert table.passes(other)


def test_a_server_is_reached_at_its_addresses_in_the_mesh_alone() -> None:
    """Not at those in its own networks, which another firewall may guard at their interface."""
    state = StillState(TREE)
    table, b1 = table_of(book_of(state)), address(state, "b1")
    for own in ("10.64.0.1", "172.16.0.12"):
        assert table.passes(Packet(saddr=b1, daddr=own, l4proto=6, dport=22), "input_hook")
    for other in ("192.168.1.5", "203.0.113.7", "172.17.0.1"):
        packet = Packet(saddr=b1, daddr=other, l4proto=6, dport=22)
        assert not table.passes(packet, "input_hook")
        packet.iifname = "eth0"
        assert table.passes(packet, "input_hook")
    b1, own = (address(state, name, six=True) for name in ("b1", "a1"))
    assert table.passes(Packet(saddr=b1, daddr=own, l4proto=17), "input_hook")
    assert not table.passes(Packet(saddr=b1, daddr="2001:db8::7", l4proto=17), "input_hook")


@examples(150)
@given(RULES, st.data())
def test_an_answer_passes_where_what_it_answers_to_does(rules, data) -> None:
    """And where it might begin itself; a connection whose rule went is not answered either."""
    state = StillState(TREE, rules)
    table = table_of(book_of(state))
    for source, target in itertools.permutations(ENDPOINTS, 2):
        probe, six = data.draw(PROBES), data.draw(st.booleans())
        asker = (probe[0], 40_000 if probe[0] in (6, 17) else 0)
        answer = Packet(
            saddr=address(state, target, six=six),
            daddr=address(state, source, six=six),
            l4proto=probe[0],
            sport=probe[1],
            dport=asker[1],
            is_middle=True,
            state="established",
            direction="reply",
        )
        asked = expected(state, source, target, probe)
        assert table.passes(answer) is (asked or expected(state, target, source, asker))
        answer.direction = "original"
        answer.is_middle = False
        assert table.passes(answer) is expected(state, target, source, asker)


def test_answers_of_an_open_connection_pass_until_its_rule_goes() -> None:
    state = StillState(TREE, [("allow", "acme", "b1", "udp/53")])
    ends = {"saddr": address(state, "b1"), "daddr": address(state, "a1")}
    answer = Packet(**ends, l4proto=17, sport=53, dport=4000, state="established")
    assert not table_of(book_of(state)).passes(answer)
    answer.direction = "reply"
    assert table_of(book_of(state)).passes(answer)
    assert not table_of(book_of(StillState(TREE))).passes(answer)
    answer.state = "related"  # an ICMP error
    assert table_of(book_of(StillState(TREE))).passes(answer)
