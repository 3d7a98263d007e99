"""How far the clock here is from those of the other servers. Pure.

HELLO and HELLO_ACK tell, signed, what time it is at their sender. That is held as the difference to
the monotonic clock here, which nobody sets: so it shows at once when this machine's clock is set,
wrong or right, and nobody need be asked again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from services.mesh.gossip.ports import Moment

MAX_OFF_MS: Final = 10_000
MIN_PEERS: Final = 2
HELD_S: Final = 1_800.0


class PeerClocks:
    """What time it is at each peer, as last told; a session is renewed long before that is old."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[float, int]] = {}
        self._newest_ms: dict[str, int] = {}

    def greeted(self, peer: str, peer_ms: int, now: Moment) -> None:
        """Take the time of a HELLO, its signature checked; one that was heard before is nothing."""
        if peer_ms > self._newest_ms.get(peer, -1):
            self._newest_ms[peer] = peer_ms
            self._told[peer] = (now.s, peer_ms - _since_boot_ms(now))

    def answered(self, peer: str, peer_ms: int, now: Moment) -> None:
        """Take the time of a HELLO_ACK, its signature checked: it answers what was just asked."""
        self._told[peer] = (now.s, peer_ms - _since_boot_ms(now))

    def forget(self, peer: str) -> None:
        """Forget a peer that is no server any more."""
        self._told.pop(peer, None)
        self._newest_ms.pop(peer, None)

    def ahead_ms(self, now: Moment) -> int | None:
        """Return how far this clock is ahead of the median of the peers', below 0 if behind.

        None with fewer than two peers: a difference from one does not say who is wrong. Of an even
        number the middle two count as one clock that is somewhere between them, so who has one on
        either side is not off.
        """
        own_ms = now.ms - _since_boot_ms(now)
        ahead = sorted(own_ms - at for seen_s, at in self._told.values() if now.s - seen_s < HELD_S)
        if len(ahead) < MIN_PEERS:
            return None
        low, high = ahead[(len(ahead) - 1) // 2], ahead[len(ahead) // 2]
        if low <= 0 <= high:
            return 0
        return low if low > 0 else high


def clock_trouble(ahead_ms: int | None) -> str:
    """Say why a clock that is so far ahead of the others' must not stamp anything; "" if it may."""
    if ahead_ms is None or abs(ahead_ms) <= MAX_OFF_MS:
        return ""
    where = "ahead of" if ahead_ms > 0 else "behind"
    return (
        f"this server's clock is {abs(ahead_ms) // 1000} s {where} the median of the other"
        " servers' clocks: no writes until it is set right (check NTP, timedatectl)"
    )


def _since_boot_ms(now: Moment) -> int:
    return round(now.s * 1000)
