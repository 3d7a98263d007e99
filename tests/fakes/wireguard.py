"""Doubles for the tunnel: a device in memory that treats peers as WireGuard does, a clock."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from services.base.crypto.agreement import x25519_public
from services.edge.wireguard.backend import DeviceGoneError, DeviceRefusedError
from services.edge.wireguard.model import DeviceSnapshot, PeerChanges, PeerStatus, PeerUpsert
from services.edge.wireguard.network import NetworkOutcome


class ManualClock:
    """Time that goes on when told."""

    def __init__(self, now_s: float = 1_800_000_000.0) -> None:
        self.now_s = now_s

    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s


class MemoryDevice:
    """Peers as a WireGuard device holds them: an allowed IP goes to who claimed it last."""

    def __init__(self) -> None:
        self.peers: dict[bytes, PeerStatus] = {}

    def apply(self, changes: PeerChanges) -> None:
        for key in changes.remove:
            self.peers.pop(key, None)
        for change in changes.upsert:
            self.upsert(change)

    def upsert(self, change: PeerUpsert) -> None:
        key = change.public_key
        old = self.peers.get(key) or PeerStatus(
            public_key=key, endpoint=None, allowed_ips=(), keepalive_seconds=0
        )
        kept = () if change.replace_allowed_ips else old.allowed_ips
        for other, peer in list(self.peers.items()):
            rest = tuple(ip for ip in peer.allowed_ips if ip not in change.allowed_ips)
            self.peers[other] = replace(peer, allowed_ips=rest)
        keepalive = change.keepalive_seconds
        self.peers[key] = replace(
            old,
            endpoint=change.endpoint or old.endpoint,
            allowed_ips=tuple(sorted({*kept, *change.allowed_ips})),
            keepalive_seconds=old.keepalive_seconds if keepalive is None else keepalive,
            preshared_key=change.preshared_key if change.set_preshared_key else old.preshared_key,
        )

    def roam(self, key: bytes, endpoint, *, handshake_s: int = 0) -> None:
        self.peers[key] = replace(self.peers[key], endpoint=endpoint, last_handshake_s=handshake_s)


class MemoryBackend:
    """A backend over a `MemoryDevice`; it can be away, slow, or refuse a peer."""

    kind = "memory"

    def __init__(self) -> None:
        self.device = MemoryDevice()
        self.public_key: bytes | None = None
        self.listen_port = 51940
        self.applied: list[PeerChanges] = []
        self.refuses: set[bytes] = set()
        self.is_gone = False
        self.failing_opens = 0
        self.opens = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def open(self, *, private_key: bytes, listen_port: int) -> bool:
        self.opens += 1
        if self.failing_opens:
            self.failing_opens -= 1
            raise DeviceGoneError("not yet")
        created, self.is_gone = self.is_gone, False
        self.public_key, self.listen_port = x25519_public(private_key), listen_port
        return created

    async def adopt(self, own_key: bytes | None) -> bool:
        return not self.is_gone

    async def apply(self, changes: PeerChanges) -> None:
        await self.gate.wait()
        if self.is_gone:
            raise DeviceGoneError("gone")
        if self.refuses & {change.public_key for change in changes.upsert}:
            raise DeviceRefusedError("no")
        self.applied.append(changes)
        self.device.apply(changes)

    async def read(self) -> DeviceSnapshot:
        if self.is_gone:
            raise DeviceGoneError("gone")
        return DeviceSnapshot(
            public_key=self.public_key,
            listen_port=self.listen_port,
            peers=dict(self.device.peers),
        )

    async def close(self) -> None:
        pass

    async def remove(self) -> None:
        self.device.peers.clear()

    def die(self) -> None:
        self.is_gone = True
        self.device.peers.clear()


class MemoryNetwork:
    """Remembers the plans it was asked for; can refuse them."""

    def __init__(self) -> None:
        self.plans = []
        self.refuses_with = None

    async def __call__(self, interface, plan) -> NetworkOutcome:
        if self.refuses_with is not None:
            raise self.refuses_with
        self.plans.append(plan)
        return NetworkOutcome(changes_count=0)
