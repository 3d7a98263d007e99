"""Two servers find what differs between them in a few datagrams, however many feeds there are."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mesh.facts.envelope import Fact, fact_key
from services.mesh.facts.kinds import ADDRESS
from services.mesh.gossip.codec import MAX_PLAINTEXT_BYTES
from services.mesh.gossip.digests import Holdings
from services.mesh.gossip.messages import (
    MAX_INDEX,
    Buckets,
    Digest,
    FactCounter,
    FactCounters,
    encode_message,
    id_of_raw,
)
from services.mesh.gossip.summary import SetSummary
from tests.fakes.thoroughness import examples
from tests.unit.mesh_gossip.gossip_kit import MESH_ID, Head

KEYS = st.binary(min_size=8, max_size=8)
VALUES = st.one_of(st.none(), st.binary(max_size=8))


def names(count: int) -> list[str]:
    rng = random.Random(count)  # noqa: S311 (failures repeat)
    return [id_of_raw(rng.randbytes(8)) for _ in range(count)]


def holdings(heads: dict[str, Head], servers: list[str] | None = None) -> Holdings:
    one = Holdings(mesh_id=MESH_ID, rng=random.Random(1))  # noqa: S311 (failures repeat)
    names = servers if servers is not None else list(heads)
    one.set_servers(names, names, heads)
    return one


def address(name: str, counter: int) -> Fact:
    return Fact(
        kind=ADDRESS,
        server_id=name,
        key=bytes(32),
        counter=counter,
        issued_ms=0,
        expires_ms=1000,
        payload=b"",
        encoded=b"",
    )


@given(steps=st.lists(st.tuples(KEYS, VALUES), max_size=60), data=st.data())
@examples(100)
def test_equal_sets_have_equal_hashes_however_they_came_about(steps, data):
    last = dict(steps)
    one, other = SetSummary(MESH_ID), SetSummary(MESH_ID)
    for key, value in steps:
        one.put(key, value)
    for key in data.draw(st.permutations(sorted(last))):
        other.put(key, last[key])
    assert (one.total, one.packed) == (other.total, other.packed)
    assert one.differing(other.packed) == []
    for key in last:
        one.remove(key)
    assert one.total == SetSummary(MESH_ID).total


@given(keys=st.lists(KEYS, min_size=1, max_size=60, unique=True), data=st.data())
@examples(100)
def test_what_differs_is_among_the_keys_of_the_differing_buckets(keys, data):
    one, other = SetSummary(MESH_ID), SetSummary(MESH_ID)
    for key in keys:
        one.put(key, b"same")
        other.put(key, b"same")
    changed = data.draw(st.sampled_from(keys))
    other.put(changed, b"more")
    assert one.total != other.total
    assert changed in one.differing(other.packed)
    assert {key[0] % 64 for key in one.differing(other.packed)} == {changed[0] % 64}


def test_a_thousand_feeds_that_agree_cost_one_small_message():
    heads = {name: Head(1, 5, b"r" * 32) for name in names(1000)}
    here, there = holdings(heads), holdings(dict(heads))
    assert len(encode_message(here.summary())) <= 24
    assert there.answer(here.summary(), heads) == []


def test_of_a_thousand_feeds_only_the_part_that_differs_is_told():
    heads = {name: Head(2**32 - 1, MAX_INDEX - 1, b"r" * 32) for name in names(1000)}
    more = dict(heads)
    grown = sorted(heads)[500]
    more[grown] = Head(2**32 - 1, MAX_INDEX, b"s" * 32)
    here, there = holdings(heads), holdings(more)
    (buckets,) = there.answer(here.summary(), more)
    assert isinstance(buckets, Buckets)
    digests = here.answer(buckets, heads)
    assert all(isinstance(one, Digest) and one.asks for one in digests)
    assert all(len(encode_message(one)) <= MAX_PLAINTEXT_BYTES for one in [buckets, *digests])
    told = {id_of_raw(size.server) for digest in digests for size in digest.feeds}
    assert grown in told
    assert len(told) < 40


def test_however_much_differs_at_most_four_datagrams_follow():
    heads = {name: Head(2**32 - 1, MAX_INDEX, b"r" * 32) for name in names(1000)}
    here, there = holdings(heads), holdings({}, servers=list(heads))
    (buckets,) = there.answer(here.summary(), {})
    digests = here.answer(buckets, heads)
    assert len(digests) == 4
    assert all(len(encode_message(one)) <= MAX_PLAINTEXT_BYTES for one in digests)


@pytest.mark.parametrize("count", [3, 500])
def test_the_newer_fact_of_two_is_found_from_either_side(count):
    servers = names(count)
    here, there = holdings({}, servers), holdings({}, servers)
    for name in servers:
        here.fact(address(name, 7), 0)
        there.fact(address(name, 7), 0)
    moved = servers[1]
    there.fact(address(moved, 8), 0)
    for one, other in ((here, there), (there, here)):
        answers = other.answer(one.summary(), {})
        if isinstance(answers[0], Buckets):
            answers = one.answer(answers[0], {})
            one, other = other, one  # noqa: PLW2901 (who answers asks next)
        assert all(isinstance(answer, FactCounters) for answer in answers)
        assert all(len(encode_message(answer)) <= MAX_PLAINTEXT_BYTES for answer in answers)
        sent = [one.compare_facts(answer) for answer in answers]
        newer = {key for keys, _ in sent for key in keys}
        wishes = [wish for _, more in sent for wish in more]
        for wish in wishes:
            keys, back = other.compare_facts(wish)
            assert back == []
            newer |= set(keys)
        assert newer == {fact_key(moved, ADDRESS)}


def test_a_server_that_leaves_the_roster_leaves_the_hashes():
    heads = {name: Head(1, 5, b"r" * 32) for name in names(10)}
    here = holdings(heads)
    here.fact(address(sorted(heads)[0], 3), 0)
    rest = dict(sorted(heads.items())[1:])
    here.set_servers(rest, rest, rest)
    assert here.summary() == holdings(rest).summary()


def test_gos_08_of_a_server_that_was_revoked_the_feed_stays_and_the_facts_go():
    heads = {name: Head(1, 5, b"r" * 32) for name in names(10)}
    here = holdings(heads)
    revoked, *rest = heads
    before = here.summary()
    here.fact(address(revoked, 3), 0)
    here.set_servers(heads, rest, heads)
    assert here.summary() == before
    (told,) = here.compare_facts(
        FactCounters(facts=(FactCounter(key=fact_key(revoked, ADDRESS), counter=9),), asks=True)
    )[1:]
    assert told == []
