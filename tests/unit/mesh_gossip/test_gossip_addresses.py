"""What is believed of where servers are."""

from __future__ import annotations

from ipaddress import IPv4Address

import msgspec
import pytest

from services.kernel.errors import InputError, SeipdError, WireError
from services.mesh.facts.book import FactBook
from services.mesh.facts.envelope import fact_key
from services.mesh.facts.kinds import ADDRESS
from services.mesh.gossip.addresses import (
    LIFETIME_MS,
    Advertisement,
    decode_fact,
    sign_fact,
)
from services.mesh.gossip.ports import Moment
from tests.unit.mesh_gossip.gossip_kit import MESH_ID, PORT, START_MS, World, id_of, key_of

PLACE = Advertisement(host="203.0.113.5", http_port=9100, wireguard_port=51940, region="eu-west")


def fact_of(name: str, *, counter: int = 1, now_ms: int = START_MS, place=PLACE, mesh=MESH_ID):
    return sign_fact(key_of(name), mesh, place, gossip_port=9102, counter=counter, now_ms=now_ms)


@pytest.fixture
def book() -> FactBook:
    roster = {id_of(name): key_of(name).public_key for name in ("ann", "bob")}
    return FactBook(mesh_id=MESH_ID, key_of=roster.get)


def test_a_fact_tells_what_was_signed():
    fact = decode_fact(fact_of("ann").encoded, MESH_ID)
    assert (fact.server_id, fact.host, fact.gossip_port) == (id_of("ann"), "203.0.113.5", 9102)
    assert (fact.http_port, fact.wireguard_port, fact.region) == (9100, 51940, "eu-west")


def test_gos_01_every_truncation_and_bit_flip_of_a_fact_is_refused(book):
    good = fact_of("ann").encoded
    damaged = [good[:length] for length in range(len(good))]
    for position in range(len(good) * 8):
        changed = bytearray(good)
        changed[position // 8] ^= 1 << position % 8
        damaged.append(bytes(changed))
    for data in damaged:
        with pytest.raises(SeipdError):
            book.learn(data, now_ms=START_MS)
    assert book.all() == ()
    assert book.learn(good, now_ms=START_MS)


def test_gos_10_the_newest_counter_wins_whatever_the_order(book):
    facts = [fact_of("ann", counter=n) for n in (3, 1, 4, 2)]
    news = [book.learn(fact.encoded, now_ms=START_MS) is not None for fact in facts]
    assert news == [True, False, True, False]
    assert book.fact(id_of("ann"), ADDRESS).counter == 4


def test_a_fact_of_a_stranger_or_of_another_mesh_is_refused(book):
    with pytest.raises(WireError):
        book.learn(fact_of("mallory").encoded, now_ms=START_MS)
    with pytest.raises(SeipdError):
        book.learn(fact_of("ann", mesh=bytes(32)).encoded, now_ms=START_MS)


def test_a_fact_holds_from_its_time_until_it_expires(book):
    fact = fact_of("ann").encoded
    with pytest.raises(WireError):
        book.learn(fact, now_ms=START_MS - 301_000)
    with pytest.raises(WireError):
        book.learn(fact, now_ms=START_MS + LIFETIME_MS)
    assert book.learn(fact, now_ms=START_MS + LIFETIME_MS, stored=True)
    assert not book.valid(ADDRESS, START_MS + LIFETIME_MS)
    assert book.fact(id_of("ann"), ADDRESS)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "host.example",
        "224.0.0.1",
        str(IPv4Address(0)),
        "255.255.255.255",
        "1.2.3",
        "::",
        "010.1.1.1",
        "169.254.169.254",
        "fe80::1",
        "::ffff:169.254.169.254",
        "::ffff:224.0.0.1",
        "2002:a9fe:a9fe::",
    ],
)
def test_only_an_address_that_a_host_can_have_is_announced(host):
    place = Advertisement(host=host, http_port=9100, wireguard_port=51940, region="eu-west")
    with pytest.raises(InputError):
        fact_of("ann", place=place)


