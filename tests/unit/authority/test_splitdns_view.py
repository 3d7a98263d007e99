"""A customer's own domains: who may name which name servers, and for how long that counts."""

from __future__ import annotations

import pytest

from services.authority.splitdns.view import MAX_DOMAINS, domains_of
from tests.fakes.world import World, key_of
from tests.unit.authority.views_kit import ACME, customer, grant, outcome

DOMAIN = "corp.example"


def said(world: World, *upstreams: str, domain: str = DOMAIN, by=None, node: str = ACME):
    body = {"customer": node, "domain": domain, "upstreams": list(upstreams)}
    return world.signed(by or world.servers[0].key, "dns.split", body)


def held(world: World) -> dict:
    return domains_of(world.folded().state, ACME)


def world_with_acme() -> World:
    world = World()
    assert outcome(world, customer(world, ACME, "acme")) is None
    return world


def test_name_servers_are_named_replaced_and_taken_back() -> None:
    world = world_with_acme()
    assert outcome(world, said(world, "10.64.0.20")) is None
    assert outcome(world, said(world, "10.64.0.21", "[2001:db8::53]:5353")) is None
    assert held(world)[DOMAIN]["upstreams"] == ["10.64.0.21", "[2001:db8::53]:5353"]
    assert outcome(world, said(world)) is None
    assert held(world) == {}
    assert outcome(world, said(world)) == "rejected_orphan"


def test_it_needs_operate_at_the_customer() -> None:
    world = world_with_acme()
    member = key_of("member")
    assert outcome(world, said(world, "192.0.2.1", by=member)) == "rejected_unauthorised"
    assert outcome(world, grant(world, member.public_key, "operate", ACME)) is None
    assert outcome(world, said(world, "192.0.2.1", by=member)) is None
    assert outcome(world, said(world, "192.0.2.1", by=member, node=world.root_node)) == (
        "rejected_unauthorised"
    )


@pytest.mark.parametrize(
    ("upstream", "code"),
    [
        ("dns.example", "bad_upstream"),
        ("192.0.2.1:22", "bad_upstream"),
        ("192.0.2.1:70000", "bad_upstream"),
        ("192.0.2.01", "bad_upstream"),
        ("2001:db8::1", "bad_upstream"),
        ("[192.0.2.1]", "bad_upstream"),
        ("[fe80::1%eth0]", "bad_upstream"),
        ("255.0.0.0:", "bad_upstream"),
        ("224.0.0.251", "bad_upstream"),
    ],
)
def test_only_name_servers_are_named(upstream: str, code: str) -> None:
    world = world_with_acme()
    assert outcome(world, said(world, upstream)) == code


@pytest.mark.parametrize("domain", ["", ".", "Corp.example", "corp.example.", "a..b", "x" * 64])
def test_a_domain_has_one_spelling(domain: str) -> None:
    world = world_with_acme()
    assert outcome(world, said(world, "192.0.2.1", domain=domain)) == "bad_name"


def test_a_customer_is_there_and_has_so_many_domains() -> None:
    world = world_with_acme()
    nobody = "00000000-0000-4000-8000-000000000999"
    assert outcome(world, said(world, "192.0.2.1", node=nobody)) == "rejected_orphan"
    for number in range(MAX_DOMAINS):
        record = said(world, "192.0.2.1", domain=f"d{number}.example")
        world.servers[0].hlc = max(one.hlc for one in world.servers)
        world.write(world.servers[0], record)
    assert outcome(world, said(world, "192.0.2.1", domain="more.example")) == "too_many"
    assert outcome(world, said(world, "192.0.2.2", domain="d0.example")) is None


def test_what_was_said_of_a_customer_ends_with_it() -> None:
    world = world_with_acme()
    assert outcome(world, said(world, "192.0.2.1")) is None
    gone = world.signed(world.servers[0].key, "tree.remove", {"node": ACME})
    assert outcome(world, gone) is None
    assert held(world) == {}
    assert outcome(world, customer(world, ACME, "other")) is None
    assert held(world) == {}
