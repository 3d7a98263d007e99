"""The compiled table, judged by a small model of nftables, answers as the ACL does."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st

from services.authority.policy.deciding import VIEW
from services.authority.policy.traffic import parse_traffic
from services.edge.acl.rules import may_reach
from services.edge.policy.book import PolicyBook
from services.edge.policy.compiling import deeper, table_name, whole_table
from services.kernel.addr import default_ranges, tunnel6
from services.kernel.ids import MeshId
from tests.fakes.nftmodel import Model, Packet
from tests.fakes.policies import TRAFFIC, StillState

MESH = MeshId("ab" * 32)
TREE = {
    "root": None,
    "acme": "root",
    "berlin": "acme",
    "mitte": "berlin",
    "beta": "root",
    "a1": "acme",
    "a2": "acme",
    "c1": "berlin",
    "d1": "mitte",
    "b1": "beta",
    "b2": "beta",
}
ENDPOINTS = [name for name in TREE if name[-1].isdigit()]
RULES = st.lists(
    st.tuples(
        st.sampled_from(["allow", "deny"]),
        st.sampled_from(list(TREE)),
        st.sampled_from(list(TREE)),
        TRAFFIC,
    ),
    max_size=10,
)
PROBES = st.sampled_from(
    [(6, 22), (6, 443), (6, 8000), (6, 65535), (17, 53), (17, 443), (1, 0), (58, 0), (47, 0)]
)


def book_of(state: StillState, order=None) -> PolicyBook:
    book = PolicyBook(MESH)
    things = list(state.scan("tree", VIEW))
    for view, key, value in order(things) if order else things:
        (book.put_node if view == "tree" else book.put_pair)(key, value)
    return book


def table_of(book: PolicyBook) -> Model:
    return Model(whole_table(book, interface="seip0", ranges=default_ranges(), mesh_id=MESH))


def address(state: StillState, name: str, *, six: bool = False) -> str:
    text = state.tree[name]["address"]
    return str(tunnel6(MESH, IPv4Address(text))) if six else text


def expected(state: StillState, source: str, target: str, probe: tuple[int, int]) -> bool:
    words = {(6,): "tcp", (17,): "udp", (1,): "icmp", (58,): "icmp"}
    if probe[0] not in (1, 6, 17, 58):
        return 47 << 16 in _opened(state, source, target)
    name = words[probe[:1]]
    text = f"{name}/{probe[1]}" if name in ("tcp", "udp") else name
    return may_reach(state, source, target, parse_traffic(text)).allowed


def _opened(state: StillState, source: str, target: str) -> set[int]:
    from services.authority.policy.deciding import open_spans, verdicts

    point = 47 << 16
    spans = open_spans(verdicts(state, source, target))
    return {point for first, last in spans if first <= point <= last}


@settings(max_examples=150)
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


@settings(max_examples=150)
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


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("rule"), RULES.filter(bool).map(lambda rules: rules[0])),
        st.tuples(st.just("no rules"), st.sampled_from(list(TREE)), st.sampled_from(list(TREE))),
        st.tuples(st.just("gone"), st.sampled_from(ENDPOINTS)),
        st.tuples(st.just("back"), st.sampled_from(ENDPOINTS)),
        st.tuples(st.just("anew"), st.sampled_from([*ENDPOINTS, "mitte", "beta"])),
        st.tuples(st.just("address"), st.sampled_from(ENDPOINTS), st.integers(100, 120)),
        st.tuples(st.just("move"), st.sampled_from(["berlin", "mitte"]), st.just("beta")),
        st.tuples(st.just("move"), st.just("beta"), st.sampled_from(["acme", "root"])),
    ),
    max_size=12,
)


def changed(state: StillState, change) -> list[tuple[str, str]]:
    """Change the state; return the objects that are others now."""
    what, *args = change
    if what == "rule":
        (effect, source, target, traffic) = args[0]
        if source not in state.tree or target not in state.tree:
            return []
        state.add(f"more{len(state.acl)}-{traffic}", effect, source, target, traffic)
        return [(VIEW, f"{target}/{source}")]
    if what == "no rules":
        state.acl.pop(f"{args[0]}/{args[1]}", None)
        return [(VIEW, f"{args[0]}/{args[1]}")]
    (name, *rest) = args
    if what == "gone":
        state.tree.pop(name, None)
    elif what == "back":
        fresh = StillState(TREE).tree[name]
        state.tree.setdefault(name, {**fresh, "record": f"{name} came back"})
    elif name in state.tree:
        node = state.tree[name]
        new = {
            "anew": {"record": f"{name} was made anew"},
            "address": {"address": f"10.64.9.{(rest or [0])[0]}"},
            "move": {"parent": (rest or [0])[0]},
        }[what]
        taken = [one.get("address") for one in state.tree.values()]
        if new.get("address") not in taken or what != "address":
            state.tree[name] = {**node, **new}
    return [("tree", name)]


@settings(max_examples=200)
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


def test_answers_of_an_open_connection_pass() -> None:
    state = StillState(TREE, [("allow", "acme", "b1", "udp/53")])
    table = table_of(book_of(state))
    ends = {"saddr": address(state, "b1"), "daddr": address(state, "a1")}
    answer = Packet(**ends, l4proto=17, sport=53, dport=4000, state="established")
    assert not table.passes(answer)
    answer.direction = "reply"
    assert table.passes(answer)
