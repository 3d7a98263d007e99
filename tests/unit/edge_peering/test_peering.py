"""WireGuard follows the roster: a revoked server has no peer, an heir carries what it inherits."""

from __future__ import annotations

import asyncio

import pytest

from services.authority.ipam.service import IpamService
from services.kernel.errors import StartError
from services.kernel.service import HealthState
from tests.fakes.neighbour import hand_over
from tests.fakes.peering import Device, peering_of, settled, wireguard_key_of


async def test_a_revoked_server_has_no_peer_once_the_record_is_there(one, others) -> None:
    second, third = others
    peering, device = await peering_of(second.ledger)
    assert third.wireguard_key in device.peers
    await one.services.root_keys.revoke(third.server_id)
    await hand_over(one.ledger, second.ledger)
    await settled()
    assert device.peers.keys() == {wireguard_key_of(one)}
    await peering.stop()


async def test_a_refused_wish_does_not_bring_a_revoked_server_back(
    one, others, monkeypatch
) -> None:
    second, third = others
    monkeypatch.setattr("services.edge.peering.service.RETRY_S", 0.01)
    peering, device = await peering_of(second.ledger)
    device.refuses.add(third.wireguard_key)
    hold = device.holds[third.wireguard_key] = asyncio.Event()
    peering.address_learnt(third.server_id)
    await device.told.wait()
    await one.services.root_keys.revoke(third.server_id)
    await hand_over(one.ledger, second.ledger)
    hold.set()
    await settled()
    device.refuses.clear()
    await asyncio.sleep(0.05)
    assert third.wireguard_key not in device.peers
    assert peering.health().state is HealthState.OK
    peering.address_learnt(third.server_id)
    await settled()
    assert third.wireguard_key not in device.peers
    await peering.stop()


async def test_what_was_refused_is_tried_again_and_stops_nobody_else(
    one, others, monkeypatch
) -> None:
    second, third = others
    monkeypatch.setattr("services.edge.peering.service.RETRY_S", 0.01)
    peering, device = await peering_of(one.ledger)
    device.peers.clear()
    device.refuses.add(third.wireguard_key)
    peering.address_learnt(third.server_id)
    peering.address_learnt(second.server_id)
    await settled()
    assert device.peers.keys() == {second.wireguard_key}
    assert peering.health().state is HealthState.DEGRADED
    device.refuses.clear()
    while len(device.peers) < 2:
        await asyncio.sleep(0.01)
    assert peering.health().detail == "2 peers, 0 changes waiting"
    await peering.stop()


async def test_the_heir_takes_up_routes_and_endpoints_and_gives_no_address_twice(
    one, others
) -> None:
    third = others[1]
    address = await third.endpoint("laptop")
    peering, device = await peering_of(one.ledger)
    plans = len(device.plans)
    await one.services.root_keys.revoke(third.server_id, heir=one.ledger.server_id)
    await settled()
    assert third.wireguard_key not in device.peers
    (inherited,) = [peer for peer in device.peers.values() if f"{address}/32" in peer.allowed_ips]
    assert inherited.endpoint is None
    assert len(device.plans) == plans + 1
    assert third.slices[0] in {route.destination for route in device.plans[-1].routes}
    assert device.plans[-1].addresses == device.plans[0].addresses
    usable, free = one.ipam.describe()["usable"], one.ipam.describe()["free"]
    assert usable - free == 1
    await peering.stop()


async def test_other_servers_send_to_the_heir(one, others) -> None:
    second, third = others
    peering, device = await peering_of(second.ledger)
    await one.services.root_keys.revoke(third.server_id, heir=one.ledger.server_id)
    await hand_over(one.ledger, second.ledger)
    await settled()
    assert third.wireguard_key not in device.peers
    assert third.slices[0] in device.peers[wireguard_key_of(one)].allowed_ips
    await peering.stop()


async def test_the_revoked_server_itself_drops_everybody_and_says_why(one, others) -> None:
    third = others[1]
    await third.endpoint("laptop")
    peering, device = await peering_of(third.ledger)
    assert len(device.peers) == 3
    await one.services.root_keys.revoke(third.server_id)
    await hand_over(one.ledger, third.ledger)
    await settled()
    assert device.peers == {}
    peering.address_learnt(one.ledger.server_id)
    await settled()
    assert device.peers == {}
    health = peering.health()
    assert (health.state, health.detail) == (HealthState.FAILED, "this server was revoked")
    await peering.stop()


async def test_a_revoked_server_that_knows_does_not_start_again(one, others) -> None:
    third = others[1]
    await one.services.root_keys.revoke(third.server_id)
    await hand_over(one.ledger, third.ledger)
    with pytest.raises(StartError) as refused:
        await peering_of(third.ledger)
    assert (refused.value.code, refused.value.mend) == (
        "revoked",
        "take another data root and join anew",
    )


async def test_the_heir_releases_blocks_that_the_revoked_server_gave(one, others) -> None:
    third = others[1]
    customer = one.enroll.customer_id("default")
    pool = IpamService(ledger=third.ledger, author=third.author)
    await pool.start()
    given = await pool.allocate_block(customer=customer, pool="private", prefix=30)
    await hand_over(third.ledger, one.ledger)
    await one.services.root_keys.revoke(third.server_id, heir=one.ledger.server_id)
    await one.ipam.release_block(given["block"])
    assert one.ledger.state.get("block", given["block"]) is None


async def test_who_comes_while_everything_is_loaded_is_a_peer_too(one, others, monkeypatch) -> None:
    replace_peers = Device.replace_peers

    async def slowly(self, peers) -> None:
        await others[0].endpoint("latecomer")
        await hand_over(one.ledger, others[0].ledger)
        await replace_peers(self, peers)

    monkeypatch.setattr(Device, "replace_peers", slowly)
    peering, device = await peering_of(others[0].ledger)
    await settled()
    assert len(device.peers) == 3
    await peering.stop()
