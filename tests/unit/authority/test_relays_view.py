"""Community relays: who puts which into the directory, and whose word on a relay counts."""

from __future__ import annotations

import msgspec
import pytest

from services.authority.relays.introductions import (
    introduced,
    introduction_from_text,
    introduction_of,
)
from services.authority.relays.view import COUNT_VIEW, MAX_RELAYS, relay_in
from services.base.crypto.signatures import generate_signing_key
from services.kernel.errors import InputError, SeipdError
from services.kernel.ids import relay_id_of
from tests.fakes.world import START_MS, World, key_of
from tests.unit.authority.views_kit import ACME, BETA, customer, grant, joined, outcome

KEY = key_of("relay")
RELAY = relay_id_of(KEY.public_key)
BOX = bytes(range(32))


def word(world: World, *, key=KEY, step: int = 0, **other):
    said = {"host": "198.51.100.7", "host6": "2001:db8::7", "port": 9103, "region": "eu-west"}
    return introduced(key, world.mesh_id, box=BOX, now_ms=START_MS + step, **{**said, **other})


def register(world: World, found, *, by=None, owner: str = ACME, **changed):
    body = {
        "relay": found.relay_id,
        "owner": owner,
        "introduction": {**msgspec.structs.asdict(found), **changed},
    }
    return world.signed(by or world.servers[0].key, "relay.register", body)


def retire(world: World, by=None):
    return world.signed(by or world.servers[0].key, "relay.retire", {"relay": RELAY})


def world_with_acme() -> World:
    world = World()
    assert outcome(world, customer(world, ACME, "acme")) is None
    return world


def held(world: World):
    return relay_in(world.folded().state, RELAY)


def test_a_relay_is_registered_moved_and_retired() -> None:
    world = world_with_acme()
    assert outcome(world, register(world, word(world))) is None
    assert held(world)["host"] == "198.51.100.7"
    assert held(world)["owner"] == ACME
    assert outcome(world, register(world, word(world, step=1, host="198.51.100.8"))) is None
    assert held(world)["host"] == "198.51.100.8"
    assert outcome(world, retire(world)) is None
    assert held(world) is None
    assert world.folded().state.get(COUNT_VIEW, ACME) is None
    assert outcome(world, retire(world)) == "rejected_orphan"


def test_it_needs_operate_at_the_owner_and_the_relays_own_key() -> None:
    world = world_with_acme()
    member = key_of("member")
    assert outcome(world, register(world, word(world), by=member)) == "rejected_unauthorised"
    assert outcome(world, register(world, word(world), by=KEY)) == "rejected_unauthorised"
    assert outcome(world, grant(world, member.public_key, "operate", ACME)) is None
    forged = register(world, word(world), by=member, host="198.51.100.9")
    assert outcome(world, forged) == "bad_signature"
    elsewhere = register(world, word(world), by=member, owner=world.root_node)
    assert outcome(world, elsewhere) == "rejected_unauthorised"
    assert outcome(world, register(world, word(world), by=member)) is None


def test_a_relay_tells_of_its_own_new_address_and_leaves_by_its_own_key() -> None:
    world = world_with_acme()
    assert outcome(world, register(world, word(world))) is None
    moved = word(world, step=5, host="198.51.100.77")
    assert outcome(world, register(world, moved, by=KEY)) is None
    assert held(world)["host"] == "198.51.100.77"
    to_root = register(world, word(world, step=6), by=KEY, owner=world.root_node)
    assert outcome(world, to_root) == "rejected_unauthorised"
    assert outcome(world, retire(world, by=key_of("somebody"))) == "rejected_unauthorised"
    assert outcome(world, retire(world, by=KEY)) is None


def test_an_old_word_does_not_come_back() -> None:
    world = world_with_acme()
    first = register(world, word(world))
    assert outcome(world, first) is None
    assert outcome(world, register(world, word(world, step=1, port=9500))) is None
    assert outcome(world, register(world, word(world))) == "stale"
    assert held(world)["port"] == 9500


