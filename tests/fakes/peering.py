"""A WireGuard that takes what it is told, and peering that tells it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from services.edge.peering.service import PeeringService
from services.kernel.errors import UnavailableError

if TYPE_CHECKING:
    from tests.fakes.one_server import OneServer

ENDPOINT = ("192.0.2.7", 51940)


class Device:
    """Takes what it is told, at once; refuses what a test says."""

    def __init__(self) -> None:
        self.peers = {}
        self.plans = []
        self.refuses: set[bytes] = set()
        self.begun: list[bytes] = []
        self.holds: dict[bytes, asyncio.Event] = {}
        self.told = asyncio.Event()

    async def set_plan(self, plan) -> None:
        self.plans.append(plan)

    async def replace_peers(self, peers) -> None:
        self.peers = dict(peers)

    async def set_peer(self, peer) -> None:
        self.told.set()
        if (hold := self.holds.get(peer.public_key)) is not None:
            await hold.wait()
        if peer.public_key in self.refuses:
            raise UnavailableError("the device is busy")
        self.peers[peer.public_key] = peer

    async def remove_peer(self, public_key) -> None:
        self.peers.pop(public_key, None)

    async def reset_peer(self, public_key) -> None:
        self.begun.append(public_key)


async def settled() -> None:
    """Let the queue run dry; nothing here waits for a timer."""
    for _ in range(50):
        await asyncio.sleep(0)


async def usual_mtu() -> int:
    """Say that packets may be as large as they mostly may."""
    return 1420


async def peering_of(
    ledger, *, carries_subnets=lambda: True, mtu_of=usual_mtu, endpoint_of=lambda _: ENDPOINT
):
    device = Device()
    peering = PeeringService(
        ledger=ledger,
        tunnels=device,
        endpoint_of=endpoint_of,
        carries_subnets=carries_subnets,
        mtu_of=mtu_of,
    )
    await peering.start()
    return peering, device


def wireguard_key_of(one: OneServer) -> bytes:
    return one.ledger.charter.server(one.ledger.server_id).wireguard_key
