"""A clock that a test sets forward, and a signer that is a key in memory."""

from __future__ import annotations

from services.base.crypto.signatures import SigningKey, generate_signing_key
from services.kernel.errors import NotFoundError
from services.kernel.signing import KeyRotation, PublicKeyInfo
from services.runtime.clock import SystemClock


class ShiftedClock:
    """The real clock; a test lets time pass (``shift_ms``), or sets it wrong (``set_by_ms``)."""

    def __init__(self) -> None:
        self._real = SystemClock()
        self.shift_ms = 0
        self.set_by_ms = 0

    def now_ms(self) -> int:
        return self._real.now_ms() + self.shift_ms + self.set_by_ms

    def monotonic_s(self) -> float:
        return self._real.monotonic_s() + self.shift_ms / 1000


class KeyInMemorySigner:
    """A signer without a process of its own."""

    def __init__(self) -> None:
        self.key = generate_signing_key()
        self.keys = {"root-1": self.key}
        self.windows: dict[str, KeyRotation] = {}

    async def sign(self, canonical_bytes: bytes, *, scope: str, key_id: str) -> bytes:
        return self._key(key_id).sign(canonical_bytes)

    async def public_key(self, *, scope: str, key_id: str) -> PublicKeyInfo:
        public_key = self._key(key_id).public_key
        return PublicKeyInfo(public_key=public_key, key_id=key_id, state="active")

    async def rotate(
        self, *, scope: str, old_key_id: str, new_key_id: str, opens_at_ms: int, closes_at_ms: int
    ) -> KeyRotation:
        key = self.keys.setdefault(new_key_id, generate_signing_key())
        made = KeyRotation(
            scope=scope,
            old_key_id=old_key_id,
            new_key_id=new_key_id,
            opens_at_ms=opens_at_ms,
            closes_at_ms=closes_at_ms,
            new_public_key=key.public_key,
        )
        return self.windows.setdefault(old_key_id, made)

    async def make(self, *, scope: str, key_id: str, purposes: list[str]) -> None:
        self.keys.setdefault(key_id, generate_signing_key())

    def _key(self, key_id: str) -> SigningKey:
        if key_id not in self.keys:
            raise NotFoundError("there is no such key", code="key_unknown")
        return self.keys[key_id]
