"""The port that every key provider satisfies."""

from __future__ import annotations

from typing import Protocol


class KeyProvider(Protocol):
    """Makes keys, and signs with them; what it holds never leaves it."""

    def generate(self, handle: str) -> bytes:
        """Make the key of a handle, unless it is there; return its public half."""

    def sign(self, handle: str, data: bytes) -> bytes:
        """Return the 64 bytes of an Ed25519 signature.

        Raises:
            NotFoundError: ``key_unknown``.
            UnavailableError: ``provider_unavailable``.
        """

    def close(self) -> None:
        """Forget what was opened."""
