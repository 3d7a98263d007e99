"""The port that every key provider satisfies; tests/contract/test_key_providers.py is its law."""

from __future__ import annotations

from typing import Protocol


class KeyProvider(Protocol):
    """Makes keys, and signs with them; what it holds never leaves it. Calls block: use a thread."""

    def generate(self, handle: str) -> bytes:
        """Make the key of a handle, unless it is there; return its public half.

        Raises:
            SeipdError: the provider can't; no half-made key is left.
        """

    def public_key(self, handle: str) -> bytes:
        """Open a key, so that signing finds it ready, and return its public half.

        Raises:
            NotFoundError: ``key_unknown``.
            SeipdError: the key does not open.
        """

    def sign(self, handle: str, data: bytes) -> bytes:
        """Return the 64 bytes of an Ed25519 signature.

        Raises:
            NotFoundError: ``key_unknown``.
            SeipdError: the key does not open.
        """

    def close(self) -> None:
        """Forget what was opened; may be called twice."""
