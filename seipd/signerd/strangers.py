"""How often calls of strangers have an entry of their own in the audit. Pure: time comes in.

Whoever has a certificate of the trust domain may call, and be refused, as fast as TLS goes. An
entry for each would let such a one fill the disk, after which nothing is signed. So beyond a burst
one a second is written, with how many calls it stands for.
"""

from __future__ import annotations

from typing import Final

BURST_COUNT: Final = 120
REFILL_MS: Final = 1000


class Strangers:
    """All of them together."""

    def __init__(self) -> None:
        self._room = BURST_COUNT
        self._refilled_ms = 0
        self._untold_count = 0

    def told(self, *, now_ms: int) -> int:
        """Take one call; return how many an entry of now stands for, 0 where none is written."""
        refills = (now_ms - self._refilled_ms) // REFILL_MS
        if refills > 0 or now_ms < self._refilled_ms:
            self._room = min(BURST_COUNT, self._room + max(refills, 0))
            self._refilled_ms = now_ms
        self._untold_count += 1
        if not self._room:
            return 0
        self._room -= 1
        count, self._untold_count = self._untold_count, 0
        return count
