"""A subnet behind an endpoint is sent to the server that carries it, and there to the endpoint."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from services.base.ledger.author import Author
from services.edge.peering import service as peering_service
from services.edge.peering.plan import interface_plan
from services.kernel.ids import node_id_of, parse_key
from services.kernel.records import record_from_value
from tests.fakes.neighbour import hand_over
from tests.fakes.peering import peering_of, settled, wireguard_key_of
from tests.fakes.world import key_of

if TYPE_CHECKING:
    from tests.fakes.one_server import OneServer

LAN, OTHER = "192.168.7.0/24", "fd77:7::/64"
KEY = key_of("endpoint laptop")
NODE = node_id_of(KEY.public_key)


async def endpoint(one: OneServer) -> bytes:
    """Let an endpoint in that offers two subnets; return its WireGuard key."""
    record = one.join_record(await one.token(), KEY, "laptop")
    await one.enroll.redeem_endpoint(record_from_value(record))
    body = {"node": NODE, "prefixes": [LAN, OTHER], "exit": False, "serial": 1}
    await one.ledger.submit([signed(one, "tree.advertise", body)])
    return parse_key(one.ledger.state.get("tree", NODE)["wireguard_key"])


def signed(one: OneServer, kind: str, body: dict):
    author = Author(key=KEY, mesh_id=one.ledger.mesh_id, clock=one.clock)
    return author.record(kind, body)


async def say(one: OneServer, kind: str, route: str) -> None:
    record = one.author.record(kind, {"node": NODE, "route": route})
    await one.ledger.submit([record])


def holders(device, prefix: str) -> list[bytes]:
    return [key for key, peer in device.peers.items() if prefix in peer.allowed_ips]


def routes(device) -> list[str]:
    return [route.destination for route in device.plans[-1].side.routes]


async def test_an_approval_costs_one_peer_and_a_withdrawal_takes_it_back(one, others) -> None:
    laptop = await endpoint(one)
    await hand_over(one.ledger, others[0].ledger)
    peering, device = await peering_of(one.ledger)
    far, far_device = await peering_of(others[0].ledger)
    assert routes(device) == []
    device.peers.clear()
    far_device.peers.clear()
    await say(one, "tree.approve", LAN)
    await hand_over(one.ledger, others[0].ledger)
    await settled()
    assert device.peers.keys() == {laptop}
    assert LAN in device.peers[laptop].allowed_ips
    assert far_device.peers.keys() == {wireguard_key_of(one)}
    assert holders(far_device, LAN) == [wireguard_key_of(one)]
    assert routes(device) == routes(far_device) == [LAN]
    await say(one, "tree.approve", OTHER)
    await say(one, "tree.withdraw", LAN)
    await hand_over(one.ledger, others[0].ledger)
    await settled()
    assert holders(device, LAN) == holders(far_device, LAN) == []
    assert holders(device, OTHER) == [laptop]
    assert routes(device) == routes(far_device) == [OTHER]
    for one_peering in (peering, far):
        await one_peering.stop()


async def test_what_was_approved_before_a_start_is_there_after_it(one, others) -> None:
    laptop = await endpoint(one)
    await say(one, "tree.approve", LAN)
    await hand_over(one.ledger, others[0].ledger)
    peering, device = await peering_of(one.ledger)
    far, far_device = await peering_of(others[0].ledger)
    assert holders(device, LAN) == [laptop]
    assert holders(far_device, LAN) == [wireguard_key_of(one)]
    assert routes(device) == routes(far_device) == [LAN]
    for one_peering in (peering, far):
        await one_peering.stop()


async def test_nothing_goes_into_a_subnet_while_its_guard_is_away(one, others, monkeypatch) -> None:
    monkeypatch.setattr(peering_service, "GUARD_LOOK_S", 0.01)
    laptop = await endpoint(one)
    await say(one, "tree.approve", LAN)
    await hand_over(one.ledger, others[0].ledger)
    guarded = [False]
    peering, device = await peering_of(one.ledger, carries_subnets=lambda: guarded[0])
    far, far_device = await peering_of(others[0].ledger, carries_subnets=lambda: guarded[0])
    assert holders(device, LAN) == holders(far_device, LAN) == []
    assert laptop in device.peers
    for is_there in (True, False, True):
        guarded[0] = is_there
        wanted = ([laptop], [wireguard_key_of(one)], [LAN]) if is_there else ([], [], [])
        async with asyncio.timeout(60):
            while (holders(device, LAN), holders(far_device, LAN), routes(device)) != wanted:
                await asyncio.sleep(0.01)
    # A change that comes with the guard's end goes by it at once, looked at or not.
    monkeypatch.setattr(peering_service, "GUARD_LOOK_S", 3600)
    guarded[0] = False
    await say(one, "tree.approve", OTHER)
    await settled()
    assert holders(device, LAN) == holders(device, OTHER) == []
    for one_peering in (peering, far):
        await one_peering.stop()


async def test_a_start_leaves_the_routes_that_are_there_until_it_knows(one) -> None:
    charter = one.ledger.charter
    own = charter.server(one.ledger.server_id)
    assert interface_plan(one.ledger.mesh_id, charter.genesis.ranges, own).side is None
    peering, device = await peering_of(one.ledger)
    assert device.plans[-1].side is not None
    await peering.stop()


async def test_a_subnet_goes_with_its_endpoint_to_another_server_and_back(one, others) -> None:
    second, third = others
    laptop = await endpoint(one)
    await say(one, "tree.approve", LAN)
    for other in others:
        await hand_over(one.ledger, other.ledger)
    home, home_device = await peering_of(one.ledger)
    watching, device = await peering_of(second.ledger)
    move = {"node": NODE, "server": third.server_id, "moves": 1}
    await third.enroll(None).attach(signed(one, "tree.attach", move))
    host, host_device = await peering_of(third.ledger)
    for other in (one, second):
        await hand_over(third.ledger, other.ledger)
    await settled()
    assert holders(host_device, LAN) == [laptop]
    assert holders(home_device, LAN) == holders(device, LAN) == [third.wireguard_key]
    watching.set_detours({third.server_id: one.ledger.server_id})
    await settled()
    assert holders(device, LAN) == [wireguard_key_of(one)]
    await one.services.root_keys.revoke(third.server_id)
    await hand_over(one.ledger, second.ledger)
    await settled()
    assert holders(home_device, LAN) == [laptop]
    assert holders(device, LAN) == [wireguard_key_of(one)]
    assert routes(device) == [LAN]
    for peering in (home, watching, host):
        await peering.stop()


async def test_nothing_is_left_of_an_endpoint_that_was_removed(one) -> None:
    await endpoint(one)
    await say(one, "tree.approve", LAN)
    peering, device = await peering_of(one.ledger)
    await one.ledger.submit([one.author.record("tree.remove", {"node": NODE})])
    await settled()
    assert holders(device, LAN) == []
    assert routes(device) == []
    await peering.stop()
