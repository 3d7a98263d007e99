"""Which word on the state is agreed on, while the next one is only on its way."""

from __future__ import annotations

import hashlib

from services.base.ledger.ticks import StateWord
from services.kernel.ids import server_id_of
from services.mesh.facts.envelope import sign_envelope
from services.mesh.facts.kinds import LOAD, STATE
from services.mesh.facts.payloads import LoadPayload, encode_payload
from services.mesh.facts.statewords import KEPT_TICKS, WordKeeper, words_of
from tests.fakes.world import START_MS, World


def world_of_three_witnesses() -> World:
    world = World(4)
    world.change(world.servers[0], witnesses=[one.id for one in world.servers[:3]])
    return world


def word(world: World, tick: int, **changes) -> StateWord:
    fields = {
        "time_ms": START_MS + tick * 20_000,
        "roster_number": world.charter.number,
        "roster_hash": bytes.fromhex(world.charter.head),
        "feeds_hash": hashlib.sha256(b"feeds %d" % tick).digest(),
        "root": hashlib.sha256(b"root %d" % tick).digest(),
    }
    return StateWord(**(fields | changes))


def fact(world: World, number: int, one: StateWord):
    return sign_envelope(
        world.servers[number].key,
        bytes.fromhex(world.mesh_id),
        kind=STATE,
        payload=one.encode(),
        counter=one.time_ms,
        now_ms=one.time_ms,
        lifetime_ms=60_000,
    )


def test_the_last_agreed_word_stands_until_the_next_is_agreed_on() -> None:
    world = world_of_three_witnesses()
    keeper = WordKeeper(lambda: world.charter)
    assert keeper.agreed() is None
    first, second = word(world, 1), word(world, 2)
    keeper.learn(fact(world, 0, first))
    assert keeper.agreed() is None
    keeper.learn(fact(world, 2, first))
    keeper.learn(fact(world, 0, second))
    agreed, envelopes = keeper.agreed()
    assert agreed == first
    told = words_of(envelopes, world.mesh_id)
    assert told == {world.servers[0].id: first, world.servers[2].id: first}
    keeper.learn(fact(world, 1, second))
    assert keeper.agreed()[0] == second


def test_who_is_no_witness_or_says_something_else_does_not_count() -> None:
    world = world_of_three_witnesses()
    keeper = WordKeeper(lambda: world.charter)
    keeper.learn(fact(world, 0, word(world, 1)))
    keeper.learn(fact(world, 3, word(world, 1)))
    keeper.learn(fact(world, 1, word(world, 1, root=bytes(32))))
    assert keeper.agreed() is None


def test_only_the_last_few_ticks_are_kept_and_other_facts_left_alone() -> None:
    world = world_of_three_witnesses()
    keeper = WordKeeper(lambda: world.charter)
    for tick in range(1, KEPT_TICKS + 4):
        keeper.learn(fact(world, 0, word(world, tick)))
    keeper.learn(fact(world, 1, word(world, 1)))
    assert keeper.agreed() is None
    keeper.learn(fact(world, 1, word(world, 5)))
    assert keeper.agreed()[0] == word(world, 5)
    load = sign_envelope(
        world.servers[2].key,
        bytes.fromhex(world.mesh_id),
        kind=LOAD,
        payload=encode_payload(LoadPayload(cpu_permille=1, endpoints_count=2, version="1")),
        counter=1,
        now_ms=START_MS,
        lifetime_ms=60_000,
    )
    keeper.learn(load)
    assert keeper.agreed()[0] == word(world, 5)


def test_an_envelope_that_is_not_well_signed_counts_for_nothing() -> None:
    world = world_of_three_witnesses()
    good = fact(world, 0, word(world, 1)).encoded
    assert list(words_of([good], world.mesh_id)) == [server_id_of(world.servers[0].key.public_key)]
    for bad in (good[:-1], bytes([good[0] ^ 1]) + good[1:], b""):
        assert words_of([bad], world.mesh_id) == {}


def test_gos_10_one_witness_with_words_of_the_future_does_not_push_out_the_others() -> None:
    world = world_of_three_witnesses()
    keeper = WordKeeper(lambda: world.charter)
    for number in (0, 1):
        keeper.learn(fact(world, number, word(world, 1)))
    for tick in range(100, 200):
        keeper.learn(fact(world, 2, word(world, tick)))
    assert keeper.agreed()[0] == word(world, 1)
    for number in (0, 1):
        keeper.learn(fact(world, number, word(world, 2)))
    assert keeper.agreed()[0] == word(world, 2)


def test_gos_25_the_word_of_a_server_that_is_no_witness_is_dropped_and_counted() -> None:
    world = world_of_three_witnesses()
    keeper = WordKeeper(lambda: world.charter)
    keeper.learn(fact(world, 0, word(world, 1)))
    keeper.learn(fact(world, 3, word(world, 1)))
    assert keeper.agreed() is None
    assert keeper.refused_count == 1
    # A roster that nobody here knows, or another one of that number, has no witnesses.
    keeper.learn(fact(world, 1, word(world, 1, roster_number=99)))
    keeper.learn(fact(world, 1, word(world, 1, roster_hash=bytes(32))))
    assert keeper.refused_count == 3
    keeper.learn(fact(world, 1, word(world, 1)))
    assert keeper.agreed()[0] == word(world, 1)
