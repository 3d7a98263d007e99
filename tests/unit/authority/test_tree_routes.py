"""Subnets and exits as the fold takes them: offered by the endpoint, approved by an operator."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.authority.tree.prefixes import parse_prefix, why_not
from services.kernel.addr import default_ranges, ula_prefix
from services.kernel.errors import InputError
from services.kernel.ids import node_id_of
from tests.fakes.world import World, key_of
from tests.unit.authority.views_kit import ACME, customer, grant, joined, outcome

LAN, OTHER = "192.168.7.0/24", "192.168.8.0/24"
STAFF = key_of("staff")


@pytest.fixture
def world():
    made = World(2)
    joined(made)
    return made


def node_of(name: str = "laptop") -> str:
    return node_id_of(key_of(f"endpoint {name}").public_key)


def advertise(world: World, *prefixes: str, name: str = "laptop", by: str = "", **changes):
    body = {
        "node": node_of(name),
        "prefixes": sorted(prefixes),
        "exit": False,
        "serial": 1,
        **changes,
    }
    return world.signed(key_of(f"endpoint {by or name}"), "tree.advertise", body)


def approve(world: World, route: str, name: str = "laptop", kind: str = "tree.approve", key=None):
    body = {"node": node_of(name), "route": route}
    return world.signed(key or world.servers[0].key, kind, body)


def withdraw(world: World, route: str, name: str = "laptop"):
    return approve(world, route, name, "tree.withdraw")


def held(world: World, name: str = "laptop"):
    return world.folded().state.get("tree", node_of(name))


def test_what_is_offered_counts_once_it_is_approved(world) -> None:
    assert outcome(world, advertise(world, LAN, OTHER)) is None
    assert "routes" not in held(world)
    assert outcome(world, approve(world, OTHER)) is None
    assert outcome(world, approve(world, LAN)) is None
    assert held(world)["routes"] == [LAN, OTHER]
    assert outcome(world, withdraw(world, OTHER)) is None
    assert held(world)["routes"] == [LAN]
    assert outcome(world, withdraw(world, LAN)) is None
    assert "routes" not in held(world)
    assert held(world)["asked"]["prefixes"] == [LAN, OTHER]


def test_an_exit_is_approved_and_withdrawn(world) -> None:
    assert outcome(world, approve(world, "exit")) == "rejected_orphan"
    assert outcome(world, advertise(world, exit=True)) is None
    assert outcome(world, approve(world, "exit")) is None
    assert held(world)["exit"] is True
    assert outcome(world, withdraw(world, "exit")) is None
    assert "exit" not in held(world)
    assert outcome(world, withdraw(world, "exit")) == "rejected_orphan"


def test_what_is_offered_no_more_is_approved_no_more(world) -> None:
    assert outcome(world, advertise(world, LAN, OTHER, exit=True)) is None
    for route in (LAN, OTHER, "exit"):
        assert outcome(world, approve(world, route)) is None
    assert outcome(world, advertise(world, OTHER, serial=2)) is None
    assert (held(world)["routes"], held(world).get("exit")) == ([OTHER], None)
    assert outcome(world, advertise(world, LAN, OTHER, serial=3)) is None
    assert held(world)["routes"] == [OTHER]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"by": "thief"}, "rejected_unauthorised"),
        ({"serial": 0}, "stale"),
        ({"serial": True}, "bad_field"),
        ({"exit": 1}, "bad_field"),
        ({"more": 1}, "bad_field"),
        ({"prefixes": LAN}, "bad_field"),
        ({"prefixes": [OTHER, LAN]}, "bad_field"),
        ({"prefixes": [LAN, LAN]}, "bad_field"),
        ({"prefixes": [7]}, "bad_cidr"),
        ({"prefixes": ["192.168.7.1/24"]}, "bad_cidr"),
        ({"prefixes": ["0.0.0.0/0"]}, "bad_cidr"),
        ({"prefixes": ["0.0.0.0/1"]}, "bad_cidr"),
        ({"prefixes": ["::/0"]}, "bad_cidr"),
        ({"prefixes": [f"192.168.{n}.0/24" for n in range(33)]}, "bad_field"),
        ({"node": "00000000-0000-4000-8000-000000000000"}, "rejected_orphan"),
    ],
)
def test_offers_without_effect(world, changes, code) -> None:
    assert outcome(world, advertise(world, **changes)) == code


@pytest.mark.parametrize(
    ("route", "code"),
    [
        ("192.168.9.0/24", "rejected_orphan"),
        ("exit", "rejected_orphan"),
        ("0.0.0.0/0", "bad_cidr"),
        ("everything", "bad_cidr"),
    ],
)
def test_only_what_is_offered_can_be_approved(world, route, code) -> None:
    assert outcome(world, advertise(world, LAN)) is None
    assert outcome(world, approve(world, route)) == code
    assert outcome(world, withdraw(world, LAN)) == "rejected_orphan"


def test_who_operates_at_the_customer_approves_and_nobody_else(world) -> None:
    assert outcome(world, advertise(world, LAN)) is None
    assert outcome(world, approve(world, LAN, key=key_of("endpoint laptop"))) == (
        "rejected_unauthorised"
    )
    assert outcome(world, approve(world, LAN, key=STAFF)) == "rejected_unauthorised"
    assert outcome(world, grant(world, STAFF.public_key, "operate", world.customer)) is None
    assert outcome(world, approve(world, LAN, key=STAFF)) is None


@pytest.mark.parametrize("taken", ["192.168.7.0/24", "192.168.0.0/16", "192.168.7.128/25"])
def test_two_endpoints_never_carry_the_same(world, taken) -> None:
    joined(world, "desktop")
    assert outcome(world, advertise(world, taken)) is None
    assert outcome(world, approve(world, taken)) is None
    assert outcome(world, advertise(world, LAN, name="desktop")) is None
    assert outcome(world, approve(world, LAN, "desktop")) == "rejected_overlap"
    assert outcome(world, withdraw(world, taken)) is None
    assert outcome(world, approve(world, LAN, "desktop")) is None


def test_a_prefix_is_free_again_when_its_endpoint_is_gone(world) -> None:
    joined(world, "desktop")
    assert outcome(world, advertise(world, LAN, name="desktop")) is None
    assert outcome(world, approve(world, LAN, "desktop")) is None
    gone = world.signed(key_of("endpoint desktop"), "tree.remove", {"node": node_of("desktop")})
    assert outcome(world, gone) is None
    state = world.folded().state
    assert list(state.scan("route", "routed")) == []
    assert outcome(world, advertise(world, LAN)) is None
    assert outcome(world, approve(world, LAN)) is None


def test_private_subnets_are_those_of_the_customers_blocks(world) -> None:
    subnet = str(default_ranges().chunk("private", 0).network_address) + "/24"
    part = subnet.replace("/24", "/25")
    assert outcome(world, advertise(world, part)) is None
    assert outcome(world, approve(world, part)) == "rejected_scope"
    assert outcome(world, customer(world, ACME, "acme")) is None

    def block(owner: str, text: str):
        body = {"block": text, "pool": "private", "customer": owner}
        return world.signed(world.servers[0].key, "ipam.block", body)

    assert outcome(world, block(ACME, subnet)) is None
    assert outcome(world, approve(world, part)) == "rejected_scope"
    body = {"block": subnet}
    assert outcome(world, world.signed(world.servers[0].key, "ipam.unblock", body)) is None
    assert outcome(world, block(world.customer, subnet)) is None
    assert outcome(world, approve(world, part)) is None


@pytest.mark.parametrize(
    "prefix",
    ["10.64.0.0/16", "10.0.0.0/8", "172.16.1.0/24", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/8"],
)
def test_some_prefixes_are_nobodys(world, prefix) -> None:
    assert outcome(world, advertise(world, prefix)) is None
    assert outcome(world, approve(world, prefix)) == "rejected_scope"


PREFIXES = st.one_of(
    st.builds(
        lambda bits, length: ip_network((bits, length), strict=False),
        st.integers(0, (1 << 32) - 1),
        st.integers(8, 32),
    ),
    st.builds(
        lambda bits, length: ip_network((bits, length), strict=False),
        st.integers(1 << 64, (1 << 128) - 1),
        st.integers(16, 128),
    ),
)


@given(PREFIXES)
def test_a_prefix_has_one_spelling_and_touches_nothing_of_the_mesh(network) -> None:
    assert parse_prefix(str(network)) == network
    with pytest.raises(InputError):
        parse_prefix(f"{network} ")
    mesh_id = World(1).mesh_id
    ranges = default_ranges()
    own = [ranges.tunnel, ranges.backbone, ula_prefix(mesh_id)]
    touches = any(network.version == one.version and network.overlaps(one) for one in own)
    assert bool(why_not(network, ranges=ranges, mesh_id=mesh_id)) >= touches


@given(st.lists(st.tuples(PREFIXES, st.booleans()), max_size=12))
def test_the_count_of_what_is_carried_agrees_with_a_search(steps) -> None:
    from services.authority.tree.prefixes import hold, let_go

    state, carried = PlainState(), set()
    for network, adds in steps:
        if adds and network not in carried:
            hold(state, "node", network)
            carried.add(network)
        elif network in carried:
            let_go(state, str(network))
            carried.discard(network)
    for network, _ in steps:
        below = [one for one in carried if one.version == network.version]
        count = sum(one.subnet_of(network) for one in below)
        assert (state.get("routed", str(network)) or 0) == count
    if not carried:
        assert state.held == {}


class PlainState:
    """A dictionary in place of the replicated state."""

    def __init__(self) -> None:
        self.held = {}

    def get(self, view, key):
        return self.held.get((view, key))

    def put(self, view, key, value) -> None:
        self.held[view, key] = value

    def delete(self, view, key) -> None:
        self.held.pop((view, key), None)
