"""Facts cross the mesh, replace each other, expire, and cost little."""

from __future__ import annotations

import pytest

from services.kernel.errors import InputError, UnavailableError
from services.mesh.facts.envelope import sign_envelope
from services.mesh.facts.kinds import LOAD, RELEASE, STATE
from services.mesh.facts.payloads import LoadPayload, ReleasePayload, encode_payload
from services.mesh.gossip.counters import Count
from services.mesh.gossip.messages import Peers
from tests.unit.mesh_gossip.gossip_kit import MESH_ID, START_MS, Host, World

LIFETIME_MS = 120_000


def load(permille: int) -> bytes:
    return encode_payload(LoadPayload(cpu_permille=permille, endpoints_count=3, version="1.0"))


def publish(host: Host, permille: int, lifetime_ms: int = LIFETIME_MS) -> None:
    host.run(host.node.publish(LOAD, load(permille), lifetime_ms, host.now()))


def known(host: Host, kind: int = LOAD) -> dict[str, bytes]:
    facts = host.node.directory.book.valid(kind, host.now().ms)
    return {name: fact.payload for name, fact in facts.items()}


def knows(world: World, host: Host, permille: int):
    said = load(permille)
    return lambda: all(known(one).get(host.id) == said for one in world.hosts.values())


def hashes_agree(world: World) -> bool:
    summaries = [host.node._holdings.summary() for host in world.hosts.values()]
    return all(one == summaries[0] for one in summaries)


@pytest.fixture
def world() -> World:
    world = World("ann", "bob", "cid", "dan", "eve")
    world.introduce()
    world.run(3)
    return world


def test_what_one_says_of_itself_all_know_in_a_moment(world):
    publish(world["ann"], 730)
    assert world.run_until(knows(world, world["ann"], 730), at_most_s=2) <= 0.5
    publish(world["ann"], 120)
    assert world.run_until(knows(world, world["ann"], 120), at_most_s=2) <= 0.5


def test_who_was_away_gets_it_when_it_is_back(world):
    world.partition("eve")
    publish(world["ann"], 500)
    world.run(20)
    assert world["ann"].id not in known(world["eve"])
    world.cut.clear()
    world.run_until(knows(world, world["ann"], 500), at_most_s=25)


def test_what_a_server_runs_is_told_as_soon_as_a_session_begins():
    world = World("ann", "bob")
    ann, bob = world["ann"], world["bob"]
    installed = encode_payload(
        ReleasePayload(version="1.0.0", platform="p", python="3", measurement=bytes(32))
    )
    ann.run(ann.node.publish(RELEASE, installed, LIFETIME_MS, ann.now()))
    world.run(1)
    assert known(bob, RELEASE) == {}
    world.introduce()
    assert world.run_until(lambda: ann.id in known(bob, RELEASE), at_most_s=3) <= 1.0
    assert known(bob, RELEASE) == {ann.id: installed}


def test_with_a_third_of_all_lost_everybody_still_gets_everything(world):
    world.loss = 0.33
    for number, host in enumerate(world.hosts.values()):
        publish(host, 100 + number)
    world.run_until(
        lambda: all(
            knows(world, host, 100 + number)() for number, host in enumerate(world.hosts.values())
        ),
        at_most_s=40,
    )
    assert all(known(host) == known(world["ann"]) for host in world.hosts.values())


def test_what_has_expired_is_neither_told_nor_argued_about(world):
    publish(world["ann"], 500, lifetime_ms=30_000)
    world.run(45)
    assert all(known(host) == {} for host in world.hosts.values())
    assert hashes_agree(world)
    world["eve"].restart()
    world.introduce()
    world.run(10)
    assert all(host.node.counters[Count.BAD_FACT] == 0 for host in world.hosts.values())
    assert known(world["eve"]) == {}


