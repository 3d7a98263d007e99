"""Catching up with one feed, step by step."""

from __future__ import annotations

import random

import pytest

from services.mesh.gossip.answers import MAX_BURST, answer_pull, pack_answer
from services.mesh.gossip.codec import MAX_PLAINTEXT_BYTES
from services.mesh.gossip.counters import Count, Counters
from services.mesh.gossip.effects import FetchTiles, Ingest, SendPull
from services.mesh.gossip.messages import (
    MAX_INDEX,
    Entries,
    FeedSize,
    Pull,
    encode_message,
    id_of_raw,
    raw_id,
)
from services.mesh.gossip.replication import MAX_PULLS_A_PEER, Replicator
from services.mesh.gossip.suspicions import Suspicions
from tests.unit.mesh_gossip.gossip_kit import Feed, Head, World, id_of, note_of

RAW = bytes(range(8))
FEED = id_of_raw(RAW)


def part(start: int, *given: bytes, size: int, note: bytes | None = None, last: bool = False):
    return Entries(
        server=RAW, epoch=1, start=start, size=size, entries=given, checkpoint=note, last=last
    )


@pytest.fixture
def replicator() -> Replicator:
    return Replicator(
        rng=random.Random(1),  # noqa: S311 (failures repeat)
        counters=Counters(),
        usable=lambda _: True,
        own_id="server-ffffffffffffffff",
    )


def test_parts_in_any_order_are_stored_when_the_last_gap_closes(replicator):
    replicator.offered("bob", FEED, 1, 4, None)
    (pull,) = replicator.plan({}, 0.0)
    assert isinstance(pull, SendPull)
    assert (pull.start, pull.peer) == (0, "bob")
    assert replicator.entries("bob", part(3, b"d", size=4, note=b"n", last=False), None, 0.1) == []
    assert replicator.entries("bob", part(0, b"a", size=4), None, 0.1) == []
    assert replicator.entries("bob", part(0, b"a", size=4), None, 0.1) == []
    (stored,) = replicator.entries("bob", part(1, b"b", b"c", size=4), None, 0.1)
    assert stored == Ingest(
        server_id=FEED,
        epoch=1,
        start=0,
        entries=(b"a", b"b", b"c", b"d"),
        checkpoint=b"n",
        source="bob",
    )
    assert replicator.stored(FEED, Head(1, 4), 0.2) == []
    assert replicator.open_count == 0


def test_only_the_gaps_are_asked_for_again(replicator):
    replicator.offered("bob", FEED, 1, 9, None)
    replicator.plan({}, 0.0)
    replicator.entries("bob", part(0, b"a", b"b", size=9), None, 0.1)
    replicator.entries("bob", part(4, b"e", b"f", size=9), None, 0.1)
    assert [(one.start, one.stop) for one in replicator.plan({}, 5.0)] == [(2, 4), (6, MAX_INDEX)]
    replicator.entries("bob", part(7, b"h", b"i", size=9, note=b"n"), None, 5.1)
    assert [(one.start, one.stop) for one in replicator.plan({}, 10.0)] == [(2, 4), (6, 7)]


def test_what_is_still_under_way_is_not_asked_for_again(replicator):
    replicator.offered("bob", FEED, 1, 9, None)
    replicator.plan({}, 0.0)
    replicator.entries("bob", part(2, b"c", size=9), None, 0.1)
    assert len(replicator.plan({}, 5.0)) == 2
    assert replicator.entries("bob", part(0, b"a", size=9, last=True), None, 5.1) == []
    (first, second) = replicator.entries("bob", part(3, b"d", size=9, last=True), None, 5.2)
    assert (first.start, first.stop, second.start) == (1, 2, 4)


def test_a_lost_checkpoint_is_asked_for_alone(replicator):
    replicator.offered("bob", FEED, 1, 2, None)
    replicator.plan({}, 0.0)
    (pull,) = replicator.entries("bob", part(0, b"a", b"b", size=2, last=True), None, 0.1)
    assert pull.start == 2
    (stored,) = replicator.entries("bob", part(2, size=2, note=b"n", last=True), None, 0.2)
    assert isinstance(stored, Ingest)


