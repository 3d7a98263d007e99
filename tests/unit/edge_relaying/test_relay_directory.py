"""The relay directory: which relays are known, offered and told of, and what reports do to them."""

from __future__ import annotations

import uuid

import pytest

from services.edge.relay.tickets import check_signature, parse_ticket
from services.edge.relaying.finding import SUSPENDED_BELOW
from services.edge.relaying.hearing import OWN_VOICE, raw_relay
from services.edge.relaying.offering import LIFETIME_MS, SAME_MS
from services.edge.relaying.service import MIN_TELL_S, OwnRelay
from services.kernel.errors import SeipdError
from services.kernel.ids import node_id_of, parse_wireguard_key, relay_id_of
from services.mesh.facts.kinds import RELAY
from services.mesh.facts.payloads import RelayPayload, RelayVoice, decode_payload
from tests.fakes.relays import RelayMesh, report_on
from tests.fakes.world import key_of

DEAD = {"answered": 0, "silent_s": 60, "latency_ms": 0, "rating": 0}


@pytest.fixture
async def mesh():
    mesh = RelayMesh()
    await mesh.directory.start()
    yield mesh
    await mesh.directory.stop()


def known(mesh: RelayMesh) -> dict[str, str]:
    return {one.relay_id: one.why_not for one in mesh.directory.all()}


async def test_servers_and_registered_relays_are_known(mesh: RelayMesh) -> None:
    customer = mesh.customer("acme")
    relay = mesh.register("relay", customer)
    mesh.refold()
    servers = {relay_id_of(one.key.public_key) for one in mesh.world.servers}
    assert known(mesh).keys() == servers | {relay}
    mesh.write(mesh.world.signed(key_of("relay"), "relay.retire", {"relay": relay}))
    mesh.refold()
    assert known(mesh).keys() == servers


async def test_a_server_without_a_relay_or_an_address_outside_is_none(mesh: RelayMesh) -> None:
    mesh.tell_relay(0, port=0)
    backbone = mesh.world.charter.server(mesh.world.servers[1].id).backbone
    mesh.place(1, backbone)
    mesh.directory.look()
    assert known(mesh) == {}


async def test_a_dead_server_is_not_offered(mesh: RelayMesh) -> None:
    one, other = mesh.endpoint("a"), mesh.endpoint("b")
    mesh.dead.add(mesh.world.servers[0].id)
    mesh.directory.look()
    offers = mesh.offering.offers(one, other)
    assert [offer.relay_id for offer in offers] == [raw(mesh, 1)]


def raw(mesh: RelayMesh, number: int) -> bytes:
    return uuid.UUID(relay_id_of(mesh.world.servers[number].key.public_key)).bytes


async def test_two_endpoints_are_offered_two_relays_with_tickets(mesh: RelayMesh) -> None:
    one, other = mesh.endpoint("a"), mesh.endpoint("b")
    mesh.directory.look()
    offers = mesh.offering.offers(one, other)
    assert {offer.relay_id for offer in offers} == {raw(mesh, 0), raw(mesh, 1)}
    keys = {parse_wireguard_key(mesh.ledger.state.get("tree", node)["wireguard_key"])
            for node in (one, other)}  # fmt: skip
    for offer in offers:
        ticket = parse_ticket(offer.ticket)
        check_signature(ticket, offer.ticket, bytes.fromhex(mesh.world.mesh_id))
        assert {ticket.key_a, ticket.key_b} == keys
        assert (ticket.relay_id, ticket.box_key) == (offer.relay_id, offer.box_key)
        assert ticket.expires_ms == mesh.clock.now_ms() + LIFETIME_MS
        assert offer.host4 in (bytes([198, 51, 100, 10]), bytes([198, 51, 100, 11]))
    assert len({parse_ticket(offer.ticket).nonce for offer in offers}) == 2


async def test_both_ends_that_ask_get_the_same_ticket_for_a_while(mesh: RelayMesh) -> None:
    one, other = mesh.endpoint("a"), mesh.endpoint("b")
    mesh.directory.look()
    first = mesh.offering.offers(one, other)
    assert mesh.offering.offers(other, one) == first
    mesh.clock.s += SAME_MS / 1000
    assert mesh.offering.offers(other, one) != first


async def test_rly_04_who_left_the_mesh_gets_no_ticket(mesh: RelayMesh) -> None:
    one, other = mesh.endpoint("a"), mesh.endpoint("b")
    mesh.directory.look()
    assert mesh.offering.offers(one, other)
    mesh.leave(other)
    assert mesh.offering.offers(one, other) == []
    assert mesh.offering.offers(other, one) == []
    assert mesh.offering.offers(one, one) == []


async def test_excluded_relays_are_not_offered_again(mesh: RelayMesh) -> None:
    one, other = mesh.endpoint("a"), mesh.endpoint("b")
    mesh.directory.look()
    offers = mesh.offering.offers(one, other, [raw(mesh, 0)])
    assert [offer.relay_id for offer in offers] == [raw(mesh, 1)]
    assert mesh.offering.offers(one, other, [raw(mesh, 0), raw(mesh, 1)]) == []


