"""Who is reached through whom: both ends choose alike, and only by what both have signed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.edge.reach.detours import GRACE_S, SILENT_S, SessionWatch, detours, links_to_tell
from services.edge.reach.service import SETTLE_S, ReachService
from services.edge.wireguard.model import PeerStatus
from services.kernel.errors import UnavailableError, WireError
from services.kernel.service import HealthState
from services.mesh.facts.envelope import sign_envelope
from services.mesh.facts.kinds import LINKS, kind_of
from services.mesh.facts.payloads import MAX_LINKS, LinksPayload, decode_payload, encode_payload
from tests.fakes.neighbour import Neighbour, hand_over
from tests.fakes.one_server import OneServer
from tests.unit.edge_peering.test_peering import peering_of, settled

NAMES = [f"server-{number:016x}" for number in range(9)]
KEY = bytes(range(32))
NOW_MS = 1_700_000_000_000
NAME = st.sampled_from(NAMES)


def status(key=KEY, *, rx_bytes=0, handshake_age_s=0, ever=True):
    return PeerStatus(
        public_key=key,
        endpoint=None,
        allowed_ips=(),
        keepalive_seconds=25,
        last_handshake_s=NOW_MS // 1000 - handshake_age_s if ever else 0,
        rx_bytes=rx_bytes,
    )


@given(links=st.dictionaries(NAME, st.lists(NAME, max_size=9, unique=True)), one=NAME, other=NAME)
def test_both_ends_choose_the_same_server_and_one_that_both_named(links, one, other) -> None:
    there = detours(one, [other], links).get(other)
    assert there == detours(other, [one], links).get(one)
    if there is not None:
        assert there in links[one]
        assert there in links[other]
        assert there not in (one, other)
    elif one != other:
        assert not set(links.get(one, ())) & set(links.get(other, ())) - {one, other}


def test_the_pairs_of_a_mesh_do_not_all_go_through_one_server() -> None:
    middles = {"server-aaaaaaaaaaaaaaaa", "server-bbbbbbbbbbbbbbbb"}
    links = dict.fromkeys(NAMES, sorted(middles))
    assert set(detours(NAMES[0], NAMES[1:], links).values()) == middles


def test_gos_18_a_liar_draws_no_traffic_of_others_to_itself() -> None:
    liar = NAMES[2]
    honest = {NAMES[0]: [NAMES[3]], NAMES[1]: [NAMES[3]]}
    assert detours(NAMES[0], [NAMES[1]], {**honest, liar: NAMES}) == {NAMES[1]: NAMES[3]}


def test_nobody_who_is_held_dead_is_named_unless_there_is_nobody_else() -> None:
    assert links_to_tell(NAMES, NAMES[2:5], NAMES[2:3]) == tuple(NAMES[3:5])
    assert links_to_tell(NAMES, NAMES[2:3], NAMES[2:3]) == (NAMES[2],)
    many = [f"server-{number:016x}" for number in range(1000)]
    assert len(links_to_tell(many, many, ())) == MAX_LINKS


def test_a_session_lives_while_something_comes_and_handshakes_go_on() -> None:
    watch = SessionWatch()

    def is_live(now_s, peer) -> bool:
        return KEY in watch.read({KEY: peer}, now_s=now_s, now_ms=NOW_MS)

    assert not is_live(0.0, status(ever=False))
    assert watch.lacking(GRACE_S - 1) == frozenset()
    assert watch.lacking(GRACE_S) == {KEY}
    assert is_live(20.0, status(rx_bytes=32))
    assert watch.lacking(100.0) == frozenset()
    assert is_live(20.0 + SILENT_S - 1, status(rx_bytes=32))
    assert not is_live(20.0 + SILENT_S, status(rx_bytes=32))
    assert watch.lacking(20.0 + SILENT_S) == {KEY}
    assert is_live(100.0, status(rx_bytes=64))
    assert not is_live(101.0, status(rx_bytes=96, handshake_age_s=180))


def test_what_a_server_tells_of_its_sessions_is_bounded_and_in_one_order() -> None:
    good = [bytes([number] * 8) for number in range(MAX_LINKS)]
    payload = encode_payload(LinksPayload(servers=tuple(good)))
    assert decode_payload(payload, LinksPayload).servers == tuple(good)
    kind_of(LINKS).check(payload)
    for bad in ([*good, bytes([200] * 8)], good[::-1], [good[0], good[0]], [b"short"]):
        with pytest.raises(WireError):
            decode_payload(encode_payload(LinksPayload(servers=tuple(bad))), LinksPayload)


class Facts:
    """Gossip that reaches everybody at once."""

    def __init__(self, said, key, mesh_id) -> None:
        self._said = said
        self._key = key
        self._mesh_id = bytes.fromhex(mesh_id)
        self.told = 0

    def publish_fact(self, kind, payload, *, lifetime_ms=None) -> None:
        self.told += 1
        fact = sign_envelope(
            self._key,
            self._mesh_id,
            kind=kind,
            payload=payload,
            counter=self.told,
            now_ms=NOW_MS,
            lifetime_ms=lifetime_ms,
        )
        self._said[fact.server_id] = fact

    def facts(self, kind):
        return dict(self._said)


class Readings:
    """A device of which a test says who is in session."""

    def __init__(self) -> None:
        self.peers_now = {}
        self.is_away = False

    async def peers(self):
        if self.is_away:
            raise UnavailableError("away")
        return self.peers_now


class StillClock:
    """The same time until a test says another."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s

    def now_ms(self) -> int:
        return NOW_MS


