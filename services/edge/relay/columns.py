"""The numbers of sessions, packed: an object each would weigh more than the session. Pure."""

from __future__ import annotations

from array import array
from typing import Final

NONCE_BYTES: Final = 16


class Columns:
    """Three by direction, five by session; a row is given out again when its session is over."""

    __slots__ = (
        "_nonces",
        "carried_bytes",
        "counters",
        "expires_ms",
        "generations",
        "heard_s",
        "rate_kbits",
        "started_ms",
    )

    def __init__(self) -> None:
        # By direction: the last counter, when it was heard, and how many bytes it has sent.
        self.counters = array("Q")
        self.heard_s = array("d")
        self.carried_bytes = array("Q")
        self.expires_ms = array("Q")
        self.started_ms = array("Q")
        self.rate_kbits = array("I")
        self.generations = array("I")
        self._nonces = bytearray()

    def grow(self) -> None:
        """Make room for one more session."""
        for of_direction in (self.counters, self.heard_s, self.carried_bytes):
            of_direction.extend((0, 0))
        for of_session in (self.expires_ms, self.started_ms, self.rate_kbits, self.generations):
            of_session.append(0)
        self._nonces.extend(bytes(NONCE_BYTES))

    def begin(self, number: int, now_ms: int, now_s: float) -> None:
        """Start a row afresh."""
        self.generations[number] = (self.generations[number] + 1) & 0xFFFFFFFF
        self.started_ms[number] = now_ms
        self.expires_ms[number] = 0
        for direction in (2 * number, 2 * number + 1):
            self.counters[direction] = self.carried_bytes[direction] = 0
            self.heard_s[direction] = now_s

    def nonce(self, number: int) -> bytes:
        """Return the nonce of a session's newest ticket."""
        return bytes(self._nonces[number * NONCE_BYTES : (number + 1) * NONCE_BYTES])

    def set_nonce(self, number: int, nonce: bytes) -> None:
        """Note the nonce of a session's newest ticket."""
        self._nonces[number * NONCE_BYTES : (number + 1) * NONCE_BYTES] = nonce