def test_a_source_that_only_repeats_itself_is_not_asked_at_its_pace(replicator):
    replicator.offered("bob", FEED, 1, 9, None)
    replicator.plan({}, 0.0)
    asked = [
        replicator.entries("bob", part(0, b"a", size=9, last=True), None, 0.1) for _ in range(50)
    ]
    assert sum(map(len, asked)) == 1


def test_after_five_silences_another_source_is_asked(replicator):
    replicator.offered("bob", FEED, 1, 2, None)
    (first,) = replicator.plan({}, 0.0)
    assert first.peer == "bob"
    replicator.offered("cid", FEED, 1, 2, None)
    asked = [pull.peer for step in range(1, 9) for pull in replicator.plan({}, step * 3.0)]
    assert asked[:5] == ["bob"] * 4 + ["cid"]


def test_where_https_fails_datagrams_are_tried_again(replicator):
    replicator.offered("bob", FEED, 1, 2, None)
    replicator.plan({}, 0.0)
    (fetch,) = replicator.entries("bob", part(0, size=2, last=True), None, 0.1)
    assert isinstance(fetch, FetchTiles)
    replicator.failed(FEED, "bob", 0.2)
    assert replicator.plan({}, 0.3) == []
    (pull,) = replicator.plan({}, 2.0)
    assert isinstance(pull, SendPull)


def test_what_another_way_brought_is_not_stored_twice(replicator):
    replicator.offered("bob", FEED, 1, 3, None)
    replicator.plan({}, 0.0)
    replicator.entries("bob", part(0, b"a", size=3), None, 0.1)
    assert replicator.plan({FEED: Head(1, 3)}, 0.2) == []
    assert replicator.open_count == 0
    assert replicator.buffered_bytes("bob") == 0


def test_a_slow_source_has_thirty_seconds(replicator):
    replicator.offered("bob", FEED, 1, 200, None)
    replicator.plan({}, 0.0)
    for step in range(100):
        now_s = step * 0.3
        replicator.entries("bob", part(step, b"x", size=200), None, now_s)
        assert all(isinstance(one, SendPull) for one in replicator.plan({}, now_s))
    (fetch,) = replicator.plan({}, 30.0)
    assert isinstance(fetch, FetchTiles)


def test_one_peer_is_asked_for_eight_feeds_at_a_time(replicator):
    for number in range(20):
        replicator.offered("bob", id_of_raw(bytes([number]) * 8), 1, 5, None)
    assert len(replicator.plan({}, 0.0)) == MAX_PULLS_A_PEER
    assert replicator.plan({}, 0.1) == []


def test_a_new_epoch_begins_at_the_first_entry(replicator):
    replicator.offered("bob", FEED, 2, 3, Head(1, 90))
    (pull,) = replicator.plan({FEED: Head(1, 90)}, 0.0)
    assert (pull.epoch, pull.start) == (2, 0)


def test_gos_19_what_is_not_longer_is_no_offer():
    counters = Counters()
    one = Replicator(
        rng=random.Random(1),  # noqa: S311 (failures repeat)
        counters=counters,
        usable=lambda _: True,
        own_id=FEED,
    )
    one.offered("bob", "server-0000000000000000", 1, 5, Head(1, 5))
    one.offered("bob", "server-0000000000000000", 1, 500, Head(2, 1))
    assert one.open_count == 0


def test_what_we_lost_of_our_own_feed_is_pulled_like_any_other():
    counters = Counters()
    one = Replicator(
        rng=random.Random(1),  # noqa: S311 (failures repeat)
        counters=counters,
        usable=lambda _: True,
        own_id=FEED,
    )
    one.offered("bob", FEED, 1, 6, Head(1, 5))
    (pull,) = one.plan({FEED: Head(1, 5)}, 0.0)
    assert (pull.peer, pull.start) == ("bob", 5)
    assert one.is_behind_with(FEED)
    assert counters[Count.OWN_FEED_AHEAD] == 1


