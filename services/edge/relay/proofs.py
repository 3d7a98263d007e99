"""What a relay hands to its clients to show again: made of one secret, kept nowhere. Pure."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from services.edge.relay.messages import TOKEN_BYTES

if TYPE_CHECKING:
    from services.edge.relay.model import Address

SECRET_BYTES: Final = 32

_SESSION: Final = b"session"
_TOKEN: Final = b"token"


class Proofs:
    """Session keys and tokens under a secret of the process; with it, every session ends."""

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def session_key(self, direction: int, generation: int, key: bytes) -> bytes:
        """Return the key that one party of one session boxes under."""
        text = b"%d/%d/" % (direction, generation)
        return self._hash(_SESSION, text + key, 32)

    def token(self, direction: int, generation: int, address: Address) -> bytes:
        """Return what shows that a party receives at its host; the port may change on the way."""
        text = b"%d/%d/" % (direction, generation)
        return self._hash(_TOKEN, text + address[0].encode(), TOKEN_BYTES)

    def is_token(self, token: bytes, direction: int, generation: int, address: Address) -> bool:
        """Say whether a token is the one of this party at this host."""
        return hmac.compare_digest(token, self.token(direction, generation, address))

    def _hash(self, purpose: bytes, data: bytes, length: int) -> bytes:
        return hashlib.blake2b(data, digest_size=length, key=self._secret, person=purpose).digest()
