"""What the MTU of the tunnel is to be. Pure.

It follows the way to the server, and what was found to come through there. On one way it only
falls: what routers said of it is forgotten by the kernel after ten minutes, and would be found out
anew by packets that are lost; and what does not fit the interface can't be tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from seipd.agent.mtu.searching import Outcome
from services.edge.wireguard.mtu import MOST_MTU, OVERHEAD_BYTES, tunnel_mtu

if TYPE_CHECKING:
    from seipd.agent.mtu.searching import Search
    from seipd.agent.uplink import WayOut
    from services.edge.wireguard.mtu import WaySize

CHOSEN: Final = "chosen"
PATH: Final = "path"
ROUTE: Final = "route"
USUAL: Final = "usual"


class TunnelSize:
    """The MTU of one tunnel, and why it is that."""

    def __init__(self, chosen: int = 0) -> None:
        """Begin; ``chosen`` is the one that somebody said, or 0."""
        self._chosen = chosen
        self._at: tuple[WayOut, int] | None = None
        self._way_bytes: int | None = None
        self._fits_bytes = 0
        self._trouble = ""

    @property
    def mtu(self) -> int:
        """What the interface is to have."""
        by_way = tunnel_mtu(self._way_bytes)
        return self._chosen or min(by_way, self._fits_bytes or by_way)

    def note_way(self, way: WayOut | None, size: WaySize | None) -> None:
        """Take by which way the server is reached, and how large a packet that takes."""
        if way is None or size is None:
            return
        at = way, size.link_bytes
        if at != self._at or self._way_bytes is None:
            self._at, self._way_bytes = at, size.bytes
            self._fits_bytes, self._trouble = 0, ""
        else:
            self._way_bytes = min(self._way_bytes, size.bytes)

    def note_search(self, found: Search) -> None:
        """Take what came of a search on this way."""
        match found.outcome:
            case Outcome.FITS:
                self._trouble = ""
            case Outcome.SMALLER if self._chosen:
                self._trouble = f"packets of more than {found.fits_bytes} bytes vanish on the way"
            case Outcome.SMALLER:
                self._fits_bytes, self._trouble = found.fits_bytes, ""
            case Outcome.NONE:
                self._trouble = f"packets of {found.mtu} bytes, and smaller ones, vanish on the way"
            case _:
                pass

    def facts(self) -> dict[str, Any]:
        """Return what the status shows."""
        by, why = self._reason()
        return {"bytes": self.mtu, "by": by, "why": why, "trouble": self._trouble}

    def _reason(self) -> tuple[str, str]:
        by_way = tunnel_mtu(self._way_bytes)
        if self._chosen:
            return CHOSEN, "as it was told"
        if self.mtu < by_way:
            return PATH, "larger packets vanish on the way to the server"
        if self._way_bytes is None or self._way_bytes >= MOST_MTU + OVERHEAD_BYTES:
            return USUAL, ""
        return ROUTE, f"the way to the server takes packets of {self._way_bytes} bytes"


def mtu_line(mtu: dict[str, Any]) -> str:
    """Return for people how large packets may be."""
    why = "; but ".join(one for one in (mtu["why"], mtu["trouble"]) if one)
    return f"{mtu['bytes']}: {why}" if why else str(mtu["bytes"])
