"""Gossip on real sockets of the loopback interface."""

from __future__ import annotations

import asyncio
import socket
import stat

import pytest

from services.kernel.errors import StartError, UnavailableError
from services.kernel.ids import server_id_of
from services.kernel.service import HealthState
from services.mesh.bulk.ports import Outcome
from services.mesh.facts.envelope import open_envelope
from services.mesh.facts.kinds import ADDRESS, LOAD, STATE
from services.mesh.gossip.addresses import Advertisement, sign_fact
from services.mesh.gossip.peers_file import Remembered, load_peers, save_peers
from services.mesh.gossip.service import GossipService
from services.mesh.gossip.settings import GossipSettings
from services.runtime.clock import SystemClock
from tests.unit.mesh_gossip.gossip_kit import MESH_ID, FakeLedger, key_of

INTERVAL_S = 0.2
PLACE = Advertisement(host="127.0.0.1", http_port=9100, wireguard_port=51940, region="eu-west")


class CopyFetcher:
    """Hands out the feeds of one ledger as HTTPS would."""

    def __init__(self) -> None:
        self.ledger: FakeLedger | None = None
        self.into: FakeLedger | None = None
        self.asked: list[tuple[str, int]] = []

    async def catch_up(self, places, server_id, epoch):
        self.asked += [(place.host, place.port) for place in places]
        if self.ledger is None:
            return Outcome(size=0, target_size=0, failed={places[0].server_id: "nobody there"})
        feed = self.ledger.held[server_id]
        size = await self.into.ingest(server_id, epoch, 0, feed.entries, feed.note)
        return Outcome(size=size, target_size=size)


def make(name, roster, folder, *, port=0, fetch=None, interval_s=INTERVAL_S):
    ledger = FakeLedger(key_of(name), roster)
    service = GossipService(
        settings=GossipSettings(bind_address="127.0.0.1", port=port, interval_s=interval_s),
        key=key_of(name),
        mesh_id=MESH_ID.hex(),
        ledger=ledger,
        fetch=fetch or CopyFetcher(),
        clock=SystemClock(),
        peers_file=folder / f"{name}.json",
    )
    service.announce(PLACE)
    return service, ledger


@pytest.fixture
async def mesh(tmp_path):
    names = ("ann", "bob", "cid")
    roster = {server_id_of(key_of(name).public_key): key_of(name).public_key for name in names}
    made = {name: make(name, roster, tmp_path) for name in names}
    for service, _ in made.values():
        await service.start()
    seed = made["ann"][0]
    for name in ("bob", "cid"):
        made[name][0].learn(seed.own_fact())
    yield made
    for service, _ in made.values():
        await service.stop()


async def until(condition, *, at_most_s=60.0):
    async with asyncio.timeout(at_most_s):
        while not condition():
            await asyncio.sleep(0.01)


def agreed(mesh) -> bool:
    contents = [ledger.contents() for _, ledger in mesh.values()]
    return all(contents) and all(one == contents[0] for one in contents)


def in_session(service: GossipService) -> int:
    return sum(peer.session_age_s is not None for peer in service.peers())


async def test_three_servers_find_each_other_through_a_seed_and_agree(mesh):
    for name, (_, ledger) in mesh.items():
        ledger.append(name.encode(), b"second")
    await until(lambda: agreed(mesh) and all(in_session(one) == 2 for one, _ in mesh.values()))
    service, ledger = mesh["cid"]
    assert len(ledger.contents()) == 3
    assert service.health().state is HealthState.OK
    assert service.health().detail == "2 of 2 servers in session"
    assert set(service.addresses()) == set(ledger.roster)
    assert len(service.address_facts()) == 3
    assert {peer.via for peer in service.peers()} == {"public"}


async def test_news_do_not_wait_for_the_next_round(tmp_path):
    roster = {server_id_of(key_of(n).public_key): key_of(n).public_key for n in ("ann", "bob")}
    ann, ledger = make("ann", roster, tmp_path, interval_s=60)
    bob, copy = make("bob", roster, tmp_path, interval_s=60)
    try:
        await ann.start()
        await bob.start()
        bob.learn(ann.own_fact())
        await until(lambda: in_session(ann) == in_session(bob) == 1)
        for number in range(3):
            ledger.append(f"news {number}".encode())
            await until(lambda: copy.contents() == ledger.contents())
        assert copy.contents()[ledger.own_id] == [b"news 0", b"news 1", b"news 2"]
    finally:
        await bob.stop()
        await ann.stop()


async def test_what_one_says_of_itself_the_others_hear_and_show(mesh):
    heard = []
    bob, ann = mesh["bob"][0], mesh["ann"][0]
    bob.subscribe_facts(heard.append)
    await until(lambda: in_session(ann) == 2)
    ann.publish_fact(STATE, b"first", lifetime_ms=60_000)
    ann.publish_fact(STATE, b"second", lifetime_ms=60_000)
    ann_id = mesh["ann"][1].own_id
    await until(lambda: all(ann_id in one.facts(STATE) for one, _ in mesh.values()))
    await until(lambda: bob.facts(STATE)[ann_id].payload == b"second")
    fact = bob.facts(STATE)[ann_id]
    assert fact == open_envelope(ann.facts(STATE)[ann_id].encoded, MESH_ID)
    assert heard[-1] == fact
    assert bob.facts(LOAD) == {}


async def test_only_addresses_outlive_a_restart(tmp_path):
    roster = {server_id_of(key_of("ann").public_key): key_of("ann").public_key}
    ann, _ = make("ann", roster, tmp_path)
    with pytest.raises(UnavailableError):
        ann.publish_fact(STATE, b"too early")
    await ann.start()
    ann.publish_fact(STATE, b"a word", lifetime_ms=60_000)
    await ann.stop()
    assert ann.facts(STATE) == {}
    (kept,) = load_peers(tmp_path / "ann.json").facts
    assert open_envelope(kept, MESH_ID).kind == ADDRESS


