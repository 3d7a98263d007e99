"""Meshes in memory under virtual time: what servers see of each other, and when."""

from __future__ import annotations

import pytest

from services.mesh.gossip.counters import Count
from services.mesh.membership.states import State
from tests.unit.mesh_gossip.gossip_kit import START_MS, Feed, World, id_of, note_of


def entries(name: str, count: int, size_bytes: int = 300) -> list[bytes]:
    return [f"{name}-{n}-".encode().ljust(size_bytes, b".") for n in range(count)]


def test_a_record_reaches_the_others_within_an_interval_and_without_asking():
    world = World("ann", "bob", "cid")
    world.introduce()
    world.run(2)
    world["ann"].append(*entries("ann", 3))
    took_s = world.run_until(world.agree, at_most_s=1)
    assert took_s < 0.5
    assert len(world["cid"].ledger.contents()[id_of("ann")]) == 3


def test_records_whose_news_were_lost_arrive_within_three_intervals():
    world = World("ann", "bob", "cid")
    world.introduce()
    world.run(2)
    world["ann"].ledger.append(b"nobody was told")
    assert world.run_until(world.agree, at_most_s=5) < 3


def test_gos_21_all_converge_despite_loss_doubling_and_reordering():
    world = World("ann", "bob", "cid", "dan", loss=0.3, double=0.3, jitter_s=0.2, seed=7)
    world.introduce()
    for step in range(20):
        for name in world.hosts:
            world[name].append(*entries(f"{name}{step}", 2))
        world.run(0.25)
    world.run_until(world.agree, at_most_s=30)
    assert all(len(feed) == 40 for feed in world["ann"].ledger.contents().values())
    assert len(world["ann"].ledger.contents()) == 4


def test_gos_21_both_sides_of_a_cut_work_on_and_agree_soon_after_it_heals():
    world = World("ann", "bob", "cid", "dan", loss=0.1)
    world.introduce()
    world.run(3)
    world.partition("ann", "bob")
    for step in range(12):
        world["ann"].append(*entries(f"a{step}", 1))
        world["dan"].append(*entries(f"d{step}", 1))
        world.run(5)
    assert id_of("dan") not in world["ann"].ledger.contents()
    assert len(world["bob"].ledger.contents()[id_of("ann")]) == 12
    world.cut.clear()
    assert world.run_until(world.agree, at_most_s=30) < 15


def test_a_server_that_knows_one_seed_gets_to_know_and_catches_up_with_all():
    world = World("ann", "bob", "cid", "dan")
    for name in ("ann", "bob", "cid"):
        for other in ("ann", "bob", "cid"):
            if other != name:
                world[name].node.learn(world[other].fact(), world[name].now(), stored=True)
        world[name].append(*entries(name, 5))
    world["dan"].node.learn(world["ann"].fact(), world["dan"].now())
    world.run_until(world.agree, at_most_s=10)
    world.run_until(
        lambda: all(
            peer.via for host in world.hosts.values() for peer in host.node.peers(host.now())
        ),
        at_most_s=20,
    )
    assert len(world["dan"].node.directory.addresses(world["dan"].now().ms)) == 4


def test_a_newcomer_that_the_others_do_not_know_yet_is_met_with_silence_until_they_do():
    world = World("ann", "bob")
    newcomer = world["bob"]
    key = world.roster.pop(newcomer.id)
    newcomer.ledger.roster = {**world.roster, newcomer.id: key}
    newcomer.node.learn(world["ann"].fact(), newcomer.now())
    world.run(5)
    assert not [sender for sender, _, _ in world.sent if sender == "ann"]
    assert world["ann"].node.counters[Count.DROPPED_UNKNOWN_SENDER] > 0
    world.roster[newcomer.id] = key
    newcomer.append(b"hello")
    assert world.run_until(world.agree, at_most_s=10) <= 6.5


