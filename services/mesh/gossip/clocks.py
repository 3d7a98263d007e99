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
MAX_SKEW_MS: Final = 300_000
"""Who is further off is not talked to."""
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
        ahead = sorted(self._ahead_of(now).values())
        if len(ahead) < MIN_PEERS:
            return None
        low, high = ahead[(len(ahead) - 1) // 2], ahead[len(ahead) // 2]
        if low <= 0 <= high:
            return 0
        return low if low > 0 else high

    def apart_lines(self, now: Moment) -> list[str]:
        """Say that the clocks are apart where there are too few to tell which one is wrong."""
        if self.ahead_ms(now) is not None:
            return []
        return [
            f"this server's clock is {abs(ahead_ms) // 1000} s "
            f"{'ahead of' if ahead_ms > 0 else 'behind'} that of {peer}: "
            + ("they do not talk" if abs(ahead_ms) > MAX_SKEW_MS else "records come late")
            + " until both are right (check NTP, timedatectl)"
            for peer, ahead_ms in self._ahead_of(now).items()
            if abs(ahead_ms) > MAX_OFF_MS
        ]

    def _ahead_of(self, now: Moment) -> dict[str, int]:
        own_ms, told = now.ms - _since_boot_ms(now), self._told.items()
        return {peer: own_ms - at for peer, (seen_s, at) in told if now.s - seen_s < HELD_S}


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
