"""Boxes under a session key, for what is carried and not kept, and the window against replays.

    nonce = 16 zero bytes || counter, 8 bytes, big endian

The counter is sent in the clear by whoever frames the box. Each direction has a key of its own, so
that two counters never meet under one key. Open the box first and ask the window after: a forged
counter must not move it.
"""

from __future__ import annotations

from services.base.crypto import aead
from services.kernel.errors import InputError

MAX_COUNTER = 2**64 - 1
_NONCE_PREFIX = bytes(aead.XCHACHA20_NONCE_BYTES - 8)


class SessionCipher:
    """XChaCha20-Poly1305 under two keys, one for each direction."""

    __slots__ = ("_key_receive", "_key_send")

    def __init__(self, key_send: bytes, key_receive: bytes) -> None:
        """Take the two keys.

        Raises:
            InputError: ``bad_key``: a key of another length, or one key for both directions.
        """
        if len(key_send) != aead.KEY_BYTES or len(key_receive) != aead.KEY_BYTES:
            raise InputError(f"a session key has {aead.KEY_BYTES} bytes", code="bad_key")
        if key_send == key_receive:
            raise InputError("one key for both directions repeats nonces", code="bad_key")
        self._key_send = key_send
        self._key_receive = key_receive

    def encrypt(self, counter: int, plaintext: bytes, *, aad: bytes = b"") -> bytes:
        """Box a message; a counter is used once and never again.

        Raises:
            InputError: the counter does not fit in 64 bits.
        """
        return aead.xchacha20_encrypt(self._key_send, _nonce(counter), plaintext, aad)

    def decrypt(self, counter: int, data: bytes, *, aad: bytes = b"") -> bytes:
        """Open a box of the other side.

        Raises:
            InputError: the counter does not fit in 64 bits.
            DecryptError: not boxed by the other side under this counter.
        """
        return aead.xchacha20_decrypt(self._key_receive, _nonce(counter), data, aad)


class ReplayWindow:
    """Accepts each counter once; one older than ``size`` counters is taken for a replay."""

    __slots__ = ("_highest", "_mask", "_seen", "_size")

    def __init__(self, size: int = 1024) -> None:
        """Start with nothing seen.

        Raises:
            InputError: a size that is not from 1 to 65,536.
        """
        if not 1 <= size <= 65536:
            raise InputError("a replay window has 1 to 65536 places")
        self._size = size
        self._mask = (1 << size) - 1
        self._highest = -1
        self._seen = 0  # bit n is set when highest - n was accepted

    def accept(self, counter: int) -> bool:
        """Say whether the counter is new, and remember it."""
        if not 0 <= counter <= MAX_COUNTER:
            return False
        ahead = counter - self._highest
        if ahead > 0:
            self._seen = 1 if ahead >= self._size else (self._seen << ahead | 1) & self._mask
            self._highest = counter
            return True
        bit = 1 << -ahead if -ahead < self._size else 0
        if not bit or self._seen & bit:
            return False
        self._seen |= bit
        return True


def _nonce(counter: int) -> bytes:
    if not 0 <= counter <= MAX_COUNTER:
        raise InputError("a counter has 64 bits")
    return _NONCE_PREFIX + counter.to_bytes(8, "big")
