"""An operator's DNS records: who may set which, at which names."""

from __future__ import annotations

import pytest

from services.authority.dnsnames.view import full_name
from services.kernel.errors import InputError
from tests.fakes.world import World, key_of
from tests.unit.authority.views_kit import grant, outcome

DOMAIN = "mesh.internal"


def said(world: World, name: str, rtype: str, *values: str, by=None, ttl: int = 300, **more):
    body = {"name": name, "type": rtype, "ttl": ttl, "values": list(values), **more}
    return world.signed(by or world.servers[0].key, "dns.set", body)


def removed(world: World, name: str, rtype: str, by=None):
    return world.signed(by or world.servers[0].key, "dns.rm", {"name": name, "type": rtype})


def held(world: World, name: str):
    return world.folded().state.get("dns", name)


def test_a_server_sets_replaces_and_removes_records() -> None:
    world = World()
    name = f"www.{DOMAIN}"
    assert outcome(world, said(world, name, "A", "192.0.2.1")) is None
    assert outcome(world, said(world, name, "A", "192.0.2.2", "192.0.2.3", ttl=60), 1) is None
    assert outcome(world, said(world, name, "TXT", "hello")) is None
    sets = held(world, name)
    assert sets["A"]["values"] == ["192.0.2.2", "192.0.2.3"]
    assert sets["A"]["ttl"] == 60
    assert set(sets) == {"A", "TXT"}
    assert outcome(world, removed(world, name, "A")) is None
    assert set(held(world, name)) == {"TXT"}
    assert outcome(world, removed(world, name, "TXT")) is None
    assert held(world, name) is None
    assert outcome(world, removed(world, name, "TXT")) == "rejected_orphan"


def test_a_member_needs_operate_at_the_root() -> None:
    world = World()
    member = key_of("member")
    record = said(world, f"www.{DOMAIN}", "A", "192.0.2.1", by=member)
    assert outcome(world, record) == "rejected_unauthorised"
    assert outcome(world, grant(world, member.public_key, "read")) is None
    record = said(world, f"www.{DOMAIN}", "A", "192.0.2.1", by=member)
    assert outcome(world, record) == "rejected_unauthorised"
    assert outcome(world, grant(world, member.public_key, "operate")) is None
    assert outcome(world, said(world, f"www.{DOMAIN}", "A", "192.0.2.1", by=member)) is None
    assert outcome(world, removed(world, f"www.{DOMAIN}", "A", key_of("other"))) == (
        "rejected_unauthorised"
    )


@pytest.mark.parametrize(
    "name",
    [
        f"seip.{DOMAIN}", f"x.seip.{DOMAIN}", f"ep.{DOMAIN}", f"pc.default.ep.{DOMAIN}",
        f"ns1.{DOMAIN}", f"ns9.{DOMAIN}", f"a.ns3.{DOMAIN}", "www.example.org", "internal",
        f"WWW.{DOMAIN}", f"-a.{DOMAIN}", f"a..{DOMAIN}", f"*.{DOMAIN}", f"www.{DOMAIN}.",
        f"{'a' * 64}.{DOMAIN}", ".".join(["a" * 60] * 4) + f".{DOMAIN}", f".{DOMAIN}", "",
        f"ä.{DOMAIN}", f"x{DOMAIN}",
    ],
)  # fmt: skip
def test_names_of_the_mesh_and_what_are_no_names_are_refused(name: str) -> None:
    world = World()
    assert outcome(world, said(world, name, "A", "192.0.2.1")) == "bad_name"


@pytest.mark.parametrize("name", ["ns10", "_acme-challenge.www", "a.b.c", "seips", "_sip._tcp"])
def test_other_names_may_be_set(name: str) -> None:
    world = World()
    assert outcome(world, said(world, f"{name}.{DOMAIN}", "TXT", "text")) is None


def test_the_domain_itself_has_records_but_no_alias() -> None:
    world = World()
    assert outcome(world, said(world, DOMAIN, "MX", "10 mail.example.org")) is None
    assert outcome(world, said(world, DOMAIN, "CAA", '0 issue "ca.example"')) is None
    assert outcome(world, said(world, DOMAIN, "CNAME", "www.example.org")) == "bad_record"


def test_an_alias_stands_alone() -> None:
    world = World()
    name = f"www.{DOMAIN}"
    assert outcome(world, said(world, name, "CNAME", "a.example", "b.example")) == "bad_record"
    assert outcome(world, said(world, name, "CNAME", "a.example")) is None
    assert outcome(world, said(world, name, "A", "192.0.2.1")) == "alias_not_alone"
    assert outcome(world, said(world, name, "CNAME", "b.example")) is None
    other = f"two.{DOMAIN}"
    assert outcome(world, said(world, other, "A", "192.0.2.1")) is None
    assert outcome(world, said(world, other, "CNAME", "a.example")) == "alias_not_alone"


@pytest.mark.parametrize(
    ("rtype", "value", "why"),
    [
        ("A", "192.0.2.256", "bad_record"),
        ("A", "192.0.2.01", "bad_record"),
        ("A", "2001:db8::1", "bad_record"),
        ("AAAA", "192.0.2.1", "bad_record"),
        ("AAAA", "fe80::1%eth0", "bad_record"),
        ("CNAME", ".", "bad_record"),
        ("CNAME", "a..b", "bad_record"),
        ("MX", "mail.example.org", "bad_record"),
        ("MX", "65536 mail.example.org", "bad_record"),
        ("MX", "-1 mail.example.org", "bad_record"),
        ("SRV", "1 2 mail.example.org", "bad_record"),
        ("CAA", "256 issue x", "bad_record"),
        ("CAA", "0 Issue x", "bad_record"),
        ("CAA", "0 issue é", "bad_record"),
        ("CAA", "0 issue", "bad_record"),
        ("TXT", "a\nb", "bad_record"),
        ("NS", "ns.example.org", "bad_type"),
        ("SOA", "x", "bad_type"),
        ("a", "192.0.2.1", "bad_type"),
        ("TXT", "x" * 5000, "bad_field"),
    ],
)
def test_what_is_no_record_is_refused(rtype: str, value: str, why: str) -> None:
    world = World()
    assert outcome(world, said(world, f"www.{DOMAIN}", rtype, value)) == why
    assert held(world, f"www.{DOMAIN}") is None


def test_bodies_of_another_shape_are_refused() -> None:
    world = World()
    name = f"www.{DOMAIN}"
    for record in (
        said(world, name, "A"),
        said(world, name, "A", *(f"192.0.2.{n}" for n in range(17))),
        said(world, name, "A", "192.0.2.1", "192.0.2.1"),
        said(world, name, "A", "192.0.2.1", ttl=0),
        said(world, name, "A", "192.0.2.1", ttl=86_401),
        said(world, name, "A", "192.0.2.1", extra=1),
        world.signed(world.servers[0].key, "dns.rm", {"name": name}),
    ):
        assert outcome(world, record) in ("bad_field", "bad_record")


def test_a_name_may_be_said_short_or_in_full() -> None:
    for text in ("www", "WWW", f"www.{DOMAIN}", f"www.{DOMAIN}."):
        assert full_name(text, DOMAIN) == f"www.{DOMAIN}"
    for text in ("@", DOMAIN, f"{DOMAIN}."):
        assert full_name(text, DOMAIN) == DOMAIN
    with pytest.raises(InputError):
        full_name("x.seip", DOMAIN)
