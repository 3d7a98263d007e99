"""A first handshake that crossed another, or got lost, is begun anew by one of the two."""

from __future__ import annotations

from services.edge.reach.prompting import PAUSES_S, Prompter
from services.edge.wireguard.model import PeerStatus
from tests.fakes.peering import peering_of
from tests.unit.edge_reach.test_detours import (
    StillClock,
    key_of,
    reach_of,
    three,
)

__all__ = ["three"]

LESSER, GREATER = bytes(32), bytes([1] * 32)


def silent(key, *, endpoint=("192.0.2.1", 51940), last_handshake_s=0):
    return PeerStatus(
        public_key=key,
        endpoint=endpoint,
        allowed_ips=(),
        keepalive_seconds=25,
        last_handshake_s=last_handshake_s,
    )


def moments(prompter, own, peer, *, until_s):
    """Return at which of the looks, one a quarter of a second, a handshake is begun."""
    looks = [number / 4 for number in range(int(until_s * 4) + 1)]
    return [now_s for now_s in looks if prompter.due(own, {peer.public_key: peer}, now_s)]


def test_one_of_the_two_begins_anew_and_between_the_tries_of_wireguard() -> None:
    # WireGuard itself repeats an initiation every 5 to 5.3 s.
    assert moments(Prompter(), LESSER, silent(GREATER), until_s=20) == [1.5, 3.5, 7.5, 15.5]
    assert moments(Prompter(), GREATER, silent(LESSER), until_s=20) == []


def test_who_was_in_session_or_has_no_address_is_left_alone() -> None:
    assert moments(Prompter(), LESSER, silent(GREATER, endpoint=None), until_s=60) == []
    assert moments(Prompter(), LESSER, silent(GREATER, last_handshake_s=1), until_s=60) == []


def test_a_peer_that_never_answers_is_asked_ever_less_and_nobody_hurries_for_it() -> None:
    prompter = Prompter()
    begun = moments(prompter, LESSER, silent(GREATER), until_s=600)
    assert len(begun) == len(PAUSES_S) + (600 - int(begun[len(PAUSES_S) - 1])) // 60
    assert not prompter.hurries
    prompter.due(LESSER, {}, 601.0)
    assert moments(prompter, LESSER, silent(GREATER), until_s=1) == []
    assert prompter.hurries


async def test_of_two_servers_without_a_handshake_one_begins_it_anew(three) -> None:
    _, two, last = three
    clock, begun = StillClock(), {}
    for here, there in ((two, last), (last, two)):
        reach, peering, device, readings = await reach_of(here, {}, clock, lacks=there)
        readings.peers_now[key_of(there)] = silent(key_of(there))
        clock.now_s = 0.0
        await reach.look()
        assert device.begun == []
        clock.now_s = PAUSES_S[0]
        await reach.look()
        begun[key_of(here)] = list(device.begun)
        await peering.stop()
    lesser, greater = sorted(begun)
    assert begun == {lesser: [greater], greater: []}


async def test_nobody_begins_with_a_server_that_is_held_dead(three) -> None:
    _, two, last = three
    here, there = sorted((two, last), key=key_of)
    clock, dead = StillClock(), {there.ledger.server_id}
    reach, peering, device, readings = await reach_of(here, {}, clock, lacks=there, dead=dead)
    readings.peers_now = {key_of(there): silent(key_of(there))}
    await reach.look()
    clock.now_s = 100.0
    await reach.look()
    assert device.begun == []
    dead.clear()
    await reach.look()
    clock.now_s += PAUSES_S[0]
    await reach.look()
    assert device.begun == [key_of(there)]
    await peering.stop()


async def test_a_handshake_is_begun_where_the_server_told_that_it_is_and_nowhere_else(
    three,
) -> None:
    _, two, last = three
    told = {}
    peering, device = await peering_of(two.ledger, endpoint_of=told.get)
    await peering.begin_anew(last.ledger.server_id)
    assert device.begun == []
    told[last.ledger.server_id] = ("192.0.2.7", 51940)
    await peering.begin_anew(last.ledger.server_id)
    assert device.begun == [key_of(last)]
    assert device.peers[key_of(last)].endpoint == ("192.0.2.7", 51940)
    await peering.begin_anew("server-0000000000000000")
    assert len(device.begun) == 1
    await peering.stop()
