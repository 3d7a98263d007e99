"""Records about the zone's keys: who may say what, and what is taken for a signed set."""

from __future__ import annotations

import pytest

from services.authority.dnskeys import view
from services.kernel.ids import b64u_encode
from tests.fakes.world import World, key_of
from tests.unit.authority.views_kit import outcome

KSK = key_of("entry point")
ZSKS = sorted(b64u_encode(key_of(f"zone key {number}").public_key) for number in range(3))


def announced(world: World, number: int, text: str | None = None, key=None):
    body = {"key": text or ZSKS[number]}
    return world.signed(key or world.servers[number].key, view.ZSK_KIND, body)


def key_set(world: World, *, by=None, signer=KSK, **changes):
    fields = {
        "ksk": b64u_encode(KSK.public_key),
        "zsks": ZSKS,
        "ttl": 300,
        "inception": 1_800_000_000,
        "expiration": 1_801_000_000,
        "signature": "",
    }
    wire = view.KeysWire(**(fields | changes))
    if not wire.signature:
        apex = view.apex_of(world.folded().state)
        signature = b64u_encode(signer.sign(wire.signed(apex)))
        fields |= changes | {"signature": signature}
    else:
        fields |= changes
    return world.signed(by or world.root, view.KEYS_KIND, fields)


def test_a_server_announces_its_own_key_and_may_change_it() -> None:
    world = World(2)
    for text in (ZSKS[1], ZSKS[2]):
        assert outcome(world, announced(world, 1, text), 1) is None
        assert world.folded().state.get("zsk", world.servers[1].id) == {"key": text}


def test_a_server_announces_no_key_of_another() -> None:
    world = World(2)
    for by in (world.servers[1].key, world.root, key_of("endpoint laptop")):
        assert outcome(world, announced(world, 0, key=by), 0) == "rejected_unauthorised"


@pytest.mark.parametrize("text", ["x", "A" * 42, "=" * 43])
def test_what_is_no_key_is_refused(text: str) -> None:
    world = World(2)
    assert outcome(world, announced(world, 1, text), 1) is not None
    assert world.folded().state.get("zsk", world.servers[1].id) is None


def test_the_root_says_which_keys_the_zone_has() -> None:
    world = World(2)
    assert outcome(world, key_set(world)) is None
    keys = view.keys_in_force(world.folded().state)
    assert keys is not None
    assert keys.zsks == ZSKS
    assert [data[:4].hex() for data in keys.datas] == ["0101030f", *["0100030f"] * 3]


def test_nobody_else_does_with_the_entry_point_in_hand() -> None:
    world = World(2)
    for by in (world.servers[0].key, key_of("endpoint laptop"), KSK):
        assert outcome(world, key_set(world, by=by)) == "rejected_unauthorised"
    assert view.keys_in_force(world.folded().state) is None


def test_a_set_that_its_entry_point_did_not_sign_is_refused() -> None:
    world = World(2)
    assert outcome(world, key_set(world, signer=key_of("another"))) == "sig_invalid"
    signed = key_set(world).body["signature"]
    later = key_set(world, expiration=1_801_000_001, signature=signed)
    assert outcome(world, later) == "sig_invalid"


@pytest.mark.parametrize(
    "changes",
    [
        {"zsks": ZSKS[::-1]},
        {"zsks": [ZSKS[0], ZSKS[0]]},
        {"zsks": []},
        {"zsks": sorted(b64u_encode(key_of(f"k{n}").public_key) for n in range(10))},
        {"zsks": [b64u_encode(KSK.public_key)]},
        {"ttl": 0},
        {"expiration": 1_800_000_000},
        {"expiration": 1_800_000_000 + 61 * 86_400},
        {"signature": "A" * 10},
    ],
)
def test_a_malformed_set_is_refused(changes) -> None:
    world = World(2)
    assert outcome(world, key_set(world, **changes)) is not None
    assert view.keys_in_force(world.folded().state) is None


def test_the_keys_wanted_are_those_of_name_servers_that_count() -> None:
    world = World(3)
    for number in range(3):
        assert outcome(world, announced(world, number), number) is None
    for number in (0, 1):
        claim = world.signed(world.servers[number].key, "dns.claim", {"slot": number + 1})
        assert outcome(world, claim, number) is None
    fold = world.folded()
    assert view.keys_wanted(fold.state, fold.charter) == sorted(ZSKS[:2])
    world.change(world.servers[0], removed=[world.removal(world.servers[1])])
    world.name_roster(world.servers[0])
    fold = world.folded()
    assert view.keys_wanted(fold.state, fold.charter) == [ZSKS[0]]
