"""What the paths want arrives at the device in order, and is read back no older than that."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from seipd.agent.paths.effects import Drop, SetPeer
from seipd.agent.paths.peers import TunnelPeers
from seipd.agent.paths.proved import Peer
from services.kernel.errors import UnavailableError

PEER = Peer(node_id="n", name="e2", address="10.64.0.11", address6="fd00::b", key=bytes(32))
THERE, RELAY = ("198.51.100.7", 40000), ("203.0.113.9", 9104)


class Device:
    def __init__(self) -> None:
        self.told: list[tuple] = []
        self.is_away = False

    async def set_peer(self, peer, *, restates=False) -> None:
        if self.is_away:
            raise UnavailableError("away")
        self.told.append(("set", peer.endpoint, peer.allowed_ips, peer.keepalive_seconds, restates))

    async def reset_peer(self, key) -> None:
        self.told.append(("reset",))

    async def remove_peer(self, key) -> None:
        self.told.append(("remove",))

    async def peers(self):
        return {"reading": len(self.told)}


def wish(endpoint=THERE, *, carries=False, is_fresh=False, initiates=True) -> SetPeer:
    return SetPeer(
        endpoint=endpoint,
        carries=carries,
        is_fresh=is_fresh,
        is_relayed=endpoint == RELAY,
        initiates=initiates,
    )


@asynccontextmanager
async def working(subnets=()):
    device, readings = Device(), []
    tunnels = TunnelPeers(
        device=device, prefixes_of=lambda address: subnets, on_read=readings.append
    )
    task = asyncio.ensure_future(tunnels.run())
    yield device, tunnels, readings
    task.cancel()
    await asyncio.wait([task])


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_first_no_addresses_then_both_then_none():
    async with working() as (device, tunnels, readings):
        tunnels.order(PEER, wish(is_fresh=True))
        await settle()
        tunnels.order(PEER, wish(carries=True))
        tunnels.order(PEER, wish(RELAY, carries=True))
        tunnels.order(PEER, Drop())
        await settle()
    own = ("10.64.0.11/32", "fd00::b/128")
    assert device.told == [
        ("set", THERE, (), 1, False),
        ("set", THERE, own, 20, True),
        ("set", RELAY, own, 3, True),
        ("remove",),
    ]
    assert readings == [{"reading": 1}], "no reading while orders wait, none without peers"


async def test_who_only_answers_has_no_keepalive_that_would_begin_a_handshake():
    async with working() as (device, tunnels, _):
        tunnels.order(PEER, wish(is_fresh=True, initiates=False))
        tunnels.order(PEER, wish(RELAY, initiates=False))
        tunnels.order(PEER, wish(RELAY, carries=True))
        await settle()
    assert [told[3] for told in device.told] == [0, 0, 3]


async def test_a_handshake_that_was_lost_begins_anew():
    async with working() as (device, tunnels, _):
        tunnels.order(PEER, wish(is_fresh=True))
        tunnels.order(PEER, wish(is_fresh=True))
        await settle()
    assert [one[0] for one in device.told] == ["set", "set", "reset"]


async def test_what_a_router_carries_goes_with_it():
    async with working(("192.168.7.0/25", "192.168.7.128/25")) as (device, tunnels, _):
        tunnels.order(PEER, wish(carries=True))
        await settle()
        tunnels.restate([PEER])
        await settle()
    assert "192.168.7.0/25" in device.told[0][2]
    assert len(device.told) == 2


async def test_a_device_that_is_away_stops_nothing():
    async with working() as (device, tunnels, _):
        device.is_away = True
        tunnels.order(PEER, wish(carries=True))
        await settle()
        device.is_away = False
        tunnels.order(PEER, wish(RELAY, carries=True))
        await settle()
        await tunnels.close()
    assert [one[0] for one in device.told] == ["set", "remove"]