@pytest.mark.parametrize("sizes", [[], [1], [1000, 1000], [300] * 60, [1] * 200, [900] * 40])
@pytest.mark.parametrize("note_bytes", [350, 1100])
def test_an_answer_fits_in_datagrams_and_misses_nothing(sizes, note_bytes):
    entries = [bytes([n % 256]) * size for n, size in enumerate(sizes)]
    pull = Pull(server=RAW, epoch=2**32 - 1, start=2**50, stop=2**53 - 1)
    size, note = 2**50 + len(entries), bytes(note_bytes)
    answer = pack_answer(pull, entries, size=size, checkpoint=note)
    assert len(answer) <= MAX_BURST + 1
    assert all(len(encode_message(one)) <= MAX_PLAINTEXT_BYTES for one in answer)
    sent = [entry for one in answer for entry in one.entries]
    assert sent == entries[: len(sent)]
    assert [one.last for one in answer] == [False] * (len(answer) - 1) + [True]
    assert (answer[-1].checkpoint is not None) == (len(sent) == len(entries))
    starts = [2**50 + sum(len(one.entries) for one in answer[:n]) for n in range(len(answer))]
    assert [one.start for one in answer] == starts


@pytest.mark.parametrize("first", [1001, 16384])
def test_what_does_not_fit_sends_the_asker_to_https(first):
    pull = Pull(server=RAW, epoch=1, start=4, stop=9)
    (answer,) = pack_answer(pull, [bytes(first), b"x"], size=6, checkpoint=b"n")
    assert (answer.start, answer.size, answer.entries, answer.checkpoint) == (4, 6, (), None)
    (before,) = pack_answer(pull, [b"x", bytes(first)], size=6, checkpoint=b"n")
    assert (before.entries, before.last, before.checkpoint) == ((b"x",), True, None)


def test_gos_18_a_story_that_went_on_before_it_was_asked_for_is_shown_all_the_same():
    """Ann told two stories; bob's grew between his DIGEST and our question for its checkpoint."""
    world = World("ann", "bob", "cid")
    ann, stories = id_of("ann"), {}
    for name, count in (("bob", 3), ("cid", 9)):
        told = [f"for {name} {n}".encode() for n in range(count)]
        note = note_of(world["ann"].key, 1, told)
        stories[name] = world[name].ledger.held[ann] = Feed(epoch=1, entries=told, note=note)
    bob, cid = world["bob"].ledger, world["cid"].ledger
    told = FeedSize(server=raw_id(ann), epoch=1, size=3, root=bob.feeds()[ann].root[:8])
    suspicions = Suspicions(cid)
    question = suspicions.compare(id_of("bob"), told, cid.feeds()[ann], 0.0)
    stories["bob"].entries.append(b"and one more")
    stories["bob"].note = note_of(world["ann"].key, 1, stories["bob"].entries)
    (answer,) = answer_pull(question, bob)
    assert (answer.start, answer.size, answer.entries, answer.last) == (4, 4, (), True)
    effects = []
    suspicions.answered(id_of("bob"), answer, effects)
    assert [(one.server_id, one.checkpoint) for one in effects] == [(ann, stories["bob"].note)]


@pytest.mark.parametrize("rtt_s", [None, 0.1, 0.4, 0.8, 1.2, 60.0])
def test_an_answer_that_is_on_its_way_is_not_asked_for_again(rtt_s):
    for seed in range(50):
        one = Replicator(
            rng=random.Random(seed),  # noqa: S311 (failures repeat)
            counters=Counters(),
            usable=lambda _: True,
            own_id="server-ffffffffffffffff",
            rtt_s={"bob": rtt_s}.get,
        )
        one.offered("bob", FEED, 1, 4, None)
        assert len(one.plan({}, 0.0)) == 1
        answered_s = min(rtt_s or 0.0, 1.2)
        assert one.plan({}, answered_s) == []
        # It is asked for again in the end, however far the server says that it is.
        assert len(one.plan({}, 2.6)) == 1