async def test_a_cosignature_reaches_the_author(mesh):
    ledger = mesh["ann"][1]
    await until(lambda: in_session(mesh["bob"][0]) > 0)
    mesh["bob"][0].send_cosign(ledger.own_id, 1, 3, b"signature line")
    await until(lambda: ledger.cosignatures)
    assert ledger.cosignatures == [(ledger.own_id, 1, 3, b"signature line")]


async def test_a_long_range_is_fetched_from_the_address_that_the_source_tells(tmp_path):
    roster = {server_id_of(key_of(n).public_key): key_of(n).public_key for n in ("ann", "bob")}
    fetcher = CopyFetcher()
    ann, ann_ledger = make("ann", roster, tmp_path)
    bob, bob_ledger = make("bob", roster, tmp_path, fetch=fetcher)
    ann_ledger.append(*(f"{n}".encode() for n in range(500)))
    try:
        await ann.start()
        await bob.start()
        bob.learn(ann.own_fact())
        await until(lambda: bob.counters()["fetches_failed"] > 0)
        fetcher.ledger, fetcher.into = ann_ledger, bob_ledger
        await until(lambda: len(bob_ledger.contents().get(ann_ledger.own_id, ())) == 500)
        assert set(fetcher.asked) == {("127.0.0.1", 9100)}
    finally:
        await bob.stop()
        await ann.stop()


async def test_a_restarted_server_remembers_whom_to_call(tmp_path):
    roster = {server_id_of(key_of(n).public_key): key_of(n).public_key for n in ("ann", "bob")}
    ann, _ = make("ann", roster, tmp_path)
    bob, _ = make("bob", roster, tmp_path)
    try:
        await ann.start()
        await bob.start()
        bob.learn(ann.own_fact())
        await until(lambda: in_session(bob) == 1)
        await bob.stop()
        assert stat.S_IMODE((tmp_path / "bob.json").stat().st_mode) == 0o600
        again, _ = make("bob", roster, tmp_path, port=bob.port)
        await again.start()
        try:
            await until(lambda: in_session(again) == 1)
        finally:
            await again.stop()
    finally:
        await bob.stop()
        await ann.stop()


async def test_gos_04_the_newest_hello_is_on_disk_before_the_server_stops(tmp_path, monkeypatch):
    monkeypatch.setattr("services.mesh.gossip.service.SAVE_INTERVAL_S", 0.05)
    roster = {server_id_of(key_of(n).public_key): key_of(n).public_key for n in ("ann", "bob")}
    ann, _ = make("ann", roster, tmp_path)
    bob, copy = make("bob", roster, tmp_path)

    def newest_ms() -> int:
        return load_peers(tmp_path / "ann.json").newest_hello_ms.get(copy.own_id, 0)

    try:
        await ann.start()
        await bob.start()
        bob.learn(ann.own_fact())
        await until(lambda: in_session(bob) == 1 and newest_ms() > 0)
        before_ms = newest_ms()
        await bob.stop()
        again, _ = make("bob", roster, tmp_path, port=bob.port)
        try:
            await again.start()
            await until(lambda: newest_ms() > before_ms)
            assert in_session(ann) == 1
        finally:
            await again.stop()
    finally:
        await bob.stop()
        await ann.stop()


async def test_gos_24_a_place_that_cannot_be_reached_disturbs_nothing(mesh):
    service, ledger = mesh["ann"]
    lost = key_of("lost")
    ledger.roster[server_id_of(lost.public_key)] = lost.public_key
    # From a socket that is bound to the loopback interface the kernel refuses to send elsewhere.
    elsewhere = Advertisement(
        host="203.0.113.1", http_port=9100, wireguard_port=51940, region="eu-west"
    )
    now_ms = SystemClock().now_ms()
    fact = sign_fact(lost, MESH_ID, elsewhere, gossip_port=9102, counter=1, now_ms=now_ms)
    service.learn(fact.encoded)
    await until(lambda: service.counters()["send_failed"] >= 3)
    ledger.append(b"still at work")
    await until(lambda: all(one.contents() == ledger.contents() for _, one in mesh.values()))
    assert service.health().state is HealthState.OK


async def test_a_port_that_is_taken_is_named_and_nothing_is_left_open(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        service, _ = make("ann", {}, tmp_path, port=port)
        with pytest.raises(StartError) as caught:
            await service.start()
        assert caught.value.code == "port_in_use"
        assert str(port) in str(caught.value)
        assert service.health().state is HealthState.FAILED
    await service.stop()


async def test_a_stopped_server_is_silent_and_stops_twice(mesh):
    service, ledger = mesh["ann"]
    await service.stop()
    await service.stop()
    ledger.append(b"into the void")
    assert service.peers() == []
    assert service.health().state is HealthState.STOPPED
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", service.port))


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b'{"version":2,"facts":[],"hellos":{}}',
        b'{"version":1,"facts":["!"],"hellos":{}}',
    ],
)
def test_a_damaged_file_of_peers_is_left_aside(tmp_path, damage):
    path = tmp_path / "peers.json"
    path.write_bytes(damage)
    assert load_peers(path) == Remembered()


def test_the_file_of_peers_keeps_what_it_was_given(tmp_path):
    path = tmp_path / "peers.json"
    assert load_peers(path) == Remembered()
    remembered = Remembered(facts=(b"one", b"two"), newest_hello_ms={"server-0": 5})
    save_peers(path, remembered)
    assert load_peers(path) == remembered