@pytest.fixture
async def three(tmp_path):
    """Servers of one mesh; the second and the third have no session with each other."""
    one = await OneServer.start(tmp_path / "one")
    others = [await Neighbour.join(one, tmp_path / name) for name in ("two", "three")]
    for other in others:
        await hand_over(one.ledger, other.ledger)
    yield one, *others
    for server in (one, *others):
        await server.stop()


def key_of(server):
    return server.ledger.charter.server(server.ledger.server_id).wireguard_key


async def reach_of(server, said, clock, *, lacks, dead=()):
    peering, device = await peering_of(server.ledger)
    readings = Readings()
    readings.peers_now = {
        key: status(key, rx_bytes=1, ever=key != key_of(lacks)) for key in device.peers
    }
    facts = Facts(said, server.key, server.ledger.mesh_id)
    reach = ReachService(
        ledger=server.ledger,
        tunnels=readings,
        facts=facts,
        router=peering,
        dead=lambda: dead,
        clock=clock,
    )
    return reach, peering, device, readings


def prefixes_of(server) -> set[str]:
    own = server.ledger.charter.server(server.ledger.server_id)
    return {f"{own.backbone}/32", *own.slices}


async def test_a_server_out_of_reach_is_routed_through_the_one_in_session_with_both(three) -> None:
    one, two, last = three
    said, clock = {}, StillClock()
    reach, peering, device, readings = await reach_of(two, said, clock, lacks=last)
    other, other_peering, _, _ = await reach_of(last, said, clock, lacks=two)
    for looking in (reach, other):
        await looking.look()
    await settled()
    assert prefixes_of(last) <= set(device.peers[key_of(last)].allowed_ips)
    clock.now_s = GRACE_S
    for looking in (reach, other, reach):
        await looking.look()
    await settled()
    assert reach.through == {last.ledger.server_id: one.ledger.server_id}
    assert other.through == {two.ledger.server_id: one.ledger.server_id}
    assert device.peers[key_of(last)].allowed_ips == ()
    assert prefixes_of(last) | prefixes_of(one) <= set(device.peers[key_of(one)].allowed_ips)
    # It hears the other one by itself: the way round is given up.
    readings.peers_now[key_of(last)] = status(key_of(last), rx_bytes=2)
    await reach.look()
    await settled()
    assert prefixes_of(last) <= set(device.peers[key_of(last)].allowed_ips)
    assert not prefixes_of(last) & set(device.peers[key_of(one)].allowed_ips)
    for service in (peering, other_peering):
        await service.stop()


async def test_a_restart_keeps_to_the_way_round_until_the_others_have_told_again(three) -> None:
    one, two, last = three
    said, clock = {}, StillClock()
    reach, peering, device, readings = await reach_of(two, said, clock, lacks=last)
    carried = (*device.peers[key_of(one)].allowed_ips, *device.peers[key_of(last)].allowed_ips)
    readings.peers_now = {
        key_of(one): replace(readings.peers_now[key_of(one)], allowed_ips=carried),
        key_of(last): status(key_of(last), ever=False),
    }
    through = {last.ledger.server_id: one.ledger.server_id}
    await reach.start()
    assert reach.through == through
    await settled()
    assert set(carried) <= set(device.peers[key_of(one)].allowed_ips)
    clock.now_s = SETTLE_S - 1
    await reach.look()
    assert reach.through == through
    clock.now_s = SETTLE_S
    await reach.look()
    assert reach.through == {}
    for service in (reach, peering):
        await service.stop()


async def test_a_restart_with_direct_sessions_alone_goes_round_nobody(three) -> None:
    _, two, last = three
    reach, peering, device, readings = await reach_of(two, {}, StillClock(), lacks=last)
    readings.peers_now = {
        key: replace(status(key, rx_bytes=1), allowed_ips=peer.allowed_ips)
        for key, peer in device.peers.items()
    }
    await reach.start()
    assert reach.through == {}
    for service in (reach, peering):
        await service.stop()


async def test_gos_08_nothing_goes_to_a_revoked_server_by_another(three) -> None:
    one, two, last = three
    peering, device = await peering_of(two.ledger)
    peering.set_detours({last.ledger.server_id: one.ledger.server_id})
    await settled()
    assert prefixes_of(last) <= set(device.peers[key_of(one)].allowed_ips)
    gone = prefixes_of(last)
    await one.services.root_keys.revoke(last.ledger.server_id)
    await hand_over(one.ledger, two.ledger)
    await settled()
    assert device.peers.keys() == {key_of(one)}
    assert not gone & set(device.peers[key_of(one)].allowed_ips)
    await peering.stop()


async def test_nobody_tells_of_sessions_because_of_a_dead_server(three) -> None:
    _, two, last = three
    said, clock = {}, StillClock()
    dead = {last.ledger.server_id}
    reach, peering, _, readings = await reach_of(two, said, clock, lacks=last, dead=dead)
    await reach.look()
    clock.now_s = GRACE_S
    await reach.look()
    assert said == {}
    dead.clear()
    await reach.look()
    assert said.keys() == {two.ledger.server_id}
    assert reach.health().detail == f"no WireGuard path to {last.ledger.server_id}"
    readings.is_away = True
    await reach.look()
    assert (reach.health().detail, reach.health().state) == ("away", HealthState.STOPPED)
    await peering.stop()
