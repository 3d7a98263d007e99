"""What a relay is told, and what it tells of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from services.edge.relay.model import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping


class Statement(Protocol):
    """Makes the signed account of what a session has carried for a party."""

    def __call__(
        self,
        *,
        nonce: bytes,
        key: bytes,
        bytes_from: int,
        bytes_to: int,
        started_ms: int,
        told_ms: int,
    ) -> bytes:
        """Return at most ``messages.MAX_STATEMENT_BYTES``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySettings:
    """Who the relay is, where it listens, and how much it carries."""

    relay_id: bytes
    mesh_id: bytes
    box_private: bytes = field(repr=False)
    hosts: tuple[str, ...]
    port: int
    """The control port, 0 for a free one; the 256 after it are for data."""
    table: str = "seipd_relay"
    """The name of our nftables tables."""
    may_use_kernel: bool = True
    capacity_kbits: int = 1_000_000
    """What all sessions together may use."""
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayStatus:
    """How a relay is; the packets are those that went through this program."""

    path: str
    port: int
    sessions: int
    carried_bytes: int
    asked: Mapping[str, int]
    passed_packets: int
    dropped_packets: int
    limited_packets: int
