"""Who is who: endpoints by their tunnel address, servers by their backbone address. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from services.kernel.ids import ServerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """An endpoint as the state knows it."""

    node_id: str
    key: bytes
    """Of WireGuard."""
    carrier: ServerId | None


class Parties(Protocol):
    """Answers from the state as it is now."""

    own_id: ServerId

    def party(self, address: str) -> Party | None:
        """Return the endpoint that holds a tunnel address."""

    def server_at(self, backbone: str) -> ServerId | None:
        """Return the server of the roster that has a backbone address."""

    def backbone_of(self, server_id: ServerId) -> str | None:
        """Return the backbone address of a server of the roster."""