async def ends_of_customers(mesh: RelayMesh, count: int) -> list[tuple[str, str]]:
    made = []
    for number in range(count):
        customer = mesh.customer(f"customer-{number}")
        made.append((f"e{number}", mesh.endpoint(f"e{number}", customer)))
    mesh.endpoint("peer")
    mesh.refold()
    return made


def ticket_for(mesh: RelayMesh, node: str, relay: bytes) -> bytes:
    peer = node_id_of(key_of("endpoint peer").public_key)
    offers = mesh.offering.offers(node, peer)
    return next(offer.ticket for offer in offers if offer.relay_id == relay)


async def test_reports_of_three_customers_suspend_a_relay_and_one_does_not(mesh: RelayMesh) -> None:
    ends = await ends_of_customers(mesh, 3)
    relay_id = relay_id_of(mesh.world.servers[1].key.public_key)
    tickets = [ticket_for(mesh, node, raw(mesh, 1)) for _, node in ends]
    mesh.clock.s += 60
    key = mesh.world.servers[1].key
    for number, ((name, node), ticket) in enumerate(zip(ends, tickets, strict=True)):
        taken = mesh.directory.reports.take(node, report_on(mesh, ticket, name, key, **DEAD))
        assert taken.counts
        mesh.directory.look()
        is_suspended = known(mesh)[relay_id] == "suspended"
        assert is_suspended == (number == 2)
    offers = mesh.offering.offers(ends[0][1], ends[1][1])
    assert [offer.relay_id for offer in offers] == [raw(mesh, 0)]
    assert mesh.directory.voices_count(relay_id) == 3


async def test_rly_10_a_report_without_both_signatures_leaves_the_reputation(mesh) -> None:
    ends = await ends_of_customers(mesh, 3)
    tickets = [ticket_for(mesh, node, raw(mesh, 1)) for _, node in ends]
    mesh.clock.s += 60
    for (name, node), ticket in zip(ends, tickets, strict=True):
        forged = report_on(mesh, ticket, name, key_of("not the relay"), **DEAD)
        with pytest.raises(SeipdError):
            mesh.directory.reports.take(node, forged)
    mesh.directory.look()
    assert set(known(mesh).values()) == {""}
    assert mesh.directory.reports.taken_count == 0
    assert mesh.directory.reports.refused_count == 3


async def test_rly_10_a_ticket_that_no_server_gave_is_no_session(mesh: RelayMesh) -> None:
    ((name, node),) = await ends_of_customers(mesh, 1)
    ticket = bytearray(ticket_for(mesh, node, raw(mesh, 1)))
    ticket[5] ^= 1
    mesh.clock.s += 60
    with pytest.raises(SeipdError):
        mesh.directory.reports.take(
            node, report_on(mesh, bytes(ticket), name, mesh.world.servers[1].key)
        )


async def test_rly_10_what_a_customer_says_of_its_own_relay_does_not_count(mesh) -> None:
    ends = await ends_of_customers(mesh, 1)
    (name, node) = ends[0]
    owner = mesh.ledger.state.get("tree", node)["parent"]
    relay = mesh.register("own relay", owner)
    for number in range(2):
        mesh.tell_relay(number, port=0)
    mesh.refold()
    ticket = ticket_for(mesh, node, uuid.UUID(relay).bytes)
    mesh.clock.s += 60
    said = report_on(mesh, ticket, name, key_of("own relay"))
    taken = mesh.directory.reports.take(node, said)
    assert not taken.counts
    mesh.directory.look()
    assert mesh.directory.voices_count(relay) == 0


async def test_what_other_servers_tell_counts_too(mesh: RelayMesh) -> None:
    more = RelayMesh(4)
    await more.directory.start()
    relay_id = relay_id_of(more.world.servers[1].key.public_key)
    voice = RelayVoice(
        relay=raw_relay(relay_id), voice=OWN_VOICE, uptime=0, delivery=0, evenness=0, rating=None
    )
    for number in (2, 3):
        more.tell_relay(number, voices=[voice])
    more.directory.look()
    assert more.directory.get(relay_id).reputation > SUSPENDED_BELOW
    more.tell_relay(1, voices=[voice])
    more.directory.look()
    assert more.directory.get(relay_id).reputation < SUSPENDED_BELOW
    await more.directory.stop()


async def test_a_server_tells_of_its_relay_and_of_the_voices_that_it_heard(mesh) -> None:
    first = decode_payload(mesh.gossip.published[0][1], RelayPayload)
    assert mesh.gossip.published[0][0] == RELAY
    assert (first.port, first.voices) == (0, ())
    mesh.own = OwnRelay(box=bytes(32), port=9103, host6="", sessions_count=1, load_permille=2)
    mesh.directory.tell()
    assert decode_payload(mesh.gossip.published[1][1], RelayPayload).port == 9103
    ends = await ends_of_customers(mesh, 1)
    (name, node) = ends[0]
    ticket = ticket_for(mesh, node, raw(mesh, 1))
    mesh.clock.s += MIN_TELL_S
    mesh.directory.reports.take(node, report_on(mesh, ticket, name, mesh.world.servers[1].key))
    mesh.directory.look()
    mesh.directory.tell()
    assert len(decode_payload(mesh.gossip.published[2][1], RelayPayload).voices) == 1
    mesh.clock.s += MIN_TELL_S
    mesh.directory.tell()
    assert len(mesh.gossip.published) == 3
