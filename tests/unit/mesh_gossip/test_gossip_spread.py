"""Whom news is told at once, and that nobody is left out or told twice for nothing."""

from __future__ import annotations

import random

import pytest

from services.mesh.facts.kinds import LOAD
from services.mesh.facts.payloads import LoadPayload, encode_payload
from services.mesh.gossip.counters import Count, Counters
from services.mesh.gossip.messages import MAX_INDEX, Entries, id_of_raw, raw_id
from services.mesh.gossip.node import FACT_PEERS, NEWS_PEERS
from services.mesh.gossip.replication import MAX_PULLS_A_PEER, NEWS_TIMEOUT_S, Replicator
from services.mesh.membership.states import State
from tests.unit.mesh_gossip.gossip_kit import Feed, Head, World, id_of, note_of

NAMES = [f"s{number}" for number in range(24)]
ONE_WAY_S = 0.006
FEED = id_of_raw(bytes(range(8)))


@pytest.fixture
def world() -> World:
    world = World(*NAMES)
    world.introduce()
    world.run(5)
    return world


def circle_after(name: str) -> list[str]:
    """Return the names of all others as they follow in the circle of ids."""
    circle = sorted(NAMES, key=id_of)
    at = circle.index(name)
    return circle[at + 1 :] + circle[:at]


def holders(world: World, author: str, count: int) -> set[str]:
    """Return who holds so many entries of an author."""
    held = {
        name: host.ledger.contents().get(id_of(author), ()) for name, host in world.hosts.items()
    }
    return {name for name, entries in held.items() if len(entries) >= count} - {author}


@pytest.mark.slow
def test_the_next_two_of_the_circle_are_told_at_once_and_the_others_by_chance(world):
    following = circle_after("s0")
    told_by_chance = set()
    for count in range(1, 11):
        world["s0"].append(b"news")
        world.run(ONE_WAY_S)
        told = holders(world, "s0", count)
        assert len(told) == NEWS_PEERS
        assert told >= set(following[:2])
        told_by_chance |= told
        world.run(1.0)
    assert len(told_by_chance) > 2 * NEWS_PEERS


@pytest.mark.slow
def test_where_the_next_of_the_circle_is_dead_the_one_after_it_is_told(world):
    following = circle_after("s0")
    world.partition(following[0])
    world.run_until(
        lambda: world["s0"].node.membership.state(id_of(following[0])) is State.DEAD,
        at_most_s=60,
    )
    world.run(2)
    world["s0"].append(b"news")
    world.run(ONE_WAY_S)
    assert holders(world, "s0", 1) >= set(following[1:3])


def test_a_fact_is_told_the_next_of_the_circle_and_one_by_chance(world):
    following = circle_after("s0")
    payload = encode_payload(LoadPayload(cpu_permille=7, endpoints_count=1, version="1"))
    server = world["s0"]
    server.run(server.node.publish(LOAD, payload, 60_000, server.now()))
    world.run(ONE_WAY_S)
    told = {
        name for name, host in world.hosts.items() if host.node.directory.book.fact(server.id, LOAD)
    } - {"s0"}
    assert len(told) == FACT_PEERS
    assert following[0] in told
    world.run(1.5)
    assert all(one.node.directory.book.fact(server.id, LOAD) for one in world.hosts.values())


def test_whoever_told_it_is_not_told():
    world = World("ann", "bob")
    world.introduce()
    world.run(2.05)
    world["ann"].append(b"news")
    before = len(world.sent)
    world.run(ONE_WAY_S)
    assert holders(world, "ann", 1) == {"bob"}
    assert [sender for sender, _, _ in world.sent[before:] if sender == "bob"] == []


def quiet_replicator() -> Replicator:
    return Replicator(
        rng=random.Random(1),  # noqa: S311 (failures repeat)
        counters=Counters(),
        usable=lambda _: True,
        own_id="server-ffffffffffffffff",
    )


def part(start: int, *given: bytes, size: int, note=None, last=False, feed=FEED) -> Entries:
    return Entries(
        server=raw_id(feed),
        epoch=1,
        start=start,
        size=size,
        entries=given,
        checkpoint=note,
        last=last,
    )


