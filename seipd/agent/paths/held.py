"""One path as it is held, with what is known beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from seipd.agent.paths.pathing import PeerPath
    from seipd.agent.paths.proved import Peer
    from services.edge.wireguard.model import PeerStatus
    from services.kernel.targets import Network

MAX_EXCLUDED: Final = 4
EXCLUDED_S: Final = 60.0
"""A relay that fell silent may only have been out of reach for a while."""


@dataclass(slots=True, kw_only=True)
class Held:
    """One path, and what is known beside it."""

    peer: Peer
    path: PeerPath
    excluded_s: dict[bytes, float] = field(default_factory=dict)
    """The relays that failed, and when."""
    near: tuple[Network, ...] = ()
    """Private networks that the two have in common, by where the servers see them."""
    is_hopeless: bool = False
    """Whether the routers on both sides pick a port for each destination."""
    status: PeerStatus | None = None
    echo_ms: float | None = None
    echo_path: str = ""

    def exclude(self, relay_id: bytes, now_s: float) -> None:
        """Have a relay that failed not offered again for a while."""
        self.excluded_s.pop(relay_id, None)
        if relay_id:
            self.excluded_s[relay_id] = now_s

    def excluded(self, now_s: float) -> list[bytes]:
        """Return the relays not to be offered, the last to fail last."""
        late = [one for one, at_s in self.excluded_s.items() if now_s - at_s < EXCLUDED_S]
        return late[-MAX_EXCLUDED:]
