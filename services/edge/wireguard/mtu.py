"""How large a packet in the tunnel may be, by the way that WireGuard's own packets go.

WireGuard adds up to 80 bytes: IPv6 40, UDP 8, its own head and tag 32. Less than 1280 no IPv6 is
spoken in the tunnel (RFC 8200, 5), and more than 1420 is for whoever says so. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.edge.wireguard.model import MIN_MTU

OVERHEAD_BYTES: Final = 80
MOST_MTU: Final = 1420


@dataclass(frozen=True, slots=True, kw_only=True)
class WaySize:
    """What a way carries in one piece, headers and all."""

    link_bytes: int
    """What the interface takes."""
    route_bytes: int | None = None
    """What the route says: by its administrator, or as routers on the way told."""

    @property
    def bytes(self) -> int:
        """The smaller of the two."""
        return min(self.link_bytes, self.route_bytes or self.link_bytes)


def tunnel_mtu(way_bytes: int | None) -> int:
    """Return the MTU of a tunnel whose packets go by this way; None is a way that is not known."""
    if way_bytes is None:
        return MOST_MTU
    return max(MIN_MTU, min(MOST_MTU, way_bytes - OVERHEAD_BYTES))
