"""Whose questions go to which name servers."""

from __future__ import annotations

import pytest

from services.edge.resolver.routing import Routes
from services.kernel.addr import default_ranges, tunnel6
from services.kernel.dnsnames import name_of
from tests.fakes.world import World
from tests.unit.authority.views_kit import ACME, BETA, customer, outcome

MESH = "ab" * 32
PLAIN = (("192.0.2.53", 53),)
HOLDER = "10.64.0.10"
STRANGER = "10.64.0.99"


class State:
    """A folded state in which an endpoint of a customer holds an address."""

    def __init__(self, world: World, parent: str) -> None:
        self.state = world.folded().state
        self.parent = parent

    def get(self, view: str, key: str):
        if (view, key) == ("ipam", HOLDER):
            return "endpoint"
        if (view, key) == ("tree", "endpoint"):
            return {"kind": "endpoint", "parent": self.parent, "record": "r"}
        return self.state.get(view, key)


def split(world: World, node: str, domain: str, *upstreams: str) -> None:
    body = {"customer": node, "domain": domain, "upstreams": list(upstreams)}
    record = world.signed(world.servers[0].key, "dns.split", body)
    assert outcome(world, record) is None


def routes(parent: str = BETA) -> Routes:
    """BETA lies below ACME."""
    world = World()
    assert outcome(world, customer(world, ACME, "acme")) is None
    assert outcome(world, customer(world, BETA, "beta", ACME)) is None
    split(world, ACME, "corp.example", "10.64.0.20")
    split(world, ACME, "lab.corp.example", "9.9.9.9:5353")
    split(world, BETA, "corp.example", "10.64.0.21")
    split(world, BETA, "trap.example", "127.0.0.1", "169.254.169.254", "192.168.1.1", "10.64.0.1")
    state = State(world, parent)
    made = Routes(
        state=lambda: state, mesh_id=MESH, ranges=default_ranges(), own={"10.64.0.1", "10.64.0.2"}
    )
    made.upstreams = PLAIN
    return made


@pytest.mark.parametrize(
    ("name", "parent", "upstreams"),
    [
        ("www.corp.example", BETA, (("10.64.0.21", 53),)),
        ("corp.example", BETA, (("10.64.0.21", 53),)),
        ("www.corp.example", ACME, (("10.64.0.20", 53),)),
        ("x.lab.corp.example", BETA, (("9.9.9.9", 5353),)),
        ("xcorp.example", BETA, PLAIN),
        ("example", BETA, PLAIN),
    ],
)
def test_the_longest_domain_of_the_nearest_customer_counts(name, parent, upstreams) -> None:
    route = routes(parent).route(name_of(name), HOLDER)
    assert route.upstreams == upstreams
    assert route.is_split == (upstreams != PLAIN)


def test_other_endpoints_are_not_told_of_a_customers_domains() -> None:
    route = routes().route(name_of("www.corp.example"), STRANGER)
    assert (route.upstreams, route.is_split) == (PLAIN, False)


def test_a_customer_makes_no_server_ask_itself_or_its_own_network() -> None:
    route = routes().route(name_of("a.trap.example"), HOLDER)
    assert (route.upstreams, route.is_split) == ((), True)


def test_endpoints_alone_are_served_by_both_of_their_addresses() -> None:
    made = routes()
    from ipaddress import IPv4Address

    assert made.serves(HOLDER)
    assert made.serves(str(tunnel6(MESH, IPv4Address(HOLDER))))
    assert made.route(name_of("corp.example"), str(tunnel6(MESH, IPv4Address(HOLDER)))).is_split
    for other in ("10.64.0.2", "172.16.0.20", "192.0.2.1", "127.0.0.1", "::1", "fd00::1"):
        assert not made.serves(other)
