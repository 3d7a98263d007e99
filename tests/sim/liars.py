"""Servers that lie: one that is run twice and tells two stories, one that talks junk, one that
gives its records stamps of an hour ago.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from services.mesh.gossip.messages import (
    Cosign,
    Digest,
    Entries,
    FeedSize,
    Message,
    Peers,
    Pull,
    encode_message,
    raw_id,
)
from tests.sim.server import SimServer

if TYPE_CHECKING:
    import random

    from tests.sim.mesh import Mesh

JUNK_EVERY_S = 0.2
BACK_MS = 3_600_000
FAR = 2**53 - 1

Kind = Literal["fork", "junk", "backdate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Liar:
    """Who begins to lie how and when."""

    at_s: float
    who: int
    kind: Kind


def begin_lying(mesh: Mesh, liar: Liar) -> None:
    server = mesh.all[liar.who]
    if not server.is_up:
        return
    server.honest = False
    if liar.kind == "fork":
        fork(mesh, server)
    elif liar.kind == "junk":
        Junk(mesh, server).begin()
    else:
        server.stamps_ms = -BACK_MS
        server.crash()
        server.start()


def fork(mesh: Mesh, server: SimServer) -> None:
    """Start the server a second time, from the same disk, somewhere else."""
    twin = SimServer(mesh, server.number)
    twin.honest = False
    twin.public = ("198.19.0." + str(len(mesh.twins) + 1), twin.public[1])
    twin.backbone = ("172.31.0.1", twin.backbone[1])
    twin.disk.feeds = dict(server.disk.feeds)
    twin.disk.changes = server.disk.changes
    twin.disk.facts = tuple(fact.encoded for fact in server.node.directory.book.all())
    mesh.twins.append(twin)
    twin.start()


class Junk:
    """Datagrams of noise, and well sealed messages that mean nothing good."""

    def __init__(self, mesh: Mesh, server: SimServer) -> None:
        self._mesh = mesh
        self._server = server
        self._rng: random.Random = mesh.random(f"junk {server.number}")

    def begin(self) -> None:
        self._server.later(0.0, self._talk)

    def _talk(self) -> None:
        server, rng = self._server, self._rng
        peers = sorted(server.node.sessions.peers())
        if peers:
            peer = rng.choice(peers)
            session = server.node.sessions.current(peer)
            assert session is not None
            self._throw(session.seal(self._plaintext()), session.address)
            self._throw(rng.randbytes(rng.randrange(1, 1400)), session.address)
            sealed = bytearray(session.seal(self._plaintext()))
            sealed[rng.randrange(len(sealed))] ^= 1 << rng.randrange(8)
            self._throw(bytes(sealed), session.address)
        server.later(JUNK_EVERY_S * (0.5 + rng.random()), self._talk)

    def _throw(self, data: bytes, address: tuple[str, int]) -> None:
        for _ in range(self._rng.choice((1, 1, 3))):
            self._mesh.network.send(self._server.name, data, self._server.public, address)

    def _plaintext(self) -> bytes:
        rng = self._rng
        if rng.random() < 0.2:
            return msgspec.msgpack.encode([rng.randrange(32), rng.randbytes(20), None, {"a": 1}])
        return encode_message(self._message())

    def _message(self) -> Message:
        rng = self._rng
        server = raw_id(rng.choice(self._mesh.all).name)
        noise = rng.randbytes(rng.randrange(200))
        size = rng.choice((1, 7, 1000, FAR))
        return rng.choice(
            (
                Digest(
                    feeds=(FeedSize(server=server, epoch=1, size=size, root=rng.randbytes(8)),),
                    asks=rng.random() < 0.5,
                ),
                Pull(server=server, epoch=1, start=rng.choice((0, size)), stop=size),
                Entries(
                    server=server,
                    epoch=1,
                    start=rng.randrange(20),
                    size=size,
                    entries=(noise,),
                    checkpoint=rng.choice((None, noise)),
                    last=True,
                ),
                Peers(facts=(noise,)),
                Cosign(server=server, epoch=1, size=size, line=noise),
            )
        )
