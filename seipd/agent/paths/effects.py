"""What the state of a path asks to be done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seipd.agent.paths.probes import Probe
    from services.edge.punch.messages import RelayOffer, SignalCode
    from services.edge.wireguard.model import Endpoint


@dataclass(frozen=True, slots=True)
class Send:
    """Send a probe from WireGuard's port."""

    address: Endpoint
    probe: Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPeer:
    """Have the other as a WireGuard peer at this address.

    ``carries``: packets for its tunnel addresses go there. ``is_fresh``: forget what was before.
    ``initiates``: have WireGuard begin handshakes by itself, not only answer.
    """

    endpoint: Endpoint
    carries: bool
    is_fresh: bool
    is_relayed: bool
    initiates: bool


@dataclass(frozen=True, slots=True)
class Drop:
    """Have the other as a peer no more: its packets go over the server."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the server for a meeting."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Let the other know something, over the servers."""

    code: SignalCode


@dataclass(frozen=True, slots=True)
class SeekRelay:
    """Have one of these carry for the two."""

    offers: tuple[RelayOffer, ...]


@dataclass(frozen=True, slots=True)
class LeaveRelay:
    """Let the relay go."""


Effect = Send | SetPeer | Drop | Ask | Tell | SeekRelay | LeaveRelay