def test_a_server_that_lost_its_memory_and_its_clock_is_still_listened_to(world):
    ann = world["ann"]
    publish(ann, 900)
    world.run_until(knows(world, ann, 900), at_most_s=2)
    world.run(20)
    ann.node, ann.clock_skew_ms = ann.new_node(), -25_000
    ann.node.sessions.newest_hello_ms.clear()
    for host in world.hosts.values():
        host.node.sessions.newest_hello_ms.pop(ann.id, None)
    ann.announce()
    world.introduce()
    world.run_until(lambda: known(ann).get(ann.id) == load(900), at_most_s=30)
    publish(ann, 100)
    world.run_until(knows(world, ann, 100), at_most_s=2)
    assert known(world["bob"])[ann.id] == load(100)


def flood(world: World, count: int) -> None:
    """Let mallory, a member, tell ann a thing about itself ever again."""
    mallory, ann = world["mallory"], world["ann"]
    for number in range(count):
        fact = sign_envelope(
            mallory.key,
            MESH_ID,
            kind=LOAD,
            payload=load(number),
            counter=mallory.now().ms + number,
            now_ms=mallory.now().ms,
            lifetime_ms=LIFETIME_MS,
        )
        mallory.node._send(ann.id, Peers(facts=(fact.encoded,)))
        mallory.run(mallory.node._flush())
        world.run(0.001)


def test_gos_16_a_member_that_signs_a_thousand_a_second_is_not_passed_on():
    world = World("ann", "bob", "mallory")
    world.introduce()
    world.run(3)
    world.partition("bob", "ann")
    world.cut.discard(frozenset({"ann", "mallory"}))
    told = []
    bob = world["bob"]
    learn = bob.node.directory.learn

    def listen(data, now, *, stored=False):
        told.append(data)
        return learn(data, now, stored=stored)

    bob.node.directory.learn = listen
    flood(world, 1000)
    world.run(1)
    assert world["ann"].node.counters[Count.FACT_TOO_OFTEN] > 900
    assert 0 < len(told) <= 24
    publish(world["ann"], 50)
    world.run_until(lambda: known(bob).get(world["ann"].id) == load(50), at_most_s=2)


def test_a_kind_that_is_unknown_is_counted_and_the_rest_of_the_message_taken(world):
    ann, bob = world["ann"], world["bob"]
    good = sign_envelope(
        ann.key,
        MESH_ID,
        kind=STATE,
        payload=b"a word",
        counter=1,
        now_ms=START_MS,
        lifetime_ms=LIFETIME_MS,
    ).encoded
    odd = good[:64] + b"\x96\x4d" + good[66:]
    ann.node._send(bob.id, Peers(facts=(odd, good)))
    ann.run(ann.node._flush())
    world.run(1)
    assert bob.node.counters[Count.FACT_OF_UNKNOWN_KIND] == 1
    assert known(bob, STATE) == {ann.id: b"a word"}
    assert world["cid"].node.counters[Count.FACT_OF_UNKNOWN_KIND] == 0


def test_nothing_is_said_before_one_is_in_the_roster_and_nothing_that_nobody_would_take(world):
    with pytest.raises(InputError):
        world["ann"].node.publish(LOAD, b"junk", LIFETIME_MS, world["ann"].now())
    world.roster.pop(world["ann"].id)
    with pytest.raises(UnavailableError):
        world["ann"].node.publish(LOAD, load(1), LIFETIME_MS, world["ann"].now())


def traffic(count: int, *, interval_s: float | None) -> float:
    """Return the bytes a second that a server sends in a mesh where nothing happens."""
    world = World(*(f"s{number}" for number in range(count)))
    world.introduce()
    world.run(5)

    def tell(host: Host) -> None:
        publish(host, 100, lifetime_ms=int(interval_s * 3000))
        world.later(interval_s, lambda: tell(host))

    for number, host in enumerate(world.hosts.values()):
        if interval_s:
            world.later(interval_s * number / count, lambda it=host: tell(it))
    world.run(40)
    before = sum(host.node.counters[Count.SENT_BYTES] for host in world.hosts.values())
    world.run(60)
    after = sum(host.node.counters[Count.SENT_BYTES] for host in world.hosts.values())
    return (after - before) / 60 / count


@pytest.mark.slow
def test_an_idle_mesh_in_which_everybody_tells_its_load_stays_cheap():
    quiet, telling = traffic(30, interval_s=None), traffic(30, interval_s=30.0)
    assert telling - quiet < 1000
    assert telling < 2000
