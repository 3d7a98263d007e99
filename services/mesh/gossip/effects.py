"""What the deciding parts of gossip ask of the part that touches the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from services.mesh.facts.envelope import Fact
    from services.mesh.membership.states import State
    from services.runtime.udp import Address


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send a datagram."""

    data: bytes
    address: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class SendPull:
    """Ask a peer for entries."""

    peer: str
    server_id: str
    epoch: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchTiles:
    """Fetch a long range, or one with large entries, over HTTPS, and store it."""

    server_id: str
    epoch: int
    start: int
    stop: int
    source: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingest:
    """Store entries that came in datagrams."""

    server_id: str
    epoch: int
    start: int
    entries: tuple[bytes, ...]
    checkpoint: bytes
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverCosign:
    """Hand a witness's cosignature of our feed to the ledger, and confirm it to the witness."""

    witness: str
    server_id: str
    epoch: int
    size: int
    line: bytes


@dataclass(frozen=True, slots=True)
class AddressChanged:
    """A server says that it is somewhere else."""

    server_id: str


@dataclass(frozen=True, slots=True)
class FactLearnt:
    """Another server says something new about itself, its address included."""

    fact: Fact


@dataclass(frozen=True, slots=True, kw_only=True)
class Forked:
    """A peer shows a checkpoint of a feed that is not a part of what we hold of it."""

    server_id: str
    epoch: int
    checkpoint: bytes
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberChanged:
    """A server is held to be in another state than before."""

    server_id: str
    old: State
    new: State


@dataclass(frozen=True, slots=True)
class OwnFeedCurrent:
    """Our own feed is as long here as the others say: we may append to it."""


Effect = (
    Send
    | FetchTiles
    | Ingest
    | DeliverCosign
    | AddressChanged
    | FactLearnt
    | Forked
    | MemberChanged
    | OwnFeedCurrent
)
Catching = SendPull | FetchTiles | Ingest