def test_a_long_gap_is_fetched_as_tiles_and_the_tail_by_datagram():
    world = World("ann", "bob")
    world["ann"].append(*entries("old", 1000))
    world.introduce()
    world.run_until(world.agree, at_most_s=10)
    assert [fetch.start for fetch in world["bob"].fetched] == [0]
    world["ann"].append(*entries("new", 40))
    world.run_until(world.agree, at_most_s=5)
    assert len(world["bob"].fetched) == 1
    assert world["bob"].node.counters[Count.ENTRIES_RECEIVED] == 40


def test_an_entry_too_large_for_a_datagram_is_fetched():
    world = World("ann", "bob")
    world.introduce()
    world.run(2)
    world["ann"].append(b"small", b"x" * 5000, b"small too")
    world.run_until(world.agree, at_most_s=5)
    assert len(world["bob"].fetched) == 1


def test_many_small_pieces_beyond_64_kib_are_fetched_too():
    world = World("ann", "bob")
    world["ann"].append(*entries("ann", 200, size_bytes=900))
    world.introduce()
    world.run_until(world.agree, at_most_s=10)
    assert len(world["bob"].fetched) == 1


def test_where_https_fails_another_source_is_asked():
    world = World("ann", "bob", "cid")
    world["ann"].append(*entries("old", 600))
    world["bob"].ledger.held[id_of("ann")] = world["ann"].ledger.held[id_of("ann")]
    world["ann"].serves_https = False
    world.introduce()
    world.run_until(world.agree, at_most_s=60)
    assert world["cid"].ledger.contents()[id_of("ann")]


def test_a_copy_serves_for_an_author_that_is_away():
    world = World("ann", "bob", "cid")
    world.cut = {frozenset({"ann", "cid"})}
    world.introduce()
    world["ann"].append(*entries("ann", 30))
    world.run_until(world.agree, at_most_s=10)
    assert world["cid"].ledger.contents()[id_of("ann")] == entries("ann", 30)


def test_a_source_that_lies_about_entries_is_left_aside_and_the_honest_one_heard():
    world = World("ann", "bob", "liar", seed=3)
    forged = world["liar"].ledger
    world["ann"].append(*entries("ann", 10))
    original = world["ann"].ledger.held[id_of("ann")]
    forged.held[id_of("ann")] = Feed(epoch=1, entries=[b"forged"] * 10, note=original.note)
    world.cut = {frozenset({"ann", "liar"})}
    world.introduce()
    world.run_until(
        lambda: world["bob"].ledger.contents().get(id_of("ann")) == original.entries, at_most_s=30
    )
    assert world["bob"].ledger.contents()[id_of("ann")] == entries("ann", 10)


def test_the_only_source_is_asked_less_and_less_often_while_it_lies():
    world = World("ann", "bob", "liar")
    ann, bob, liar = (world[name] for name in ("ann", "bob", "liar"))
    ann.append(*entries("ann", 3))
    note = ann.ledger.held[ann.id].note
    liar.ledger.held[ann.id] = Feed(epoch=1, entries=[b"forged"] * 3, note=note)
    world.introduce()
    world.cut = {frozenset({"ann", "bob"}), frozenset({"ann", "liar"})}
    world.run(60)
    assert 4 <= bob.node.counters[Count.INGEST_FAILED] <= 8
    assert ann.id not in bob.ledger.contents()


def test_gos_19_a_shorter_head_changes_nothing():
    world = World("ann", "bob")
    world.introduce()
    world["ann"].append(*entries("ann", 6))
    world.run_until(world.agree, at_most_s=5)
    feed = world["ann"].ledger.held[id_of("ann")]
    feed.entries = feed.entries[:2]
    world.run(5)
    assert len(world["bob"].ledger.contents()[id_of("ann")]) == 6
    assert world["ann"].node.counters[Count.OWN_FEED_AHEAD] > 0


