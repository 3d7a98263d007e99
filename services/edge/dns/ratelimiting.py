"""Response rate limiting: a stranger's address may be forged, so nobody is flooded by us. Pure.

Of what one network (/24, /56) gets in a second the first ``rate`` responses go out whatever they
are. Beyond that each answer has a rate of its own: so a large resolver that asks for many names is
served, and one that is made to ask for one name, or for names that are not there, is not. Every
second response over the rate is an empty one with TC, which lets those who really asked come again
over TCP; the others are dropped. So it is for networks of which no count can be kept any more:
forged sources that fill the tables open no door.
"""

from __future__ import annotations

from enum import Enum
from ipaddress import ip_address
from typing import Final

SLIP: Final = 2
MAX_COUNTED: Final = 65_536
WINDOW_S: Final = 1.0
NETWORK4: Final = slice(3)
"""A /24 of an IPv4 address."""
NETWORK6: Final = slice(7)
"""A /56 of an IPv6 address."""
_IPV4_BYTES: Final = 4


class Verdict(Enum):
    """What becomes of a response."""

    SEND = "send"
    SLIP = "slip"
    DROP = "drop"


class ResponseRates:
    """Counts for a second, then forgets; a rate of 0 lets everything through."""

    def __init__(self, *, per_second: int) -> None:
        self._rate = per_second
        self._ends_s = 0.0
        self._by_network: dict[bytes, int] = {}
        self._by_answer: dict[tuple[bytes, bytes], int] = {}
        self._uncounted = 0
        self.slipped_count = 0
        self.dropped_count = 0

    def passes(self, network: bytes, *, now_s: float) -> bool:
        """Say whether a network is within its rate whatever is answered; cheap."""
        if not self._rate:
            return True
        if now_s >= self._ends_s or now_s < self._ends_s - WINDOW_S:
            self._begin(now_s)
        count = self._by_network.get(network, 0) + 1
        if count > self._rate:
            return False
        if count == 1 and len(self._by_network) >= MAX_COUNTED:
            return False
        self._by_network[network] = count
        return True

    def verdict(self, network: bytes, answer: bytes, *, now_s: float) -> Verdict:
        """Say what becomes of one response; ``answer`` names what is the same in many."""
        if self.passes(network, now_s=now_s):
            return Verdict.SEND
        key = (network, answer)
        count = self._by_answer.get(key, 0) + 1
        if count == 1 and len(self._by_answer) >= MAX_COUNTED:
            self._uncounted += 1
            count = self._uncounted
        else:
            self._by_answer[key] = count
            if count <= self._rate:
                return Verdict.SEND
        if count % SLIP:
            self.dropped_count += 1
            return Verdict.DROP
        self.slipped_count += 1
        return Verdict.SLIP

    def _begin(self, now_s: float) -> None:
        self._ends_s = now_s + WINDOW_S
        self._by_network.clear()
        self._by_answer.clear()


def packed_of(address: str) -> bytes:
    """Return the 4 or 16 octets of an address."""
    return ip_address(address.partition("%")[0]).packed


def network_in(host: bytes) -> bytes:
    """Return what stands for the network of an address: its /24, its /56."""
    return host[NETWORK4] if len(host) == _IPV4_BYTES else host[NETWORK6]
