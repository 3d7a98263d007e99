"""The zone's contents: of the ledger, of what gossip heard, and right after each change."""

from __future__ import annotations

from ipaddress import IPv4Address
from types import SimpleNamespace

import dnslib
import pytest

from services.edge.dns.answering import Answerer, Soa
from services.edge.dns.cookies import Cookies
from services.edge.dns.innernames import reverse_apexes
from services.edge.dns.publishing import Publisher
from services.edge.dns.ratelimiting import ResponseRates
from services.kernel.addr import default_ranges, tunnel6
from services.kernel.dnsnames import name_of, text_of
from services.kernel.ids import node_id_of
from services.mesh.facts.kinds import ADDRESS6, LOAD, PORTS
from services.mesh.facts.payloads import (
    Address6Payload,
    LoadPayload,
    PortsPayload,
    encode_payload,
)
from services.mesh.membership.states import State
from tests.fakes.world import World, key_of
from tests.unit.authority.views_kit import customer, joined, outcome
from tests.unit.edge_dns.dns_kit import INSIDE, NOW_S, STREAM, datas

DOMAIN = "mesh.internal"
REGION = "eu-central"
ACME = "00000000-0000-4000-8000-000000000101"
SUB = "00000000-0000-4000-8000-000000000102"


class Heard:
    """What gossip would know."""

    def __init__(self, world: World) -> None:
        self.places = {
            one.id: SimpleNamespace(
                host=f"198.51.100.{number + 1}", http_port=9100, wireguard_port=51940,
                gossip_port=9102,
            )
            for number, one in enumerate(world.servers)
        }  # fmt: skip
        self.states = {one.id: State.ALIVE for one in world.servers[1:]}
        load = LoadPayload(cpu_permille=123, endpoints_count=1, version="1.0")
        ports = PortsPayload(private_http=9101, stun=3478, relay=0, dns=53, hole_punch=51941)
        self.said = {
            LOAD: {world.servers[0].id: SimpleNamespace(payload=encode_payload(load))},
            PORTS: {world.servers[0].id: SimpleNamespace(payload=encode_payload(ports))},
            ADDRESS6: {},
        }

    def move(self, server_id: str, host: str) -> None:
        self.places[server_id] = SimpleNamespace(**{**vars(self.places[server_id]), "host": host})

    def tell6(self, server_id: str, host: str) -> None:
        payload = encode_payload(Address6Payload(host=host))
        self.said[ADDRESS6] = {server_id: SimpleNamespace(payload=payload)}

    def addresses(self):
        return self.places

    def facts(self, kind: int):
        return self.said[kind]

    def peers(self):
        return [SimpleNamespace(server_id=name, state=one) for name, one in self.states.items()]


