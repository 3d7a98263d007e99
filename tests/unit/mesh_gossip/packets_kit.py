"""Packets that a test makes, and how a server meets them."""

from __future__ import annotations

from services.mesh.gossip.messages import (
    FeedSize,
    encode_message,
)
from tests.unit.mesh_gossip.gossip_kit import Host, World, id_of

ADDRESS = ("203.0.113.1", 9102)
RAW = bytes(range(8))


def size_of(server: bytes, size: int, epoch: int = 1) -> FeedSize:
    return FeedSize(server=server, epoch=epoch, size=size, root=bytes(8))


def receive(host: Host, data: bytes, address=ADDRESS) -> list:
    return host.node.datagram(data, address, host.now())


def silent(host: Host, data: bytes, address=ADDRESS) -> bool:
    """Deliver a datagram; say whether it was dropped, counted, and led to nothing."""
    before = host.node.counters.dropped_count
    effects = receive(host, data, address)
    return not effects and host.node.counters.dropped_count == before + 1


def box_from(world: World, sender: str, receiver: str, message) -> bytes:
    session = world[sender].node.sessions.current(id_of(receiver))
    return session.seal(encode_message(message))
