"""What the MTU of the tunnel is to be. Pure.

It follows the way to the server. On one way it only falls: what routers said of it is forgotten by
the kernel after ten minutes, and would be found out anew by packets that are lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from services.edge.wireguard.mtu import MOST_MTU, OVERHEAD_BYTES, tunnel_mtu

if TYPE_CHECKING:
    from seipd.agent.uplink import WayOut
    from services.edge.wireguard.mtu import WaySize

CHOSEN: Final = "chosen"
ROUTE: Final = "route"
USUAL: Final = "usual"


class TunnelSize:
    """The MTU of one tunnel, and why it is that."""

    def __init__(self, chosen: int = 0) -> None:
        """Begin; ``chosen`` is the one that somebody said, or 0."""
        self._chosen = chosen
        self._at: tuple[WayOut, int] | None = None
        self._way_bytes: int | None = None

    @property
    def mtu(self) -> int:
        """What the interface is to have."""
        return self._chosen or tunnel_mtu(self._way_bytes)

    def note_way(self, way: WayOut | None, size: WaySize | None) -> None:
        """Take by which way the server is reached, and how large a packet that takes."""
        if way is None or size is None:
            return
        at = way, size.link_bytes
        if at != self._at or self._way_bytes is None:
            self._at, self._way_bytes = at, size.bytes
        else:
            self._way_bytes = min(self._way_bytes, size.bytes)

    def facts(self) -> dict[str, Any]:
        """Return what the status shows."""
        if self._chosen:
            return {"bytes": self.mtu, "by": CHOSEN, "why": "as it was told"}
        if self._way_bytes is None or self._way_bytes >= MOST_MTU + OVERHEAD_BYTES:
            return {"bytes": self.mtu, "by": USUAL, "why": ""}
        why = f"the way to the server takes packets of {self._way_bytes} bytes"
        return {"bytes": self.mtu, "by": ROUTE, "why": why}


def mtu_line(mtu: dict[str, Any]) -> str:
    """Return for people how large packets may be."""
    return f"{mtu['bytes']}: {mtu['why']}" if mtu["why"] else str(mtu["bytes"])