def test_nobody_takes_anothers_relay() -> None:
    world = world_with_acme()
    assert outcome(world, customer(world, BETA, "beta")) is None
    assert outcome(world, register(world, word(world))) is None
    assert outcome(world, register(world, word(world, step=1), owner=BETA)) == "rejected_scope"
    assert held(world)["owner"] == ACME


def test_another_relays_introduction_or_another_meshs_is_refused() -> None:
    world = world_with_acme()
    other = word(world, key=key_of("other"))
    assert outcome(world, register(world, other, key=word(world).key)) == "bad_key"
    foreign = introduced(
        KEY,
        "ab" * 32,  # type: ignore[arg-type]
        box=BOX,
        host="198.51.100.7",
        host6="",
        port=9103,
        region="eu-west",
        now_ms=START_MS,
    )
    assert outcome(world, register(world, foreign)) == "bad_signature"


@pytest.mark.parametrize(
    "place",
    [
        {"host": "127.0.0.1"},
        {"host": "0.0.0.0"},  # noqa: S104
        {"host": "224.0.0.1"},
        {"host": "169.254.169.254"},
        {"host": "255.255.255.255"},
        {"host": "10.64.0.1"},
        {"host": "172.16.0.20"},
        {"host6": "::1"},
        {"host6": "fe80::1"},
    ],
)
def test_rly_06_no_relay_is_at_an_address_that_means_someone_else(place: dict[str, str]) -> None:
    world = world_with_acme()
    assert outcome(world, register(world, word(world, **place))) == "bad_address"


@pytest.mark.parametrize(
    "place",
    [
        {"host": "", "host6": ""},
        {"host": "198.51.100.07"},
        {"host6": "2001:DB8::7"},
        {"host6": "::ffff:198.51.100.7"},
        {"host6": "64:ff9b::c633:6407"},
        {"host6": "2001:db8::7%eth0"},
        {"host": "relay.example"},
        {"region": "Europe"},
        {"port": 22},
        {"port": 65_400},
        {"box": bytes(32)},
    ],
)
def test_what_a_relay_says_of_itself_has_one_form(place: dict) -> None:
    said = {"host": "198.51.100.7", "host6": "", "port": 9103, "region": "eu-west", "box": BOX}
    with pytest.raises(InputError):
        introduced(KEY, World().mesh_id, now_ms=START_MS, **{**said, **place})


def test_a_private_address_is_for_a_relay_inside_of_a_company() -> None:
    world = world_with_acme()
    assert outcome(world, register(world, word(world, host="192.168.7.7", host6=""))) is None


def test_an_owner_is_a_customer_and_has_so_many() -> None:
    world = world_with_acme()
    endpoint = joined(world)
    assert outcome(world, register(world, word(world), owner=endpoint)) == "rejected_orphan"
    nobody = "00000000-0000-4000-8000-000000000999"
    assert outcome(world, register(world, word(world), owner=nobody)) == "rejected_orphan"
    for _ in range(MAX_RELAYS):
        world.servers[0].hlc = max(one.hlc for one in world.servers)
        world.write(world.servers[0], register(world, word(world, key=generate_signing_key())))
    assert outcome(world, register(world, word(world))) == "too_many"
    assert outcome(world, register(world, word(world), owner=world.root_node)) is None


def test_relays_of_a_customer_end_with_it() -> None:
    world = world_with_acme()
    assert outcome(world, register(world, word(world))) is None
    gone = world.signed(world.servers[0].key, "tree.remove", {"node": ACME})
    assert outcome(world, gone) is None
    assert held(world) is None
    assert outcome(world, customer(world, ACME, "other")) is None
    assert held(world) is None
    assert outcome(world, register(world, word(world))) is None
    assert world.folded().state.get(COUNT_VIEW, ACME)["count"] == 1


def test_an_introduction_is_copied_as_text() -> None:
    found = word(World())
    assert introduction_from_text(found.text()) == found
    assert len(found.text()) < 700
    for text in ("", "relay1.", found.text()[:-1], found.text() + "A", "relay1.e30", "x" * 2000):
        with pytest.raises(SeipdError):
            introduction_from_text(text)
    with pytest.raises(InputError):
        introduction_of({**msgspec.structs.asdict(found), "more": 1})