def test_a_hand_made_fact_with_an_odd_host_or_lifetime_is_refused(book):
    key = key_of("ann")
    for host, issued, expires in [
        ("224.0.0.1", 0, 1),
        ("victim.example", 0, 1),
        ("203.0.113.5", 0, 31 * 86_400_000),
        ("203.0.113.5", 5, 5),
    ]:
        payload = msgspec.msgpack.encode([host, 9102, 9100, 51940, "eu-west"])
        body = msgspec.msgpack.encode([ADDRESS, key.public_key, 9, issued, expires, payload])
        signed = key.sign(b"seipd/fact/v1\0" + MESH_ID + body) + body
        with pytest.raises(WireError):
            book.learn(signed, now_ms=0)


def test_an_own_fact_of_an_earlier_life_is_outdone():
    world = World("ann", "bob")
    ann = world["ann"]
    elsewhere = Advertisement(host="198.51.100.1", http_port=1, wireguard_port=1, region="eu-west")
    later = ann.now().ms + 200_000
    world["bob"].node.learn(
        fact_of("ann", counter=later, place=elsewhere).encoded, world["bob"].now(), stored=True
    )
    world.introduce("bob")
    ann.node.learn(world["bob"].node.directory.address(ann.id).encoded, ann.now())
    world.run(5)
    told = world["bob"].node.directory.address(ann.id)
    assert (told.host, told.counter) == (ann.public[0], later + 1)


def test_an_expired_address_is_kept_as_a_place_to_try_but_told_to_nobody():
    world = World("ann", "bob")
    ann, bob = world["ann"], world["bob"]
    old = fact_of("ann", now_ms=START_MS - LIFETIME_MS)
    bob.node.learn(old.encoded, bob.now(), stored=True)
    directory = bob.node.directory
    assert directory.places(ann.id).public == ("203.0.113.5", 9102)
    assert directory.addresses(START_MS).keys() == {bob.id}
    assert directory.packed([fact_key(ann.id, ADDRESS)], bob.now()) == []
    assert len(directory.packed([fact_key(bob.id, ADDRESS)], bob.now())) == 1


def test_an_own_fact_is_renewed_long_before_it_expires():
    world = World("ann")
    directory = world["ann"].node.directory
    first = directory.address(id_of("ann"))
    directory.renew(Moment(0.0, START_MS + 3_600_000))
    assert directory.address(id_of("ann")) == first
    directory.renew(Moment(0.0, START_MS + 90_000_000))
    assert directory.address(id_of("ann")).expires_ms > first.expires_ms


def hears(world, who: str, host: str) -> str:
    """Let a server say that it is somewhere; return where bob believes it to be."""
    speaker = world[who]
    place = Advertisement(host=host, http_port=9100, wireguard_port=51940, region="eu-west")
    speaker.run(speaker.node.announce(place, PORT, speaker.now()))
    world.run(5)
    return world["bob"].node.directory.address(speaker.id).host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "172.16.0.1", "172.16.0.200"])
def test_gos_11_pub_20_nobody_sends_to_itself_or_into_the_mesh_on_a_servers_word(host):
    world = World("ann", "bob", "liar")
    world.introduce("ann")
    world.run(3)
    bob = world["bob"]
    before = bob.node.counters.snapshot()["bad_fact"]
    assert hears(world, "liar", host) == world["liar"].public[0]
    assert bob.node.counters.snapshot()["bad_fact"] > before


def test_gos_11_pub_20_a_server_that_claims_our_own_address_is_not_greeted_there():
    world = World("ann", "bob", "liar")
    world.introduce("ann")
    world.run(3)
    assert hears(world, "liar", world["bob"].public[0]) == world["bob"].public[0]
    assert world["bob"].node.directory.places(id_of("liar")).public is None


def test_a_hidden_server_tells_its_backbone_address_and_is_reached_there_alone():
    world = World("ann", "bob", "hidden", backbone=True)
    world.introduce("ann")
    world.run(3)
    backbone = world["hidden"].backbone
    assert hears(world, "hidden", backbone[0]) == backbone[0]
    places = world["bob"].node.directory.places(id_of("hidden"))
    assert (places.public, places.backbone) == (None, backbone)