class LedgerOfWorld:
    """A ledger whose records a test writes; tells subscribers what changed, as the real one."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.server_id = world.servers[0].id
        self.mesh_id = world.mesh_id
        self.subscribers = []
        self.refold()

    def refold(self) -> None:
        self.fold = self.world.folded()

    @property
    def state(self):
        return self.fold.state

    @property
    def charter(self):
        return self.fold.charter

    def subscribe(self, views, subscriber) -> None:
        self.subscribers.append((views, subscriber))

    def write(self, record, number: int = 0) -> None:
        before = {(view, key): value for view, key, value in everything(self.state)}
        assert outcome(self.world, record, number) is None
        self.changed(before)

    def changed(self, before) -> None:
        self.refold()
        after = {(view, key): value for view, key, value in everything(self.state)}
        changes = [
            SimpleNamespace(
                view=view, key=key, old=before.get((view, key)), new=after.get((view, key))
            )
            for view, key in before.keys() | after.keys()
            if before.get((view, key)) != after.get((view, key))
        ]
        for views, subscriber in self.subscribers:
            if wanted := [one for one in changes if one.view in views]:
                subscriber(wanted)


def everything(state):
    views = ("tree", "name", "ipam", "dns", "ns", "trust", "mesh", "kids", "wg")
    return [row for view in views for row in state.scan(view)]


class Mesh:
    """A publisher over a world, and an answerer that is asked."""

    def __init__(self, server_count: int = 3) -> None:
        self.world = World(server_count)
        self.ledger = LedgerOfWorld(self.world)
        self.heard = Heard(self.world)
        self.challenges: dict[str, tuple[str, ...]] = {}
        self.moved = 0
        self.publisher = Publisher(
            ledger=self.ledger,
            gossip=self.heard,
            mesh_id=self.world.mesh_id,
            ranges=default_ranges(),
            domain=DOMAIN,
            challenges=lambda: self.challenges,
            moved=self.on_moved,
        )
        self.answerer = Answerer(
            zones=self.publisher.zones(),
            soa=Soa(mname=name_of(f"ns1.{DOMAIN}"), rname=name_of(f"hostmaster.{DOMAIN}")),
            serial=lambda: self.moved,
            cookies=Cookies(bytes, now_s=NOW_S),
            rates=ResponseRates(per_second=0),
        )
        self.publisher.begin(self.answerer)

    def on_moved(self) -> None:
        self.moved += 1

    def name(self, number: int) -> str:
        return f"{self.world.servers[number].id}.{REGION}.seip.{DOMAIN}"

    def ask(self, name: str, rtype: str = "A", asker=INSIDE) -> dnslib.DNSRecord:
        asked = bytes(dnslib.DNSRecord.question(name, rtype).pack())
        quick = self.answerer.quick(asked, asker.network, inside=asker.inside, now_s=0.0)
        answer = quick or self.answerer.answer(asked, asker, now_s=0.0, clock_s=NOW_S)
        assert answer is not None
        return dnslib.DNSRecord.parse(answer)

    def data(self, name: str, rtype: str = "A", asker=INSIDE) -> set[str]:
        return datas(self.ask(name, rtype, asker))


@pytest.fixture
def mesh() -> Mesh:
    made = Mesh()
    region = made.ledger.charter.server(made.world.servers[0].id).region
    assert region == REGION
    return made


def test_every_name_of_a_server(mesh: Mesh) -> None:
    certificate = mesh.ledger.charter.server(mesh.world.servers[0].id)
    name = mesh.name(0)
    assert mesh.data(name, asker=STREAM) == {"198.51.100.1"}
    assert mesh.data(f"backend.{name}", asker=STREAM) == {certificate.backbone}
    assert mesh.data(f"private.{name}", asker=STREAM) == {"10.64.0.2"}
    kin = tunnel6(mesh.world.mesh_id, IPv4Address("10.64.0.2"))
    assert mesh.data(f"private.{name}", "AAAA") == {str(kin)}
    ports = "http=9100 udp=51940 gossip=9102 stun=3478 dns=53 private_http=9101"
    config = f'"v=sp1 {ports} region={REGION} load=1 host={name}"'
    assert mesh.data(f"_config.{name}", "TXT", STREAM) == {config}
    assert mesh.data("2.0.64.10.in-addr.arpa", "PTR") == {f"private.{name}."}
    assert mesh.data(kin.reverse_pointer, "PTR") == {f"private.{name}."}


def test_a_region_has_its_healthy_servers_and_follows_them(mesh: Mesh) -> None:
    region = f"{REGION}.seip.{DOMAIN}"
    assert mesh.data(region) == {"198.51.100.1", "198.51.100.2", "198.51.100.3"}
    dead = mesh.world.servers[1].id
    for state in (State.DEAD, State.SUSPECT, State.UNKNOWN):
        mesh.heard.states[dead] = state
        mesh.publisher.look_over()
        assert mesh.data(region) == {"198.51.100.1", "198.51.100.3"}
        assert mesh.data(mesh.name(1)) == {"198.51.100.2"}
    mesh.heard.states[dead] = State.ALIVE
    mesh.heard.move(dead, "2001:db8::2")
    mesh.publisher.look_over()
    assert mesh.data(region) == {"198.51.100.1", "198.51.100.3"}
    assert mesh.data(region, "AAAA") == {"2001:db8::2"}


def test_a_server_that_tells_an_ipv6_address_beside_has_both(mesh: Mesh) -> None:
    both = mesh.world.servers[1]
    mesh.heard.tell6(both.id, "2001:db8::b")
    mesh.publisher.look_over()
    assert mesh.data(mesh.name(1)) == {"198.51.100.2"}
    assert mesh.data(mesh.name(1), "AAAA") == {"2001:db8::b"}
    assert mesh.data(f"{REGION}.seip.{DOMAIN}", "AAAA") == {"2001:db8::b"}
    inside = str(tunnel6(mesh.world.mesh_id, IPv4Address("10.64.0.2")))
    mesh.heard.tell6(both.id, inside)
    mesh.publisher.look_over()
    assert mesh.data(mesh.name(1), "AAAA") == set()


def test_a_server_without_a_public_address_has_no_public_record(mesh: Mesh) -> None:
    hidden = mesh.world.servers[1]
    mesh.heard.move(hidden.id, mesh.ledger.charter.server(hidden.id).backbone)
    mesh.publisher.look_over()
    assert mesh.data(f"{REGION}.seip.{DOMAIN}") == {"198.51.100.1", "198.51.100.3"}
    assert mesh.ask(mesh.name(1)).header.rcode == 0
    assert mesh.data(mesh.name(1)) == set()
    assert len(mesh.data(f"private.{mesh.name(1)}")) == 1


def test_a_server_that_is_removed_or_lied_has_no_name(mesh: Mesh) -> None:
    gone = mesh.world.servers[2]
    for view, subscriber in mesh.ledger.subscribers:
        if view == ["trust"]:
            change = SimpleNamespace(view="trust", key=gone.id, old=None, new={"why": "lied"})
            subscriber([change])
    for name in (mesh.name(2), f"private.{mesh.name(2)}", f"_config.{mesh.name(2)}"):
        assert mesh.ask(name, "ANY").header.rcode == 3
    assert mesh.data(f"{REGION}.seip.{DOMAIN}") == {"198.51.100.1", "198.51.100.2"}
    certificate = mesh.ledger.charter.server(gone.id)
    reverse = IPv4Address(certificate.backbone).reverse_pointer
    assert mesh.ask(reverse, "PTR").header.rcode == 3


def test_a_server_that_says_something_else_changes_alone(mesh: Mesh) -> None:
    told: list[bytes] = []
    forget = mesh.answerer.changed
    mesh.answerer.changed = lambda name: (told.append(name), forget(name))
    mesh.publisher.look_over()
    assert told == []
    load = LoadPayload(cpu_permille=870, endpoints_count=1, version="1.0")
    mesh.heard.said[LOAD] = {
        mesh.world.servers[1].id: SimpleNamespace(payload=encode_payload(load))
    }
    mesh.publisher.look_over()
    assert {text_of(one) for one in told} == {f"_config.{mesh.name(n)}" for n in (0, 1)}
    assert "load=9 " in str(mesh.data(f"_config.{mesh.name(1)}", "TXT", STREAM))


def test_slots_are_names_with_glue_and_a_removed_server_is_gone(mesh: Mesh) -> None:
    for number in (0, 1):
        server = mesh.world.servers[number]
        mesh.ledger.write(mesh.world.signed(server.key, "dns.claim", {"slot": number + 1}), number)
    record = mesh.ask(DOMAIN, "NS", STREAM)
    assert datas(record) == {f"ns1.{DOMAIN}.", f"ns2.{DOMAIN}."}
    assert {str(one.rdata) for one in record.ar} == {"198.51.100.1", "198.51.100.2"}
    assert mesh.data(f"ns2.{DOMAIN}", asker=STREAM) == {"198.51.100.2"}
    assert mesh.ask(f"ns3.{DOMAIN}").header.rcode == 3
    hidden = mesh.world.servers[1].id
    mesh.heard.move(hidden, mesh.ledger.charter.server(hidden).backbone)
    mesh.publisher.look_over()
    assert mesh.data(DOMAIN, "NS", STREAM) == {f"ns1.{DOMAIN}."}


def test_the_apex_names_the_cas_until_an_operator_names_others(mesh: Mesh) -> None:
    assert mesh.data(DOMAIN, "CAA") == {'0 issue "letsencrypt.org"', '0 issue "sectigo.com"'}
    body = {"name": DOMAIN, "type": "CAA", "ttl": 60, "values": ['0 issue "ca.example"']}
    mesh.ledger.write(mesh.world.signed(mesh.world.servers[0].key, "dns.set", body))
    assert mesh.data(DOMAIN, "CAA") == {'0 issue "ca.example"'}
    gone = {"name": DOMAIN, "type": "CAA"}
    mesh.ledger.write(mesh.world.signed(mesh.world.servers[0].key, "dns.rm", gone))
    assert "sectigo.com" in str(mesh.data(DOMAIN, "CAA"))


def test_an_operators_records_are_right_at_the_next_question(mesh: Mesh) -> None:
    name, key = f"www.{DOMAIN}", mesh.world.servers[0].key
    assert mesh.ask(name).header.rcode == 3
    for number in range(1, 5):
        before = mesh.moved
        body = {"name": name, "type": "A", "ttl": 60, "values": [f"192.0.2.{number}"]}
        mesh.ledger.write(mesh.world.signed(key, "dns.set", body))
        for asker in (INSIDE, STREAM):
            assert mesh.data(name, asker=asker) == {f"192.0.2.{number}"}
        assert mesh.moved > before
    mesh.ledger.write(mesh.world.signed(key, "dns.rm", {"name": name, "type": "A"}))
    assert mesh.ask(name).header.rcode == 3


def test_an_endpoint_has_its_names_from_its_address_to_its_end(mesh: Mesh) -> None:
    before = {(view, key): value for view, key, value in everything(mesh.ledger.state)}
    node = joined(mesh.world, "pc")
    mesh.ledger.changed(before)
    world, key = mesh.world, mesh.world.servers[0].key
    held = mesh.ledger.state.get("tree", node)
    above = mesh.ledger.state.get("tree", held["parent"])["name"]
    names = [f"{held['name']}.{above}.ep.{DOMAIN}", f"private.{node}.ep.{DOMAIN}"]
    for name in names:
        assert mesh.ask(name).header.rcode == 0
        assert mesh.data(name) == ({held["address"]} if "address" in held else set())
    if "address" not in held:
        mesh.ledger.write(world.assign(world.servers[0], "pc", "10.64.0.10"))
        held = mesh.ledger.state.get("tree", node)
    address = held["address"]
    for name in names:
        assert mesh.data(name) == {address}
        assert mesh.ask(name, asker=STREAM).header.rcode == 3
    reverse = IPv4Address(address).reverse_pointer
    assert mesh.data(reverse, "PTR") == {f"{names[0]}."}
    kin = tunnel6(world.mesh_id, IPv4Address(address))
    assert mesh.data(kin.reverse_pointer, "PTR") == {f"{names[0]}."}
    assert mesh.data(names[0], "AAAA") == {str(kin)}
    mesh.ledger.write(world.signed(key, "tree.rename", {"node": node, "name": "desk"}))
    assert mesh.ask(names[0]).header.rcode == 3
    assert mesh.data(f"desk.{above}.ep.{DOMAIN}") == {address}
    assert mesh.data(reverse, "PTR") == {f"desk.{above}.ep.{DOMAIN}."}
    mesh.ledger.write(world.signed(key, "ipam.release", {"node": node}))
    assert mesh.data(names[1]) == set()
    assert mesh.ask(reverse, "PTR").header.rcode == 3
    mesh.ledger.write(world.signed(key, "tree.remove", {"node": node}))
    assert mesh.ask(names[1]).header.rcode == 3
    assert node == node_id_of(key_of("endpoint pc").public_key)


def test_customers_below_customers_have_longer_names_and_move_with_them(mesh: Mesh) -> None:
    before = {(view, key): value for view, key, value in everything(mesh.ledger.state)}
    node = joined(mesh.world, "pc")
    mesh.ledger.changed(before)
    held = mesh.ledger.state.get("tree", node)
    if "address" not in held:
        mesh.ledger.write(mesh.world.assign(mesh.world.servers[0], "pc", "10.64.0.10"))
    address = mesh.ledger.state.get("tree", node)["address"]
    name = mesh.ledger.state.get("tree", held["parent"])["name"]
    assert mesh.data(f"{held['name']}.{name}.ep.{DOMAIN}") == {address}
    mesh.ledger.write(customer(mesh.world, ACME, "acme"))
    key = mesh.world.servers[0].key
    mesh.ledger.write(mesh.world.signed(key, "tree.move", {"node": held["parent"], "parent": ACME}))
    assert mesh.ask(f"{held['name']}.{name}.ep.{DOMAIN}").header.rcode == 3
    assert mesh.data(f"{held['name']}.{name}.acme.ep.{DOMAIN}") == {address}
    assert mesh.ask(f"{name}.acme.ep.{DOMAIN}").header.rcode == 0
    assert mesh.ask(f"ep.{DOMAIN}").header.rcode == 0


def test_a_challenge_is_there_while_an_order_is_open(mesh: Mesh) -> None:
    name = f"_acme-challenge.{mesh.name(0)}"
    mesh.challenges = {name: ("one", "two")}
    mesh.publisher.look_over()
    assert mesh.data(name, "TXT", STREAM) == {'"one"', '"two"'}
    mesh.challenges = {}
    mesh.publisher.look_over()
    assert mesh.ask(name, "TXT", STREAM).header.rcode == 3
    assert mesh.data(mesh.name(0)) == {"198.51.100.1"}


@pytest.mark.parametrize(
    "name",
    [
        "256.0.64.10.in-addr.arpa", "01.0.64.10.in-addr.arpa", "1.2.0.64.10.in-addr.arpa",
        "²2.0.64.10.in-addr.arpa", "99.99.64.10.in-addr.arpa", "a.0.64.10.in-addr.arpa",
    ],
)  # fmt: skip
def test_what_is_no_reverse_name_of_anybody_is_not_there(mesh: Mesh, name: str) -> None:
    wire = b"".join(bytes([len(one)]) + one for one in map(utf8, name.split("."))) + b"\0"
    asked = b"\0\1\0\0\0\1\0\0\0\0\0\0" + wire + b"\0\x0c\0\1"
    answer = mesh.answerer.answer(asked, INSIDE, now_s=0.0, clock_s=NOW_S)
    assert answer is not None
    assert answer[3] & 0xF == 3


def utf8(text: str) -> bytes:
    return text.encode("latin-1")


def test_odd_names_below_ep_and_in_reverse_six_are_not_there(mesh: Mesh) -> None:
    apex = name_of(f"ep.{DOMAIN}")
    six = reverse_apexes(mesh.world.mesh_id, default_ranges())[-1]
    for wire in (
        b"\2\xff\xfe" + apex,
        b"\1." + apex,
        b"\1a" * 60 + apex,
        b"\1g" + six,
        b"\2ff" + six,
        b"\1f" * 21 + six,
        b"\1f" * 20 + six,
    ):
        asked = b"\0\1\0\0\0\1\0\0\0\0\0\0" + wire + b"\0\x01\0\1"
        answer = mesh.answerer.answer(asked, INSIDE, now_s=0.0, clock_s=NOW_S)
        assert answer is not None
        assert answer[3] & 0xF == 3
