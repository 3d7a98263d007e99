"""When to begin a first WireGuard handshake anew. Pure.

Two servers that start in one moment both initiate. Over a way of many milliseconds the two
initiations cross and come to nothing, and so do the repetitions: WireGuard makes them every five
seconds at both ends. So one of the two begins again in between, until there is a handshake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from services.edge.wireguard.model import PeerStatus

PAUSES_S: Final = (1.5, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""Each makes the peer anew, so an answer that takes longer than the pause before is lost."""
HURRIED_COUNT: Final = 3


class Prompter:
    """Which peers have had no handshake yet, and since when."""

    def __init__(self) -> None:
        self._asked: dict[bytes, tuple[float, int]] = {}  # when it was last begun, how often

    @property
    def hurries(self) -> bool:
        """Whether a first handshake may be due soon."""
        return any(count < HURRIED_COUNT for _, count in self._asked.values())

    def due(self, own_key: bytes, peers: Mapping[bytes, PeerStatus], now_s: float) -> list[bytes]:
        """Take a reading; return the keys of those with whom to begin anew.

        The lesser key leads. Who was in session before is left to WireGuard, which may have learnt
        an address that nobody told.
        """
        fresh = (now_s, 0)
        self._asked = {
            key: self._asked.get(key, fresh)
            for key, peer in peers.items()
            if own_key < key and peer.endpoint is not None and not peer.last_handshake_s
        }
        found = []
        for key, (since_s, count) in self._asked.items():
            if now_s - since_s >= PAUSES_S[min(count, len(PAUSES_S) - 1)]:
                self._asked[key] = now_s, count + 1
                found.append(key)
        return found