@pytest.mark.parametrize(("bobs", "cids"), [(3, 3), (3, 5), (5, 3), (1, 9)])
def test_gos_18_two_stories_of_one_feed_are_noticed_by_whoever_holds_more(bobs, cids):
    """The author told one to each and is away; neither can tell alone."""
    world = World("ann", "bob", "cid")
    world.introduce()
    world.partition("ann")
    for name, count in (("bob", bobs), ("cid", cids)):
        told = entries(f"for {name}", count)
        note = note_of(world["ann"].key, 1, told)
        world[name].ledger.held[id_of("ann")] = Feed(epoch=1, entries=told, note=note)
        world[name].run(world[name].node.stored(id_of("ann"), world[name].now()))
    world.run(5)
    longer, other = ("bob", "cid") if bobs >= cids else ("cid", "bob")
    fork = world[longer].forks[0]
    assert (fork.server_id, fork.source) == (id_of("ann"), id_of(other))
    assert fork.checkpoint == world[other].ledger.held[id_of("ann")].note


def test_one_story_at_two_lengths_is_none():
    world = World("ann", "bob", "cid", loss=0.2, jitter_s=0.1)
    world.introduce()
    for step in range(10):
        world["ann"].append(*entries(f"{step}", 3))
        world.run(0.3)
    world.run(5)
    assert [host.forks for host in world.hosts.values()] == [[], [], []]


def test_gos_08_a_removed_server_is_cut_off_at_once():
    world = World("ann", "bob", "cid")
    world.introduce()
    world.run(3)
    del world.roster[id_of("cid")]
    world["cid"].ledger.roster = {**world.roster, id_of("cid"): world["cid"].key.public_key}
    world["cid"].append(b"too late")
    world.run(5)
    assert id_of("cid") not in world["ann"].ledger.contents()
    assert [peer.server_id for peer in world["ann"].node.peers(world["ann"].now())] == [
        id_of("bob")
    ]
    world.sent.clear()
    world.run(3)
    assert world["cid"].public not in [to for sender, _, to in world.sent if sender != "cid"]


def test_a_restarted_server_is_back_in_session_within_seconds():
    world = World("ann", "bob")
    world.introduce()
    world.run(3)
    world["bob"].restart()
    world["ann"].append(b"after the restart")
    assert world.run_until(world.agree, at_most_s=10) < 5


@pytest.mark.slow
def test_sessions_are_renewed_without_a_gap():
    world = World("ann", "bob")
    world.introduce()
    world.run(3)
    before = world["ann"].node.sessions.current(id_of("bob")).local_index
    for step in range(70):
        world["ann"].append(f"{step}".encode())
        world.run(10)
        assert world.agree(), step
    after = world["ann"].node.sessions.current(id_of("bob"))
    assert after.local_index != before
    assert world.now_s - after.created_s < 600


def test_the_backbone_is_preferred_while_it_works():
    world = World("ann", "bob", backbone=True)
    world.introduce()
    world.run(5)
    (peer,) = world["ann"].node.peers(world["ann"].now())
    assert (peer.via, peer.address) == ("public", "203.0.113.2:9102")
    world.backbone_up = True
    world.run(80)
    (peer,) = world["ann"].node.peers(world["ann"].now())
    assert (peer.via, peer.address) == ("backbone", "172.16.0.2:9102")
    world.backbone_up = False
    world["ann"].append(b"the tunnel is down")
    assert world.run_until(world.agree, at_most_s=20) < 12


def test_a_server_that_moves_is_found_again():
    world = World("ann", "bob", "cid")
    world.introduce()
    world.run(3)
    world["bob"].public = ("203.0.113.77", 9102)
    world["bob"].announce()
    world.run(10)
    peers = {peer.server_id: peer for peer in world["ann"].node.peers(world["ann"].now())}
    assert peers[id_of("bob")].address == "203.0.113.77:9102"
    assert id_of("bob") in world["cid"].changed


