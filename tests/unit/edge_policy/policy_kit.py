"""A tree, rules and changes drawn at random, and what the ACL says of them."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import strategies as st

from services.authority.policy.deciding import VIEW, open_spans, verdicts
from services.authority.policy.traffic import parse_traffic
from services.edge.acl.rules import may_reach
from services.edge.policy.book import PolicyBook
from services.kernel.addr import tunnel6
from services.kernel.ids import MeshId
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
    point = 47 << 16
    spans = open_spans(verdicts(state, source, target))
    return {point for first, last in spans if first <= point <= last}


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