def test_only_who_knows_all_of_it_need_not_be_told():
    replicator = quiet_replicator()
    replicator.offered("bob", FEED, 1, 5, Head(1, 4))
    replicator.offered("cid", FEED, 1, 6, Head(1, 4))
    assert replicator.holders(FEED, Head(1, 6)) == {"cid"}
    assert replicator.holders(FEED, Head(1, 5)) == {"bob", "cid"}
    replicator.stored(FEED, Head(1, 6), 0.1)
    assert replicator.holders(FEED, Head(1, 6)) == set()


@pytest.mark.slow
def test_news_of_two_datagrams_is_told_whole_and_asked_for_by_nobody(world):
    world["s0"].append(b"a" * 900, b"b" * 900)
    world.run(0.2)
    assert len(holders(world, "s0", 2)) == len(NAMES) - 1
    assert sum(host.node.counters[Count.PULLS_SENT] for host in world.hosts.values()) == 0


def test_where_a_part_of_news_is_lost_that_part_is_asked_for_at_once():
    replicator = quiet_replicator()
    head = Head(1, 4)
    assert replicator.entries("bob", part(4, b"x", size=6), head, 1.0) == []
    assert replicator.plan({FEED: head}, 1.05) == []
    (pull,) = replicator.plan({FEED: head}, 1.0 + NEWS_TIMEOUT_S)
    assert (pull.peer, pull.start, pull.stop) == ("bob", 5, MAX_INDEX)
    (stored,) = replicator.entries("bob", part(5, b"y", size=6, note=b"n", last=True), head, 1.2)
    assert (stored.start, stored.entries) == (4, (b"x", b"y"))


def test_parts_without_end_take_no_more_room_than_answers_do():
    replicator = quiet_replicator()
    for number in range(200):
        feed = f"server-{number:016x}"
        message = part(4, b"x" * 900, size=9, feed=feed)
        assert replicator.entries("bob", message, Head(1, 4), 1.0) == []
    assert replicator.buffered_bytes("bob") <= MAX_PULLS_A_PEER * 1000


def test_a_record_costs_each_server_no_more_than_eight_datagrams(world):
    world["s0"].append(b"n" * 400)
    before = len(world.sent)
    world.run(0.09)
    large = [data for _, data, _ in world.sent[before:] if len(data) > 600]
    assert len(holders(world, "s0", 1)) == len(NAMES) - 1
    assert len(large) <= NEWS_PEERS * len(NAMES)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3, 4))]
)
def test_nobody_is_left_out_while_one_datagram_in_twenty_is_lost(seed):
    world = World(*NAMES, loss=0.05, seed=seed)
    world.introduce()
    world.run(5)
    for count in range(1, 5):
        world["s0"].append(b"news")
        world.run(0.09)
        assert len(holders(world, "s0", count)) == len(NAMES) - 1
        world.run(1.0)


def test_a_server_whose_datagrams_crawl_slows_only_itself():
    """Cid is three seconds away, and is the only one that holds what dan once said."""
    world = World("ann", "bob", "cid", "dan")
    world.introduce()
    world.partition("dan")
    world.run(2)
    told = [f"dan {n}".encode() for n in range(40)]
    held = Feed(epoch=1, entries=told, note=note_of(world["dan"].key, 1, told))
    world["cid"].ledger.held[id_of("dan")] = held
    world["cid"].run(world["cid"].node.stored(id_of("dan"), world["cid"].now()))
    world.slow["cid"] = 1.5
    took_s = []
    for count in range(1, 11):
        world["ann"].append(*[f"ann {count} {n}".encode() for n in range(3)])
        took_s.append(
            world.run_until(
                lambda: len(world["bob"].ledger.contents().get(id_of("ann"), ())) == 3 * count,  # noqa: B023
                at_most_s=5,
            )
        )
    assert max(took_s) < 0.15
    cid = world["cid"].ledger
    world.run_until(lambda: len(cid.contents().get(id_of("ann"), ())) == 30, at_most_s=30)
    world.run_until(lambda: id_of("dan") in world["bob"].ledger.contents(), at_most_s=30)