def test_a_lost_server_is_greeted_at_once_where_it_is_said_to_be_now():
    world = World("ann", "bob")
    world.introduce()
    world.partition("ann")
    world.run(60)
    bob = world["bob"]
    bob.public = ("203.0.113.77", 9102)
    bob.announce()
    world.sent.clear()
    world["ann"].node.learn(bob.fact(), world["ann"].now())
    world.run(0.11)
    assert bob.public in [to for _, _, to in world.sent]


def test_records_in_quick_succession_are_told_of_together_and_soon():
    world = World("ann", "bob")
    world.introduce()
    world.run(2.05)
    world.sent.clear()
    for number in range(50):
        world["ann"].append(f"{number}".encode())
    assert len(world.sent) == 1
    world.run(0.015)
    world["ann"].append(b"one more")
    assert world.run_until(world.agree, at_most_s=1) < 0.3


def test_a_cosignature_arrives_once_though_datagrams_are_lost():
    world = World("ann", "bob", loss=0.6, seed=5)
    world.introduce()
    world.run(10)
    host = world["bob"]
    host.run(host.node.cosign(id_of("ann"), 1, 7, b"line", host.now()))
    world.run(60)
    assert set(world["ann"].ledger.cosignatures) == {(id_of("ann"), 1, 7, b"line")}
    world.loss = 0
    world.run(40)
    count = len(world["ann"].ledger.cosignatures)
    world.run(120)
    assert len(world["ann"].ledger.cosignatures) == count


def test_peers_tell_latency_lag_and_when_they_were_heard():
    world = World("ann", "bob")
    world.introduce()
    world.run(30)
    (peer,) = world["ann"].node.peers(world["ann"].now())
    assert peer.latency_ms == pytest.approx(10, abs=1)
    assert (peer.state, peer.why, peer.uptime) == (State.ALIVE, "it answers", 1.0)
    assert peer.last_heard_s < 1.5
    assert peer.lag_records == 0
    world.partition("ann")
    world.run(20)
    (peer,) = world["ann"].node.peers(world["ann"].now())
    assert peer.last_heard_s > 18
    assert peer.state is State.DEAD
    assert peer.why.startswith("no answer to this server since 1")
    assert peer.uptime < 1
    world.cut.clear()
    world.run(5)
    (peer,) = world["ann"].node.peers(world["ann"].now())
    assert peer.state is State.ALIVE
    assert world["ann"].states == {id_of("bob"): State.ALIVE}


@pytest.mark.parametrize("skew_ms", [-290_000, -10_000, 10_000, 290_000])
def test_gos_09_clocks_may_differ_by_less_than_five_minutes(skew_ms):
    world = World("ann", "bob")
    world["bob"].clock_skew_ms = skew_ms
    world["bob"].announce()
    world.introduce()
    world["bob"].append(b"x")
    assert world.run_until(world.agree, at_most_s=5) < 2


@pytest.mark.parametrize("skew_ms", [-310_000, 310_000, 365 * 86_400_000, -START_MS])
def test_gos_09_a_clock_that_is_further_off_is_refused_and_counted(skew_ms):
    world = World("ann", "bob")
    world.introduce()
    world["bob"].clock_skew_ms = skew_ms
    world["bob"].append(b"x")
    world.run(5)
    assert not world.agree()
    assert world["ann"].node.counters[Count.DROPPED_CLOCK_SKEW] > 0


def test_gos_25_a_cosignature_of_who_is_no_witness_is_dropped_and_counted():
    world = World("ann", "bob")
    world.introduce()
    world.run(2)
    host = world["bob"]
    world["ann"].ledger.witnesses = lambda: {id_of("ann")}
    host.run(host.node.cosign(id_of("ann"), 1, 7, b"line", host.now()))
    world.run(5)
    assert world["ann"].ledger.cosignatures == []
    assert world["ann"].node.counters.snapshot()["forbidden_type"] > 0
    # Once the roster names it, what it repeats arrives.
    world["ann"].ledger.witnesses = lambda: {id_of("ann"), id_of("bob")}
    world.run(60)
    assert set(world["ann"].ledger.cosignatures) == {(id_of("ann"), 1, 7, b"line")}
