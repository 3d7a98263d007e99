"""A member that sends without end, half of it, or what nobody asked for: it costs itself alone."""

from __future__ import annotations

from services.mesh.gossip.counters import Count
from services.mesh.gossip.messages import (
    Digest,
    Entries,
    Pull,
)
from tests.unit.mesh_gossip.gossip_kit import Host, World, id_of
from tests.unit.mesh_gossip.packets_kit import RAW, box_from, receive, size_of


def same_feed(world: World, author: str, holder: str) -> bool:
    contents = [world[name].ledger.contents().get(id_of(author)) for name in (author, holder)]
    return contents[0] == contents[1]


def test_gos_15_a_source_that_never_finishes_fills_64_kib_and_no_more(pair):
    ann, bob = pair["ann"], pair["bob"]
    server = bytes.fromhex(ann.id.removeprefix("server-"))
    pair.partition("ann")
    offer = Digest(feeds=(size_of(server, 200),), asks=False)
    bob.run(receive(bob, box_from(pair, "ann", "bob", offer), ann.public))
    for index in range(1, 250):
        part = Entries(
            server=server,
            epoch=1,
            start=index * 3 % 2**40,
            size=2**50,
            entries=(b"x" * 1000,),
            checkpoint=None,
            last=index % 5 == 0,
        )
        bob.run(receive(bob, box_from(pair, "ann", "bob", part), ann.public))
        assert bob.node._talk.replicator.buffered_bytes(ann.id) <= 64 * 1024
    assert bob.ledger.contents() == {}


def news(host: Host, *given: bytes, start: int = 0, checkpoint: bytes | None) -> Entries:
    return Entries(
        server=bytes.fromhex(host.id.removeprefix("server-")),
        epoch=1,
        start=start,
        size=start + len(given),
        entries=given,
        checkpoint=checkpoint,
        last=True,
    )


def test_gos_15_news_whose_checkpoint_does_not_sign_them_are_not_kept(pair):
    ann, bob = pair["ann"], pair["bob"]
    forged = news(ann, b"x", checkpoint=b"note")
    bob.run(receive(bob, box_from(pair, "ann", "bob", forged), ann.public))
    assert bob.ledger.contents() == {}
    assert bob.node.counters[Count.INGEST_FAILED] == 1
    assert receive(bob, box_from(pair, "ann", "bob", forged), ann.public) == []


def test_gos_15_news_without_what_was_before_them_are_not_kept_but_asked_for(pair):
    ann, bob = pair["ann"], pair["bob"]
    later = news(ann, b"x", start=3, checkpoint=b"note")
    (pull,) = receive(bob, box_from(pair, "ann", "bob", later), ann.public)
    assert len(pull.data) < 100
    assert bob.node._talk.replicator.buffered_bytes(ann.id) == 0


def test_news_of_a_server_that_the_roster_does_not_name_are_dropped_and_counted(pair):
    ann, bob = pair["ann"], pair["bob"]
    stranger = Entries(
        server=RAW, epoch=1, start=0, size=1, entries=(b"x",), checkpoint=b"note", last=True
    )
    assert receive(bob, box_from(pair, "ann", "bob", stranger), ann.public) == []
    assert bob.node.counters[Count.UNKNOWN_FEED] == 1


def test_a_made_up_size_or_epoch_costs_only_who_says_it():
    world = World("ann", "bob", "liar")
    world.introduce()
    world.run(3)
    server = bytes.fromhex(id_of("ann").removeprefix("server-"))
    for epoch, size in ((2**32 - 1, 5), (1, 2**53 - 1)):
        lie = Digest(feeds=(size_of(server, size, epoch),), asks=False)
        bob = world["bob"]
        bob.run(receive(bob, box_from(world, "liar", "bob", lie), world["liar"].public))
        world["ann"].append(b"the truth")
        world.run_until(lambda: same_feed(world, "ann", "bob"), at_most_s=10)
    assert world["bob"].ledger.contents()[id_of("ann")] == [b"the truth", b"the truth"]


def test_one_that_asks_is_told_what_it_lacks(pair):
    ann, bob = pair["ann"], pair["bob"]
    bob.ledger.append(b"news")
    server = bytes.fromhex(bob.id.removeprefix("server-"))
    for asks, answers in ((False, 0), (True, 1)):
        digest = Digest(feeds=(size_of(server, 0),), asks=asks)
        sent = receive(bob, box_from(pair, "ann", "bob", digest), ann.public)
        assert len(sent) == answers


def test_a_greedy_server_does_not_keep_another_busy(pair):
    ann, bob = pair["ann"], pair["bob"]
    bob.append(*(b"." * 900 for _ in range(60)))
    server = bytes.fromhex(bob.id.removeprefix("server-"))
    sent = 0
    for _ in range(300):
        pull = Pull(server=server, epoch=1, start=0, stop=2**53 - 1)
        sent += len(receive(bob, box_from(pair, "ann", "bob", pull), ann.public))
    assert sent * 900 < 600 * 1024
    assert bob.node.counters[Count.PULLS_REFUSED] > 200
