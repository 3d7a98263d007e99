"""What the changes do to a device is what was wanted, in whatever order it comes."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from services.edge.wireguard.diff import compare, step, whole
from services.edge.wireguard.model import PeerChanges, PeerConfig
from services.edge.wireguard.table import PeerTable
from tests.fakes.wireguard import MemoryDevice


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


KEYS = [key(number) for number in range(1, 6)]
PREFIXES = ["10.64.0.10/32", "10.64.0.11/32", "10.80.0.0/20", "fd00::1/128", "fd00:0:0:1::/64"]
ENDPOINTS = [None, ("192.0.2.1", 51940), ("192.0.2.2", 4500), ("2001:db8::1", 51940)]
PSKS = [None, key(77)]

peers = st.builds(
    PeerConfig,
    public_key=st.sampled_from(KEYS),
    endpoint=st.sampled_from(ENDPOINTS),
    allowed_ips=st.sets(st.sampled_from(PREFIXES)).map(lambda found: tuple(sorted(found))),
    keepalive_seconds=st.sampled_from([0, 25]),
    preshared_key=st.sampled_from(PSKS),
)
actions = st.one_of(
    st.tuples(st.just("set"), peers),
    st.tuples(st.just("remove"), st.sampled_from(KEYS)),
    st.tuples(st.just("replace"), st.lists(peers, max_size=4)),
    st.tuples(st.just("reset"), st.sampled_from(KEYS)),
    st.tuples(st.just("flush"), st.none()),
)


def table_of(*configs: PeerConfig) -> PeerTable:
    table = PeerTable()
    table.replace_all(configs)
    return table


def shuffled(changes: PeerChanges, chance) -> PeerChanges:
    upserts = list(changes.upsert)
    chance.shuffle(upserts)
    return PeerChanges(remove=changes.remove, upsert=tuple(upserts))


def agree(device: MemoryDevice, table: PeerTable) -> bool:
    """All but endpoints, which live their own life."""
    there = {
        k: (p.allowed_ips, p.keepalive_seconds, p.preshared_key) for k, p in device.peers.items()
    }
    wanted = {
        k: (p.allowed_ips, p.keepalive_seconds, p.preshared_key) for k, p in table.wanted.items()
    }
    return there == wanted


@given(st.lists(actions, max_size=25), st.randoms(use_true_random=False))
def test_telling_the_changes_in_any_order_gives_what_is_wanted(story, chance):
    table, device = PeerTable(), MemoryDevice()
    for verb, what in [*story, ("flush", None)]:
        match verb:
            case "set":
                table.set(what)
            case "remove":
                table.remove(what)
            case "replace":
                table.replace_all(what)
            case "reset":
                table.reset(what)
            case "flush":
                device.apply(shuffled(table.changes(), chance))
                table.confirm()
    assert agree(device, table)
    for peer_key, peer in table.wanted.items():
        if peer.endpoint is not None:
            assert device.peers[peer_key].endpoint == peer.endpoint
    assert not compare(table.wanted, device.peers)


@given(st.lists(peers, max_size=5), st.lists(peers, max_size=5), st.randoms(use_true_random=False))
def test_comparing_mends_any_device_at_once(there, wanted, chance):
    device = MemoryDevice()
    device.apply(table_of(*there).changes())
    table = table_of(*wanted)
    device.apply(shuffled(compare(table.wanted, device.peers), chance))
    assert agree(device, table)
    assert not compare(table.wanted, device.peers)


@given(st.lists(peers, max_size=8))
def test_no_prefix_has_two_owners(configs):
    prefixes = [ip for p in table_of(*configs).wanted.values() for ip in p.allowed_ips]
    assert len(prefixes) == len(set(prefixes))


PEER = PeerConfig(
    public_key=key(1),
    endpoint=("192.0.2.1", 51940),
    allowed_ips=("10.64.0.10/32", "10.64.0.11/32"),
    keepalive_seconds=25,
)


def device_with(*configs: PeerConfig) -> MemoryDevice:
    device = MemoryDevice()
    for config in configs:
        device.upsert(whole(config))
    return device


def test_an_endpoint_that_roamed_is_no_drift():
    device = device_with(PEER)
    device.roam(PEER.public_key, ("203.0.113.9", 1234), handshake_s=1000)
    assert not compare({PEER.public_key: PEER}, device.peers)


def test_mending_something_else_leaves_the_roamed_endpoint():
    device = device_with(replace(PEER, keepalive_seconds=0))
    device.roam(PEER.public_key, ("203.0.113.9", 1234), handshake_s=1000)
    device.apply(compare({PEER.public_key: PEER}, device.peers))
    assert device.peers[PEER.public_key].endpoint == ("203.0.113.9", 1234)
    assert device.peers[PEER.public_key].keepalive_seconds == 25


def test_what_a_dead_session_learned_gives_way_to_the_wish():
    device = device_with(PEER)
    device.roam(PEER.public_key, ("203.0.113.9", 1234), handshake_s=1000)
    device.apply(compare({PEER.public_key: PEER}, device.peers, dead_before_s=1001))
    assert device.peers[PEER.public_key].endpoint == PEER.endpoint


def test_a_newer_wish_for_an_endpoint_is_told():
    moved = replace(PEER, endpoint=("192.0.2.99", 51940))
    change = step(PEER, moved)
    assert change is not None
    assert change.endpoint == ("192.0.2.99", 51940)
    assert (change.allowed_ips, change.replace_allowed_ips) == ((), False)


def test_an_endpoint_not_wanted_any_more_tells_nothing():
    assert step(PEER, replace(PEER, endpoint=None)) is None


def test_a_growing_list_is_sent_without_clearing_the_old():
    grown = replace(PEER, allowed_ips=(*PEER.allowed_ips, "10.64.0.12/32"))
    change = step(PEER, grown)
    assert change is not None
    assert change.allowed_ips == ("10.64.0.12/32",)
    assert not change.replace_allowed_ips


def test_a_prefix_moves_whichever_peer_is_told_first():
    for first in (0, 1):
        giver = PeerConfig(public_key=key(1), allowed_ips=("10.64.0.10/32",))
        taker = PeerConfig(public_key=key(2))
        table, device = table_of(giver, taker), MemoryDevice()
        device.apply(table.changes())
        table.confirm()
        wishes = [
            replace(giver, allowed_ips=()),
            replace(taker, allowed_ips=("10.64.0.10/32",)),
        ]
        for wish in (wishes[first], wishes[1 - first]):
            table.set(wish)
            device.apply(compare(table.wanted, device.peers))  # a drift check comes between
            device.apply(table.changes())
            table.confirm()
        assert device.peers[key(1)].allowed_ips == ()
        assert device.peers[key(2)].allowed_ips == ("10.64.0.10/32",)


def test_ipm_08_an_address_leaves_its_old_peer_before_the_next_has_it():
    old = PeerConfig(public_key=key(1), allowed_ips=("10.64.0.10/32",))
    table, device = table_of(old), MemoryDevice()
    device.apply(table.changes())
    table.confirm()
    table.remove(key(1))
    table.set(PeerConfig(public_key=key(2), allowed_ips=("10.64.0.10/32",)))
    changes = table.changes()
    assert changes.remove == (key(1),)
    assert [change.public_key for change in changes.upsert] == [key(2)]
    device.apply(changes)
    assert set(device.peers) == {key(2)}


def test_a_reset_removes_and_makes_anew_in_one_transaction():
    table = table_of(PEER)
    table.confirm()
    assert table.reset(PEER.public_key)
    assert table.changes() == PeerChanges(remove=(PEER.public_key,), upsert=(whole(PEER),))
    assert not table.reset(key(9))


def test_one_change_among_ten_thousand_touches_one_peer():
    many = [
        PeerConfig(
            public_key=key(n), allowed_ips=(f"10.{64 + (n >> 16)}.{n >> 8 & 255}.{n & 255}/32",)
        )
        for n in range(1, 10_001)
    ]
    table = table_of(*many)
    table.confirm()
    table.set(replace(many[5000], keepalive_seconds=25))
    assert table.changes().peer_count == 1


def test_an_endpoint_is_told_again_where_that_is_asked_for():
    peer = PeerConfig(public_key=key(1), endpoint=("192.0.2.1", 5), allowed_ips=("10.64.0.9/32",))
    table = table_of(peer)
    table.confirm()
    table.set(peer)
    assert not table.changes()
    table.set(peer, restates=True)
    (told,) = table.changes().upsert
    assert (told.endpoint, told.allowed_ips) == (("192.0.2.1", 5), ())
    assert not told.replace_allowed_ips
    table.confirm()
    table.set(peer)
    assert not table.changes()
