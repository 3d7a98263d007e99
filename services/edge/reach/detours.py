"""Who is reached through whom: for two servers without a WireGuard session between them. Pure.

Both ends must choose the same server in the middle, since each takes the other's packets from that
peer alone. So the choice reads nothing but what both have signed (facts of kind 4): of those with
whom both have a session it is the one whose hash with the pair is the least.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from services.mesh.facts.payloads import MAX_LINKS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from services.edge.wireguard.model import PeerStatus
    from services.kernel.ids import ServerId

SESSION_LIFE_S: Final = 180
SILENT_S: Final = 60.0
"""Both ends send something every 25 s; who was not heard for so long has no session."""
GRACE_S: Final = 10.0
"""A session that was never there may be about to begin; for a lost one nobody waits."""


class SessionWatch:
    """Which servers have a WireGuard session with this one, by readings of the device."""

    def __init__(self) -> None:
        self._heard: dict[bytes, tuple[int, float]] = {}  # bytes received, since when
        self._missed_s: dict[bytes, float] = {}
        self._live: frozenset[bytes] = frozenset()

    def read(
        self, peers: Mapping[bytes, PeerStatus], *, now_s: float, now_ms: int
    ) -> frozenset[bytes]:
        """Take a reading; return the keys of those that are in session."""
        live = frozenset(
            key for key, peer in peers.items() if self._is_live(peer, now_s=now_s, now_ms=now_ms)
        )
        self._heard = {key: one for key, one in self._heard.items() if key in peers}
        since_s = dict.fromkeys(self._live, now_s - GRACE_S) | self._missed_s
        self._missed_s = {key: since_s.get(key, now_s) for key in peers if key not in live}
        self._live = live
        return live

    def lacking(self, now_s: float) -> frozenset[bytes]:
        """Return the keys of those who lost their session, or never had one for a while."""
        return frozenset(
            key for key, since_s in self._missed_s.items() if now_s - since_s >= GRACE_S
        )

    def _is_live(self, peer: PeerStatus, *, now_s: float, now_ms: int) -> bool:
        count, since_s = self._heard.get(peer.public_key, (-1, now_s))
        if peer.rx_bytes != count:
            count, since_s = peer.rx_bytes, now_s
        self._heard[peer.public_key] = count, since_s
        is_young = now_ms // 1000 - peer.last_handshake_s < SESSION_LIFE_S
        return bool(peer.last_handshake_s) and is_young and now_s - since_s < SILENT_S


def links_to_tell(
    roster: Iterable[ServerId], live: Collection[ServerId], dead: Collection[ServerId]
) -> tuple[ServerId, ...]:
    """Return whom to name, longest-standing first: those in session who are not held dead.

    Where all of them are held dead their tunnels may still carry, so they are better than nobody.
    """
    in_session = [name for name in roster if name in live]
    return tuple(([name for name in in_session if name not in dead] or in_session)[:MAX_LINKS])


def detours(
    own_id: ServerId, lacking: Iterable[ServerId], links: Mapping[ServerId, Collection[ServerId]]
) -> dict[ServerId, ServerId]:
    """Return through whom each of those who are lacking is reached, where anybody will do."""
    own = links.get(own_id, ())
    found = {}
    for other in lacking:
        told = links.get(other, ())
        both = [name for name in told if name in own and name not in (own_id, other)]
        if both and other != own_id:
            found[other] = min(both, key=lambda middle: _distance((own_id, other), middle))
    return found


def inherited(
    peers: Mapping[bytes, PeerStatus],
    by_key: Mapping[bytes, ServerId],
    by_backbone: Mapping[str, ServerId],
) -> dict[ServerId, ServerId]:
    """Return the ways round that the device goes by already, as after a restart."""
    return {
        by_backbone[prefix]: by_key[key]
        for key, peer in peers.items()
        if key in by_key
        for prefix in peer.allowed_ips
        if by_backbone.get(prefix, by_key[key]) != by_key[key]
    }


def _distance(pair: Sequence[ServerId], middle: ServerId) -> bytes:
    return hashlib.sha256("\0".join((*sorted(pair), middle)).encode()).digest()
